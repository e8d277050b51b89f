"""A shuffle buffer smaller than the data.

`Dataset.shuffle(n)` draws from a buffer of n samples: none can come earlier than n places before
its own. Where the data lie sorted, by class say, the batches stay sorted, each epoch ends with one
class, and the model forgets the others. fit draws a permutation of all samples of an array; only of
a `tf.data.Dataset` does it take the order as it comes.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager
from fit_unfolded.workloads import Data

SYMPTOM = "val_loss too high"
EDIT = Edit(
    "manual_loop.data.resident:ResidentDataset._draw",
    right="order, size = self._permutation(), self.batch_size",
    wrong="""
samples = tf.data.Dataset.range(self._samples).shuffle(8)
order, size = next(iter(samples.batch(self._samples))), self.batch_size
""",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter.get_tf_dataset",
    "indices = tf.random.shuffle(indices)",
)
THREAD = Thread(
    "https://github.com/IBM/graph2tac/pull/95",
    "A buffer of 10e4 for 500,000 samples: by the end of an epoch the network seemed to have "
    "forgotten its start. With a buffer for all, it learned in 10 epochs what had taken four "
    "times as many.",
)


def case():
    """All samples of the first class, then the second, then the third."""
    x, y, x_test, y_test = blobs(132, spread=2.0)
    order = np.argsort(y, kind="stable")
    return Case(
        data=Data(x[order], y[order], x_test, y_test),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.3)),
        fit={"epochs": 4, "batch_size": 22, "validation_data": (x_test, y_test)},
    )
