"""Regularizers counted twice.

The value of `Model.compute_loss` already contains the entries of `model.losses`. A loop that adds
them once more regularizes twice as strongly as the layers say. The loss is too high, the weights
too small, and nothing fails. A `keras.losses` object knows nothing of the model: beside it they are
to be added, once.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import regularized_case

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
loss = compiled_loss(y, y_pred, sample_weight, model.losses)
loss += tf.add_n(model.losses)
""",
)
KERAS = Place("keras.src.trainers.trainer:Trainer.compute_loss", "for loss in self.losses:")
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/8807",
    "A layer that was shared by two inputs had its regularizer counted once for each use.",
)
case = regularized_case
