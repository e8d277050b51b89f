"""Regularizers left out of the loss.

A kernel regularizer, an activity regularizer or `add_loss` does nothing by itself: its value is one
entry of `model.losses`, and whoever computes the loss has to add these entries. A loop that forgets
them trains an unregularised model and shows a smaller loss. They must be read after the forward
pass, inside the tape.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import regularized_case

SYMPTOM = "loss too low"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="loss = compiled_loss(y, y_pred, sample_weight, [])",
)
KERAS = Place(
    "keras.src.trainers.trainer:Trainer.compute_loss",
    "for loss in self.losses:",
)
THREAD = Thread(
    "https://github.com/hunglc007/tensorflow-yolov4-tflite/issues/369",
    "The layers have L2 regularizers, but the loop adds up three losses of its own: with the "
    "regularizers taken out, the total stays the same.",
)
case = regularized_case
