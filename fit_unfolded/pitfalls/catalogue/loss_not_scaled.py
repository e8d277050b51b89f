"""Loss not scaled in `mixed_float16`.

float16 has no number between 0 and 6e-8, so small gradients vanish in it. `compile` therefore wraps
the optimizer in a `LossScaleOptimizer`: `scale_loss` multiplies the loss, at first by 32,768,
before the gradients are taken, and `apply_gradients` divides them again. A loop that takes the
gradients of the plain loss has them divided all the same: its steps are thousands of times too
small.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import float16_case

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="scaled_loss = optimizer.scale_loss(loss)",
    wrong="scaled_loss = loss",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "loss = self.optimizer.scale_loss(loss)",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/19244",
    "Someone wrapped the optimizer in LossScaleOptimizer, supposed that it would see to the "
    "scaling, and found that training stopped improving after some steps, while it went on in "
    "float32.",
)
case = float16_case
