"""Averaged weights never written into the model.

An optimizer with `use_ema=True` keeps a moving average of every weight beside it, and trains the
weights themselves as ever. fit writes the averages into the model once, after the last epoch, by
`finalize_variable_values`. A loop that ends without this call has paid for the averages and keeps
the last weights; every loss up to there is the same.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "same losses, other model at the end"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="model.optimizer.finalize_variable_values(model.trainable_weights)",
    wrong="pass",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.fit",
    "self.optimizer.finalize_variable_values(",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/18949",
    "About the averages under JAX and PyTorch; its example trains ten steps by hand, and only "
    "its own call of finalize_variable_values brings the averages into the weights.",
)


def case():
    """Large steps, so that the averages are far from the last weights."""
    return Case(
        data=blobs(),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.9)),
        fit={"epochs": 5, "batch_size": 11, "validation_split": 0.25},
    )
