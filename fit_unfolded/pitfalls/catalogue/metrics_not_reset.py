"""Metrics not reset between epochs.

A metric is a running sum. Without `reset_state` at the start of an epoch, the loss and the accuracy
shown are means over all epochs so far: they fall too slowly, and the more slowly the longer the
training runs. The first epoch is right, and so are the weights.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="""
model.reset_metrics()
callbacks.on_epoch_begin(epoch)
""",
    wrong="callbacks.on_epoch_begin(epoch)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.fit",
    "self.reset_metrics()",
)
THREAD = Thread(
    "https://github.com/JetBrains-Research/code2seq/pull/112",
    "The metrics of a PyTorch loop added up over the epochs, and so came out too low while "
    "the model improved.",
)


def case():
    """A model that improves quickly."""
    return Case(
        data=blobs(),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.Adam(0.05), metrics=["acc"]),
        fit={"epochs": 5, "batch_size": 11},
    )
