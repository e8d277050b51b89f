"""Logits passed where probabilities are expected.

The cross-entropies of Keras expect probabilities unless `from_logits=True`. The sparse one clips
logits to (0, 1) as if they were probabilities: a negative logit becomes 1e-7, one above 1 becomes
1, and neither has a gradient. The loss is a plausible number, and training goes somewhere, slowly.
The last layer and the loss must be changed together.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))",
)
KERAS = Place(
    "keras.src.backend.tensorflow.nn:sparse_categorical_crossentropy",
    "if not from_logits:",
)
THREAD = Thread(
    "https://github.com/MITDeepLearning/introtodeeplearning/issues/122",
    "The loop of a course notebook passes what it calls logits to "
    "sparse_categorical_crossentropy without from_logits=True.",
)


def case():
    """A last layer without softmax; `compile` says so to the loss."""
    loss = keras.losses.SparseCategoricalCrossentropy
    return Case(
        data=blobs(),
        build=lambda: classifier(activation=None),
        compile=lambda: eager(keras.optimizers.Adam(0.02), loss(from_logits=True)),
        fit={"epochs": 5, "batch_size": 11},
    )
