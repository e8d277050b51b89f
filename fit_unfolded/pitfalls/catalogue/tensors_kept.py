"""Tensors kept from step to step.

A list of losses or predictions, kept to be averaged or plotted later, holds the tensors themselves,
on the device, and all that hangs on them: a prediction keeps its logits, a persistent tape all that
it has recorded. Memory grows with every step until it is full. Keep numbers, `float(loss)`, or
better a `keras.metrics.Mean`, as fit does, which is two variables however many steps there are.
"""

import dataclasses

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "memory grows"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="compiled_metrics.update_state(y, y_pred, sample_weight)",
    wrong="""
compiled_metrics.update_state(y, y_pred, sample_weight)
vars(model).setdefault("kept", []).append((loss, y_pred))
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "self._loss_tracker.update_state(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/34606",
    "The memory of the GPU fills while predictions are appended to a list; as NumPy arrays, "
    "they do not fill it.",
)


def case():
    """Four batches an epoch, with a look at the memory after each."""
    return dataclasses.replace(plain_case(), memory=True)
