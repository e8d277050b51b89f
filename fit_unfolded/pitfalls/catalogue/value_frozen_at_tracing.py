"""A value frozen at tracing.

`tf.function` runs the step's Python once. A number that Python reads there, `float(learning_rate)`,
an attribute like `Dropout.rate`, a global, becomes a constant of the graph, and a later change has
no effect: here the learning rate halves after every epoch, and the graph keeps the first one. What
is to change belongs into a `tf.Variable`, as `optimizer.learning_rate` is, or among the step's
arguments as a tensor. Run eagerly, the same loop is right.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, blobs, classifier

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="optimizer.apply_gradients(zip(gradients, weights, strict=True))",
    wrong="""
with tf.init_scope():
    rate = float(optimizer.learning_rate)
for weight, gradient in zip(weights, gradients, strict=True):
    weight.assign_sub(rate * gradient)
optimizer.iterations.assign_add(1)
""",
)
KERAS = Place(
    "keras.src.optimizers.base_optimizer:BaseOptimizer.__init__",
    "learning_rate = backend.Variable(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/31323",
    "A function that was given as learning rate seemed to be called a few times, and then an old "
    "value to be used.",
)


def case():
    """A callback halves the learning rate after each epoch."""
    return Case(
        data=blobs(33, spread=2.0),
        build=lambda: classifier(),
        compile=lambda: {"optimizer": keras.optimizers.SGD(0.2), "loss": SPARSE},
        fit={"epochs": 4, "batch_size": 11},
        callbacks=lambda: [keras.callbacks.LearningRateScheduler(lambda epoch: 0.2 * 0.5**epoch)],
    )
