"""The optimizer's update inside the tape.

Only what leads to the loss belongs on the tape. With gradients and update inside its block, a
persistent tape records them too, in case somebody wants their gradients: run eagerly, that takes
time, and keeps what was recorded in memory. The numbers stay the same. A tape that is not
persistent forgives it, for `gradient` stops its recording. What is counted here is updates made
while a tape was recording.
"""

import keras
from tensorflow.python.eager.record import could_possibly_record

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import AFTER_THE_FIRST, Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "slower every step"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="""
with tf.GradientTape() as tape:
    y_pred = forward(model, x, training=True)
    loss = compiled_loss(y, y_pred, sample_weight, model.losses)
    compiled_metrics.loss.update_state(
        unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
    )
    scaled_loss = optimizer.scale_loss(loss)

weights = model.trainable_weights
if weights:
    gradients = tape.gradient(scaled_loss, weights)
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
else:
""",
    wrong="""
with tf.GradientTape(persistent=True) as tape:
    y_pred = forward(model, x, training=True)
    loss = compiled_loss(y, y_pred, sample_weight, model.losses)
    compiled_metrics.loss.update_state(
        unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
    )
    scaled_loss = optimizer.scale_loss(loss)

    weights = model.trainable_weights
    if weights:
        gradients = tape.gradient(scaled_loss, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
if not weights:
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "gradients = tape.gradient(",
)
THREAD = Thread(
    "https://github.com/ufal/npfl114/pull/49",
    "Whether `gradient` belongs inside the block: a lecturer explains that its place is "
    "behind it, and that it would work inside too, by an exception for a tape that is asked "
    "while it records.",
)
TIMED = AFTER_THE_FIRST
COUNTED = "updates on a tape"


class Recorded(keras.optimizers.SGD):
    """Counts the updates of a variable that happen while a tape records."""

    updates = 0

    def update_step(self, gradient, variable, learning_rate):
        """Asks TensorFlow, which has no public name for the question."""
        self.updates += could_possibly_record()
        super().update_step(gradient, variable, learning_rate)


def case():
    """Many weights, so that there is much to update."""
    return Case(
        data=blobs(),
        build=lambda: classifier(*(keras.layers.Dense(8) for _ in range(4))),
        compile=lambda: eager(Recorded(0.05, momentum=0.9)),
        fit={"epochs": 5, "batch_size": 11},
    )


def count(run):
    """Updates of a variable."""
    return run.trainer.optimizer.updates
