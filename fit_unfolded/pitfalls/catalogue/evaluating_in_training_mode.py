"""Validation with `training=True`.

A validation step with `training=True` measures the model with Dropout on, and normalizes each batch
by itself. Worse, BatchNorm then moves its averages towards the validation data: the model has
learned from what it must not see, and its saved weights differ.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:test_step",
    right="y_pred = forward(model, x, training=False)",
    wrong="y_pred = forward(model, x, training=True)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.test_step",
    "y_pred = self(x, training=False)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/33771",
    "The validation loss of a loop with BatchNorm behaves strangely; one comment gets "
    "sensible figures with training=False only, and wonders why the moving mean went on "
    "changing while validating.",
)


def case():
    """BatchNorm and Dropout; a part of the data is held back."""
    layers = keras.layers
    return Case(
        data=blobs(),
        build=lambda: classifier(layers.BatchNormalization(momentum=0.8), layers.Dropout(0.3)),
        compile=lambda: eager("adam"),
        fit={"epochs": 3, "batch_size": 11, "validation_split": 0.25},
    )
