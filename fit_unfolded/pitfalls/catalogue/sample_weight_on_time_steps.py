"""A weight for each sample, applied to time steps.

For predictions `[n, steps, 1]` the losses are `[n, steps]`. Weights of shape `[n]` are broadcast
along their last axis, that of the steps: an error if n is another number, and if it happens to be
the same, each step is weighed by the weight of another sample, without a warning. fit does no
better with `[n]`; it is to be given `[n, 1]`, as here.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import eager

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
losses = keras.losses.mean_squared_error(y, y_pred)
loss = tf.reduce_mean(losses * sample_weight[:, 0])
""",
)
KERAS = Place("keras.src.losses.loss:reduce_weighted_values", "values = values * sample_weight")
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/29026",
    "An LSTM, and a sample_weight of the length of the batch: it worked with a batch size of 1 "
    "and failed with others.",
)


def case():
    """As many samples in a batch as steps; half of the samples are noise of weight 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[30, 6, 2]).astype("float32")
    y = x.sum(axis=2, keepdims=True)
    weights = rng.integers(0, 2, size=[24, 1]).astype("float32")
    y[:24][weights[:, 0] == 0] += 5
    return Case(
        data=(x[:24], y[:24], x[24:], y[24:]),
        build=lambda: keras.Sequential([keras.Input([6, 2]), keras.layers.Dense(1)]),
        compile=lambda: eager(keras.optimizers.SGD(0.1), "mse"),
        fit={"epochs": 4, "batch_size": 6, "sample_weight": weights},
    )
