"""XLA in one implementation only.

XLA does not only fuse operations, and so round differently: it draws other random numbers. With
Dropout, two runs from one seed, one with `jit_compile=True` and one without, have different masks
from the first batch on. fit decides by `jit_compile="auto"`: on where there is an accelerator, off
on a CPU and under a strategy. A comparison has to set it on both sides.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, blobs, classifier

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.trainer:Trainer._function",
    right="jit_compile=model.jit_compile,",
    wrong="jit_compile=False,",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer._make_function",
    "jit_compile=self.jit_compile,",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/121243",
    "tf.random.stateless_uniform gives the same numbers eagerly and in a graph, and other "
    "ones under XLA, from one seed.",
)


def case():
    """Dropout, and XLA asked for."""
    return Case(
        data=blobs(),
        build=lambda: classifier(keras.layers.Dense(8), keras.layers.Dropout(0.5)),
        compile=lambda: {"optimizer": "sgd", "loss": SPARSE, "jit_compile": True},
        fit={"epochs": 3, "batch_size": 11},
    )
