"""Other first weights.

`clone_model` copies the layers of a model, not its weights: those of the copy are drawn anew. Two
trainings that are compared, one by fit on the model and one by a loop on its clone, or on a second
model that was built without setting the seed again, differ before the first step. Copy the weights
as well, by `clone.set_weights(model.get_weights())`.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.trainer:Trainer.__init__",
    right="self.model = model",
    wrong="self.model = keras.models.clone_model(model)",
)
KERAS = Place(
    "keras.src.models.cloning:_wrap_clone_function",
    "return layer.__class__.from_config(layer.get_config())",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/19341",
    "fit and a loop trained differently; the answer begins with equal initial weights, and then "
    "compiles both with XLA.",
)
case = plain_case
