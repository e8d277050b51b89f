"""`steps_per_execution` changed after a first fit.

The number of steps per call is a constant of the traced function. Set on the model after a first
`fit`, it changes only how far the loop over the batches moves on with each call: here by two, while
each call still trains on one batch. Half of the data is left out, without a warning. fit behaves so
as well; it is `compile`, which makes the function anew, that the change has to go through.
"""

import keras

from fit_unfolded.pitfalls.experiment import SEED, Case, finish, start
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, blobs, classifier

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.trainer:Trainer.compile",
    right="refuse_arguments(removed)",
    wrong="""
refuse_arguments(removed)
if self.model.compiled:
    self.model.steps_per_execution = steps_per_execution
    return
""",
)
KERAS = Place(
    "keras.src.trainers.trainer:Trainer.compile", "self.steps_per_execution = steps_per_execution"
)
THREAD = None

CASE = Case(
    data=blobs(44, spread=2.0),
    build=lambda: classifier(),
    compile=lambda: {"optimizer": keras.optimizers.SGD(0.05), "loss": SPARSE},
    fit={"epochs": 5, "initial_epoch": 1, "batch_size": 11},
)


def train(side):
    """One epoch with one step per call, and four more with two."""
    trainer = start(side, CASE)
    x, y, *_ = CASE.data
    trainer.fit(x, y, epochs=1, batch_size=11, verbose=0)
    trainer.compile(trainer.optimizer, SPARSE, steps_per_execution=2)
    keras.utils.set_random_seed(SEED)
    return finish(side, trainer, CASE)
