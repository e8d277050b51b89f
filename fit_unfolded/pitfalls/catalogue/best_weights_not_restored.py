"""The best weights not restored.

When training stops because the validation loss has not improved for some epochs, the model has just
become worse for as long. `EarlyStopping(restore_best_weights=True)` keeps the weights of the best
epoch and puts them back in `on_train_end`. A loop that breaks by the same rule, and keeps no
weights or never calls `on_train_end`, ends with the last ones. Its history is that of fit.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "same losses, other model at the end"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="callbacks.on_train_end(logs=epoch_logs)",
    wrong="pass",
)
KERAS = Place(
    "keras.src.callbacks.early_stopping:EarlyStopping.on_train_end",
    "self.model.set_weights(self.best_weights)",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/12511",
    "EarlyStopping itself restored the best weights only where it had stopped the training, not at "
    "the end of all epochs.",
)


def case():
    """So large steps that the validation loss soon rises."""
    return Case(
        data=blobs(44, spread=3.0),
        build=lambda: classifier(keras.layers.Dense(32, activation="relu")),
        compile=lambda: eager(keras.optimizers.Adam(0.1)),
        fit={"epochs": 6, "batch_size": 11, "validation_split": 0.25},
        callbacks=lambda: [keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)],
    )
