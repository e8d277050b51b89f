"""Labels `[n]` against predictions `[n, 1]`.

A subtraction of `[n, 1]` from `[n]` is `[n, n]`: every prediction is compared with every label. The
mean is a scalar, the gradient exists, and the model learns the mean of the labels. fit gives labels
and predictions the same rank before a loss function sees them, be it one of your own.
"""

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import eager, line

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="loss = tf.reduce_mean(tf.square(y - y_pred))",
)
KERAS = Place(
    "keras.src.losses.losses:LossFunctionWrapper.call",
    "squeeze_or_expand_to_same_rank, y_true, y_pred",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/28901",
    "A model converged with fit and not in a loop of one's own: y had shape (16,), y_pred (16, 1).",
)


def case():
    """One number to predict, labels of shape `[n]`."""
    return Case(
        data=line(),
        build=lambda: keras.Sequential([keras.Input([4]), keras.layers.Dense(1)]),
        compile=lambda: eager(keras.optimizers.SGD(0.1), "mse"),
        fit={"epochs": 5, "batch_size": 10},
    )
