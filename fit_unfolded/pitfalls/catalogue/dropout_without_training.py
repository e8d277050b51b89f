"""Dropout called without `training=True`.

`training` is False unless it is said, and Dropout then passes everything on. The training loss
looks better than that of fit, because no unit is ever left out; what is lost is the
regularisation. Validation leaves no unit out on either side, so only the training shows it.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss too low"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="y_pred = forward(model, x, training=True)",
    wrong="y_pred = model(x)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "y_pred = self(x, training=True)",
)
THREAD = Thread(
    "https://github.com/yusugomori/deeplearning-keras-tf2-torch/issues/2",
    "In Japanese: a reader of a book's code notes that its own loop calls the subclassed "
    "model without training=True, so that Dropout does not act.",
)


def case():
    """A wide layer, half of it dropped."""
    return Case(
        data=blobs(),
        build=lambda: classifier(
            keras.layers.Dense(32, activation="relu"), keras.layers.Dropout(0.5)
        ),
        compile=lambda: eager("adam"),
        fit={"epochs": 3, "batch_size": 11, "validation_split": 0.25},
    )
