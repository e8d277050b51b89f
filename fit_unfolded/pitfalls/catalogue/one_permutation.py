"""One permutation for all epochs.

Without a seed, fit draws a new permutation for every epoch, so that the batches differ too. A loop
that shuffles once, before its first epoch, or calls `Dataset.shuffle(n,
reshuffle_each_iteration=False)`, sees the same batches in the same order every time. What is
counted here is the different orders. Beware of the reverse conclusion: under
`keras.utils.set_random_seed`, fit itself draws the same permutation in every epoch, since it starts
its pipeline, and the seeded generator in it, anew for each.
"""

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case, finish, start
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "every epoch the same batches"
EDIT = Edit(
    "manual_loop.data.resident:ResidentDataset.epoch_indices",
    right="if self._drawn is None or self._draws_anew:",
    wrong="if self._drawn is None:",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter.get_tf_dataset",
    "indices = tf.random.shuffle(indices)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/29558",
    "fit of a development version of TensorFlow 2.0 took a shuffled dataset in the same order "
    "in every epoch.",
)
COUNTED = "orders of the samples"
EQUAL = False
EPOCHS = 5


class Witness(keras.layers.Layer):
    """Passes its input on and notes which samples it sees in training, by their first feature."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, x, training=False):
        """Notes nothing while shapes are inferred."""
        if training and hasattr(x, "numpy"):
            self.seen += x.numpy()[:, 0].tolist()
        return x


CASE = Case(
    data=blobs(),
    build=lambda: classifier(Witness()),
    compile=lambda: eager(keras.optimizers.SGD(0.05)),
    fit={"epochs": EPOCHS, "batch_size": 11},
)


def train(side):
    """Equal weights at the start, and then no seed."""
    trainer = start(side, CASE)
    tf.random.set_seed(None)
    return finish(side, trainer, CASE)


def count(run):
    """How many of the epochs had an order of their own."""
    seen = run.trainer.model.layers[0].seen
    return len({tuple(epoch) for epoch in np.array_split(seen, EPOCHS)})
