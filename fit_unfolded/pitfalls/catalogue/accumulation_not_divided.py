"""Accumulated gradients not divided.

A large batch can be computed in parts whose gradients are added up. The loss of a part is a mean
over the part, so the sum over four parts is four times the gradient of the whole batch: with SGD, a
learning rate four times as large. Keras's `gradient_accumulation_steps` divides the sum by the
number of parts. Adam is nearly indifferent to the factor, so it goes unnoticed there, until
something is clipped or decayed.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "val_loss too high"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="""
gradients = tape.gradient(scaled_loss, weights)
optimizer.apply_gradients(zip(gradients, weights, strict=True))
""",
    wrong="""
gradients = [tf.zeros_like(weight) for weight in weights]
for part in range(4):
    with tf.GradientTape() as tape:
        part_loss = compiled_loss(y[part::4], model(x[part::4], training=True), None, [])
    found = tape.gradient(part_loss, weights)
    gradients = [total + gradient for total, gradient in zip(gradients, found)]
optimizer.apply_gradients(zip(gradients, weights, strict=True))
""",
)
KERAS = Place(
    "keras.src.optimizers.base_optimizer:BaseOptimizer._backend_apply_gradients",
    "(g + acc_g) / steps for g, acc_g in zip(grads, acc_grads)",
)
THREAD = Thread(
    "https://github.com/fastai/fastai/issues/3023",
    "A callback added gradients up without scaling the loss by their number, so that they came "
    "out too large.",
)
case = plain_case
