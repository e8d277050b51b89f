"""Rows of the validation part seen in training.

`Dataset.shuffle` draws a new order for each iteration. `take` and `skip` behind it therefore cut a
newly shuffled whole each time: in the second epoch, rows that were validated on before are trained
on, and after some epochs all of them were. The validation loss falls along with the training loss,
whatever the model has learned. Split first, then shuffle the training part, as fit does. What is
counted here is the rows that were validated on and trained on.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import CLASSES, classifier, eager
from fit_unfolded.workloads import Data

SYMPTOM = "val_loss too low"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="""
(x, y, sample_weight), validation_data = split(x, y, sample_weight, validation_split)
""",
    wrong="""
import tensorflow as tf

rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch_size)
x, y, validation_data = rows.skip(1), None, rows.take(1)
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.fit",
    ") = array_slicing.train_validation_split(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/59279",
    "Asks for a warning in the documentation of shuffle: followed by take and skip, it mixes the "
    "parts in every epoch.",
)
COUNTED = "rows validated on and trained on"


class Witness(keras.layers.Layer):
    """Passes its input on and notes the samples, by their first feature."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = set(), set()

    def call(self, x, training=False):
        """Notes nothing while shapes are inferred."""
        if hasattr(x, "numpy"):
            (self.trained if training else self.validated).update(x.numpy()[:, 0].tolist())
        return x


def case():
    """Labels by lot: there is nothing to learn that holds for other rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[60, 8]).astype("float32")
    y = rng.integers(0, CLASSES, 60)
    return Case(
        data=Data(x[:48], y[:48], x[48:], y[48:]),
        build=lambda: classifier(Witness(), keras.layers.Dense(32, activation="relu")),
        compile=lambda: eager(keras.optimizers.Adam(0.03)),
        fit={"epochs": 5, "batch_size": 12, "validation_split": 0.25},
    )


def count(run):
    """Rows in both sets; those to test are in none but the second."""
    witness = run.trainer.model.layers[0]
    return len(witness.trained & witness.validated)
