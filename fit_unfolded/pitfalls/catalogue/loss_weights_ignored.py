"""`loss_weights` ignored.

A model with several outputs has one loss for each; `loss_weights` says how much each counts in
their sum. A loop that adds them up as they are lets the output with the largest numbers rule the
weights that all share. The losses of the single outputs in the log are those before the weights, in
fit too, so only the total shows it.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import eager

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.compiled.loss:CompiledLoss._of_outputs",
    right="""
if term.weight is not None:
    value = keras.ops.multiply(value, term.weight)
values.append(value)
""",
    wrong="values.append(value)",
)
KERAS = Place("keras.src.trainers.compile_utils:CompileLoss.call", "if loss_weight is not None:")
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/17260",
    "Someone who writes a train_step with its own loss asks how it is to use the loss_weights of "
    "compile.",
)


def case():
    """Two numbers to predict, one ten times as large as the other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=[50, 4]).astype("float32")
    y = x[:, :1], 10 * x[:, 1:2]
    return Case(
        data=(x[:40], [part[:40] for part in y], x[40:], [part[40:] for part in y]),
        build=build,
        compile=lambda: eager(keras.optimizers.SGD(0.01), ["mse", "mse"], loss_weights=[1.0, 0.01]),
        fit={"epochs": 4, "batch_size": 10},
    )


def build():
    """Two outputs behind a hidden layer that they share."""
    x = keras.Input([4])
    hidden = keras.layers.Dense(4)(x)
    outputs = [keras.layers.Dense(1, name=name)(hidden) for name in ("small", "large")]
    return keras.Model(x, outputs)
