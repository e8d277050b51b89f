"""Each variable clipped for itself.

`clipnorm` and `tf.clip_by_norm` bound the gradient of each variable, `global_clipnorm` and
`tf.clip_by_global_norm` that of all variables together. Only the latter keep the direction of the
step: clipped one by one, variables with short gradients go on in full, while those with long ones
are cut, and the step as a whole may be longer than the bound. Papers mostly mean the global norm.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import clipped_case

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="optimizer.apply_gradients(zip(gradients, weights, strict=True))",
    wrong="""
optimizer.global_clipnorm = None
gradients = [tf.clip_by_norm(gradient, 0.3) for gradient in gradients]
optimizer.apply_gradients(zip(gradients, weights, strict=True))
""",
)
KERAS = Place(
    "keras.src.optimizers.base_optimizer:BaseOptimizer._clip_gradients",
    "return clip_by_global_norm(grads, self.global_clipnorm)",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/13575",
    "Someone notices that clipnorm clips each variable and asks for the global norm, which "
    "TensorFlow's documentation calls the correct way.",
)
case = clipped_case
