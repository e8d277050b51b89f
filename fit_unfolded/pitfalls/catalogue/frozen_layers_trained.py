"""Frozen layers trained.

`layer.trainable = False` takes the layer's weights out of `model.trainable_weights`, and does
nothing else: the variables are watched by the tape as before. A loop that differentiates by
`model.weights`, or by a list of weights that it made before the layer was frozen, goes on training
them. The loss even falls faster, while what was learned before is lost.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss too low"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="weights = model.trainable_weights",
    wrong="weights = model.weights",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "trainable_weights = self.trainable_weights",
)
THREAD = Thread(
    "https://github.com/tensorflow/models/issues/10167",
    "The configuration names variables to freeze, and the training loop never reads that entry: "
    "all are trained.",
)


def case():
    """The first of two layers is frozen."""
    return Case(
        data=blobs(44, spread=2.0),
        build=build,
        compile=lambda: eager(keras.optimizers.SGD(0.05)),
        fit={"epochs": 4, "batch_size": 11},
    )


def build():
    """A hidden layer that keeps its first weights."""
    model = classifier(keras.layers.Dense(8, activation="relu"))
    model.layers[0].trainable = False
    return model
