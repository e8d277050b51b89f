"""Numbers read after each batch.

`float(loss)` waits until the device has computed it. On a GPU, Python would else be busy with the
next steps meanwhile; a loop that prints or tests several values in each batch lets it run dry each
time. fit itself reads its logs after each batch. What is counted here is the reads. What they cost
was not measured: on a CPU the step has ended when its call returns, and no GPU was there.
"""

import dataclasses
import sys
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "slower every step"
EDIT = Edit(
    "manual_loop.trainer:Trainer._train_epoch",
    right="logs = train_function(iterator)",
    wrong="""
logs = train_function(iterator)
line = ", ".join(f"{name} {float(value):.4f}" for name, value in logs.items())
""",
)
KERAS = Place(
    "keras.src.callbacks.callback_list:CallbackList._on_train_batch_end",
    "logs = python_utils.pythonify_logs(logs)",
)
THREAD = Thread(
    "https://github.com/meta-pytorch/torchtune/pull/522",
    "In PyTorch: reading the loss took 40 to 50 ms of each step; it is now read only when it is "
    "logged.",
)
COUNTED = "numbers read besides the logs"


class CountsReads(keras.callbacks.Callback):
    """Counts how often a tensor is made a Python float during training, but for the logs."""

    def on_train_begin(self, logs=None):
        base: Any = type(tf.constant(0)).__mro__[1]  # TensorFlow has no public name for it
        read, model = base.__float__, self.model
        model.reads = 0

        def counted(tensor):
            model.reads += not is_for_logs(sys._getframe())
            return read(tensor)

        self._patch = mock.patch.object(base, "__float__", counted)
        self._patch.start()

    def on_train_end(self, logs=None):
        self._patch.stop()


def is_for_logs(frame):
    """Whether a callback's logs are being made: there fit and the loop read what they must."""
    while frame is not None:
        if frame.f_code.co_name in ("pythonify_logs", "to_floats"):
            return True
        frame = frame.f_back
    return False


def case():
    """A loss and an accuracy in each of the logs."""
    case = plain_case()
    fit = {"epochs": 2, "batch_size": 12}
    return dataclasses.replace(case, fit=fit, callbacks=lambda: [CountsReads()])


def count(run):
    """Reads of a value."""
    return run.trainer.model.reads
