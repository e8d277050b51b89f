"""Gradients clipped before they are averaged.

The gradient of a batch is the mean of the gradients of its parts, be they micro-batches or
replicas. fit averages first and clips the mean. A loop that clips each part first takes away from
the parts with long gradients what they have more than the others, so that the mean points
elsewhere: rare, difficult samples count less.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import clipped_case

SYMPTOM = "loss too high, or it falls too slowly"
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
    found, _ = tf.clip_by_global_norm(tape.gradient(part_loss, weights), 0.3)
    gradients = [total + gradient / 4 for total, gradient in zip(gradients, found)]
optimizer.apply_gradients(zip(gradients, weights, strict=True))
""",
)
KERAS = Place(
    "keras.src.optimizers.base_optimizer:BaseOptimizer._backend_apply_gradients",
    "grads = self._clip_gradients(grads)",
)
THREAD = Thread(
    "https://github.com/huggingface/transformers/issues/1563",
    "In PyTorch: a training script clipped after each backward pass; it is to be done once, before "
    "the optimizer's step.",
)
case = clipped_case
