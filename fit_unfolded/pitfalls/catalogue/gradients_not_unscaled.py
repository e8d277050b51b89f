"""Gradients not unscaled in `mixed_float16`.

The gradients of a scaled loss are 32,768 times too large until they are divided again; some are
even infinite in float16. In Keras 3 `LossScaleOptimizer.apply_gradients` divides them, leaves out a
step whose gradients are not finite, and lowers the scale; there is no `get_unscaled_gradients` any
more. A loop that scales the loss and hands the gradients to the optimizer inside takes these steps
as they are.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import float16_case

SYMPTOM = "loss is NaN"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="optimizer.apply_gradients(zip(gradients, weights, strict=True))",
    wrong="optimizer.inner_optimizer.apply_gradients(zip(gradients, weights, strict=True))",
)
KERAS = Place(
    "keras.src.optimizers.loss_scale_optimizer:LossScaleOptimizer._stateful_handle_finite_grads",
    "unscaled_grads = [",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/20894",
    "The tutorial's loop calls get_scaled_loss and get_unscaled_gradients, which Keras 3 does "
    "not have.",
)
case = float16_case
