"""A layer made inside the step.

A layer that is made in the step belongs to no model: its weights are in no list of trainable
weights, so nothing updates them. In a graph, with XLA or without, TensorFlow refuses variables that
are made in a later trace than the first: "tf.function only supports singleton tf.Variables created
on the first call". The usual way out, to run the step eagerly, silences the error and hides the
mistake: each batch then gets a new layer with new random weights. Layers are to be made once, in
the model. (Such a layer may well be built by its first call, under XLA too: tensorflow#125391
reports other numbers then, which these versions do not show.)
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
    wrong="""
features = model.layers[0](x)
y_pred = keras.layers.Dense(3, activation="softmax")(features)
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "trainable_weights = self.trainable_weights",
)
THREAD = Thread(
    "https://github.com/koshian2/OctConv-TFKeras/issues/16",
    "The error about variables, met by running eagerly; the answer says why that is "
    "pointless: each call would make a convolution with new initial weights.",
)


def case():
    """A hidden layer and an output, run eagerly."""
    return Case(
        data=blobs(),
        build=lambda: classifier(keras.layers.Dense(8, activation="relu")),
        compile=lambda: eager(keras.optimizers.SGD(0.1)),
        fit={"epochs": 5, "batch_size": 11},
    )
