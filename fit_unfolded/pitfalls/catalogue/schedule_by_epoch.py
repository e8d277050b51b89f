"""A learning rate schedule that counts epochs.

The schedules of `keras.optimizers.schedules` are called with the number of steps, so `decay_steps`
is a number of batches. A loop that calls `schedule(epoch)` decays more slowly by the number of
batches in an epoch; a warm-up never ends. `LearningRateScheduler`, which is called once an epoch,
is a callback, and takes a function of the epoch, not one of these schedules.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="""
model.reset_metrics()
callbacks.on_epoch_begin(epoch)
""",
    wrong="""
model.reset_metrics()
schedule = keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=4, decay_rate=0.5)
model.optimizer.learning_rate = lambda: schedule(epoch)
callbacks.on_epoch_begin(epoch)
""",
)
KERAS = Place(
    "keras.src.optimizers.base_optimizer:BaseOptimizer._get_current_learning_rate",
    "return self._learning_rate(self._iterations)",
)
THREAD = Thread(
    "https://github.com/ludwig-ai/ludwig/issues/1044",
    "A user is surprised that the decay counts steps and not epochs, so that it depends on the "
    "batch size.",
)


def case():
    """Four batches an epoch: the rate is to be halved after each."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=4, decay_rate=0.5)
    return Case(
        data=blobs(44, spread=2.0),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(schedule)),
        fit={"epochs": 4, "batch_size": 11},
    )
