"""A graph for every shape.

A `tf.function` that is called with a tensor is traced again for each new shape: for a partial last
batch, and for every length of a sequence. fit passes the iterator, whose shapes leave the varying
axes open, and asks for `reduce_retracing`; a loop can do the same with an `input_signature` that
has None there.
"""

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import ALL, Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import Traced

SYMPTOM = "slow to start"
EDIT = Edit(
    "manual_loop.execution.step_function:StepFunction.__call__",
    right="""
if isinstance(iterator, ArrayIterator):
    return self._on_arrays.of(iterator.dataset)(iterator)
batches, logs = self._on_stream(iterator)
""",
    wrong="""
if not hasattr(self, "traced"):
    self.traced = tf.function(self._step, autograph=False)
return self.traced(next(iterator))
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer._make_function",
    "one_step_on_data(iterator.get_next())",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/38561",
    "Inputs of varying length make TensorFlow 2.1 trace again and again; its warnings are quoted.",
)
TIMED = ALL
COUNTED = "graphs of the step"
LENGTHS = range(3, 9)


def case():
    """Batches of sequences, each of another length."""
    signature = tf.TensorSpec([4, None, 2]), tf.TensorSpec([4])
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(len(LENGTHS)))
    return Case(
        data=(data, None, data, None),
        build=build,
        compile=lambda: {"optimizer": "sgd", "loss": "mse"},
        fit={"epochs": 3, "batch_size": None},
    )


def batches():
    """x `[4, length, 2]`, y `[4]`."""
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        x = rng.normal(size=[4, length, 2]).astype("float32")
        yield x, x.sum(axis=(1, 2))


def build():
    """A model of sequences of any length."""
    layers = [keras.Input([None, 2]), Traced(), keras.layers.GlobalAveragePooling1D()]
    return keras.Sequential([*layers, keras.layers.Dense(1)])


def count(run):
    """Runs of the layer's `call` in training: one for each graph."""
    return run.trainer.model.layers[0].runs
