"""Optimizer variables not saved.

Adam's two moments of each weight and its count of steps are as much a part of the training as the
weights. Saved without them, and compiled anew, the model predicts the same and goes on training
from a cold start: the first steps are of full size again, and the loss jumps.
"""

import tempfile
from pathlib import Path

import keras

import manual_loop
from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import SEED, Case, finish, start
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.saving.model_files:_hdf5_of",
    right="model.save(file)",
    wrong="model.save(file, include_optimizer=False)",
)
KERAS = Place(
    "keras.src.legacy.saving.legacy_h5_format:save_model_to_hdf5",
    "save_optimizer_weights_to_hdf5_group(f, model.optimizer)",
)
THREAD = Thread(
    "https://github.com/matterport/Mask_RCNN/issues/1726",
    "The loss jumps where training goes on from the last weights; one comment notes that the "
    "state of the optimizer is not saved, and that each restart makes a new one.",
)


CASE = Case(
    data=blobs(spread=2.0),
    build=lambda: classifier(),
    compile=lambda: eager(keras.optimizers.Adam(0.1)),
    fit={"epochs": 9, "initial_epoch": 6, "batch_size": 11},
)


def train(side):
    """Six epochs, and three more; the loop is saved and loaded in between, fit is not."""
    trainer = start(side, CASE)
    x, y, *_ = CASE.data
    trainer.fit(x, y, epochs=6, batch_size=11, verbose=0)
    if side == "manual_loop":
        trainer = saved_and_loaded(trainer)
    keras.utils.set_random_seed(SEED)
    return finish(side, trainer, CASE)


def saved_and_loaded(trainer):
    """The model of an `.h5` file; compiled as before if the file does not say how."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.h5")
        trainer.save(path)
        loaded = manual_loop.Trainer(manual_loop.load_model(path))
    if not loaded.model.compiled:
        loaded.compile(**CASE.compile())
    return loaded
