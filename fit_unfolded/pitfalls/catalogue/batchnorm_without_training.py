"""BatchNorm called without `training=True`.

`training` is False unless it is said. BatchNorm then normalizes by its moving averages, which begin
at mean 0 and variance 1 and are moved only by calls with `training=True`: they stay as they are for
ever, and the layer normalizes nothing. Nothing fails, and the loss may even fall.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss too high, or it falls too slowly"
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
    "https://github.com/tensorflow/tensorflow/issues/32864",
    "Asks how the moving averages get updated under a GradientTape; the answer found is to "
    "call the layer with training=True.",
)


def case():
    """Features far from mean 0, so that it matters whether they are normalized."""
    return Case(
        data=blobs(shift=3.0),
        build=lambda: classifier(keras.layers.BatchNormalization(momentum=0.8)),
        compile=lambda: eager("adam"),
        fit={"epochs": 3, "batch_size": 11},
    )
