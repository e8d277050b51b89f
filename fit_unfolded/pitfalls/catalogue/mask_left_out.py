"""The mask left out of the loss.

A `Masking` layer, or an `Embedding` with `mask_zero=True`, attaches a mask to its output, and the
layers pass it on to the predictions. `keras.losses.Loss` objects read it there: padded steps do not
count. A loss of one's own, or a function of `keras.losses`, sees only numbers. It counts the padded
steps, and the model learns to predict the padding.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import eager

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="loss = tf.reduce_mean(keras.losses.mean_squared_error(y, y_pred))",
)
KERAS = Place("keras.src.losses.loss:Loss.__call__", "in_mask = backend.get_keras_mask(y_pred)")
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/8342",
    "Padded sentences: asks how a loss function that is given y_true and y_pred alone is to know "
    "the mask.",
)


def case():
    """Sequences of one to eight steps, padded with zeros to eight."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[50, 8, 2]).astype("float32")
    padded = np.arange(8) >= rng.integers(1, 9, size=[50, 1])
    y = x.sum(axis=2, keepdims=True) + 3
    x[padded], y[padded] = 0, 0
    return Case(
        data=(x[:40], y[:40], x[40:], y[40:]),
        build=lambda: keras.Sequential(
            [keras.Input([8, 2]), keras.layers.Masking(), keras.layers.Dense(1)]
        ),
        compile=lambda: eager(keras.optimizers.SGD(0.1), "mse"),
        fit={"epochs": 4, "batch_size": 10},
    )
