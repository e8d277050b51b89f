"""Metrics not reset between epochs.

A metric is a running sum. Without `reset_state` at the start of an epoch, the loss and the accuracy
shown are means over all epochs so far: they fall too slowly, and the more slowly the longer the
training runs. The first epoch is right, and so are the weights.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "loss too high, or it falls too slowly"
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
case = plain_case
