# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own loop
#
# You have a training loop. Does it train like `fit`? `check` compares every stage of it with the stage
# of `fit`, names the first line that differs, and the mistake, if a known one makes the same numbers.
# This notebook has a loop as people write it, mends it with what `check` says, and then asks why its
# `loss` and `val_loss` are not the same.
#
# The cell below installs the project where it is missing, as on Colab.

# %% tags=["setup"]
import importlib.util
import shutil
import socket
from urllib.parse import urlsplit

from IPython import get_ipython

REPOSITORY = ""


def why_nothing_is_installed():
    """The reason to skip the installation; "" without one."""
    if importlib.util.find_spec("fit_unfolded"):
        return "fit-unfolded is here already"
    if not REPOSITORY:
        return "this copy of the notebook does not know the address of the repository"
    try:
        socket.create_connection((urlsplit(REPOSITORY).hostname, 443), timeout=5).close()
    except OSError:
        return "there is no network"
    return ""


if reason := why_nothing_is_installed():
    print(f"Nothing is installed: {reason}.")
else:
    extra = "[gpu]" if shutil.which("nvidia-smi") else ""
    package = f'"fit-unfolded{extra} @ git+{REPOSITORY}"'
    get_ipython().run_line_magic("pip", f"install --quiet {package}")

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()  # without its log lines

# %% [markdown]
# ## The file
#
# [A file](../docs/your-own-model.md) says what the training is meant to be: `COMPILE` and `FIT` hold
# the arguments of `compile` and `fit`, `data()` and `build()` return the data and the model. `train()` is
# the loop. `check` calls it with those arguments of `fit` that it names.
#
# To check your own, replace these functions with yours, or upload a file and use its name.

# %%
from pathlib import Path

import keras

from fit_unfolded import workloads
from fit_unfolded.check import check
from fit_unfolded.gap import Snapshots, decompose

FILE = Path("my_loop.py")
MY_LOOP = '''"""Three clouds of points, and a loop of my own."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
FIT = {"epochs": 3, "batch_size": 32}


def data():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=360)
    x = (rng.normal(size=[3, 8])[y] + rng.normal(size=[360, 8])).astype("float32")
    return {"x": x[:300], "y": y[:300], "validation_data": (x[300:], y[300:])}


def build():
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(32, activation="relu", kernel_regularizer="l2"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def train(model, x, y, validation_data, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    loss_fn = keras.losses.SparseCategoricalCrossentropy()

    @tf.function(reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch_size)
    x_val, y_val = validation_data
    history = {"loss": [], "val_loss": []}
    for _ in range(epochs):
        losses = []
        for x_batch, y_batch in batches:
            losses.append(step(x_batch, y_batch))
        history["loss"].append(float(tf.reduce_mean(losses)))
        history["val_loss"].append(float(loss_fn(y_val, model(x_val, training=False))))
    return history
'''
FILE.write_text(MY_LOOP, encoding="utf-8")
check(FILE)

# %% [markdown]
# ## Mend it
#
# Read the table from the top: the first stage that is `different` is where the loop leaves `fit`; those
# marked `follows` differ after it. Below are the causes, three here: the penalty of the regularizer is
# missing in the training, and in the validation, and the mean over an epoch is not that of `fit`.
#
# First the penalty. This cell writes the two lines that `check` asks for.


# %%
def mended(text, *changes):
    """The text with each old piece replaced by the new one."""
    for old, new in changes:
        assert text.count(old) == 1, f"the file does not contain this once: {old}"
        text = text.replace(old, new)
    return text


WITH_PENALTY = mended(
    MY_LOOP,
    (
        "loss = loss_fn(y, model(x, training=True))",
        "loss = loss_fn(y, model(x, training=True)) + tf.add_n(model.losses)",
    ),
    (
        'history["val_loss"].append(float(loss_fn(y_val, model(x_val, training=False))))',
        "val_loss = loss_fn(y_val, model(x_val, training=False)) + tf.add_n(model.losses)\n"
        '        history["val_loss"].append(float(val_loss))',
    ),
)
FILE.write_text(WITH_PENALTY, encoding="utf-8")
check(FILE)

# %% [markdown]
# Now the weights are right, and the history is not yet. 300 rows make nine batches of 32 and one of
# 12, and a plain mean of their losses counts the last one as much as the others. `fit` weights each
# batch by its rows.

# %%
RIGHT = mended(
    WITH_PENALTY,
    (
        "        losses = []\n",
        "        mean_loss.reset_state()\n",
    ),
    (
        "losses.append(step(x_batch, y_batch))",
        "mean_loss.update_state(step(x_batch, y_batch), sample_weight=len(x_batch))",
    ),
    ("float(tf.reduce_mean(losses))", "float(mean_loss.result())"),
    (
        "    loss_fn = keras.losses.SparseCategoricalCrossentropy()\n",
        "    loss_fn = keras.losses.SparseCategoricalCrossentropy()\n"
        "    mean_loss = keras.metrics.Mean()\n",
    ),
)
FILE.write_text(RIGHT, encoding="utf-8")
report = check(FILE)
report

# %% [markdown]
# `report.verdict` is `rounding`, or `equal`: the loop trains like `fit`. In a test of your own,
# `assert_trains_like_fit("my_loop.py")` fails if it no longer does.

# %%
print(report.verdict, report.passed)

# %% [markdown]
# ## Exercise
#
# Remove the line `@tf.function(reduce_retracing=True)` from the loop. Which stage differs now?

# %%
# Your code: FILE.write_text(mended(RIGHT, (..., ...)), encoding="utf-8"), then check(FILE).

# %% [markdown]
# <details markdown="1"><summary>Solution</summary>
#
# None: the numbers stay. The time does not, and below the table `check` names what it costs.
#
# ```python
# FILE.write_text(mended(RIGHT, ("    @tf.function(reduce_retracing=True)\n", "")), encoding="utf-8")
# slow = check(FILE)
# print(slow.verdict, [cost.title for cost in slow.costs])
# assert slow.passed
# assert "no-graph" in [cost.name for cost in slow.costs]
# FILE.write_text(RIGHT, encoding="utf-8")
# ```
#
# </details>
#
# ## Why `loss` and `val_loss` differ
#
# The loop is right, and yet its `val_loss` is not its `loss`. `gap` takes the difference apart: it trains
# by `fit`, which the loop equals, and keeps the weights and the seeds of the last epoch. Then it replays
# the epoch, with one thing changed each time, until it is the validation.

# %%
SEED = 0
workload = workloads.get(str(FILE))
data = workload.load(SEED)

keras.utils.set_random_seed(SEED)
model = workload.build()
model.compile(**workload.compile())
snapshots = Snapshots()  # a callback; the last one, if there are others
keras.utils.set_random_seed(SEED)
model.fit(data.x, data.y, **data.extra, **workload.fit, callbacks=[snapshots], verbose=0)
decompose(model, snapshots, data, workload.fit, SEED)

# %% [markdown]
# The changes add up to the whole difference. The replay in which nothing is changed gives the `loss`
# in the log of `fit` to the last bit: the page says so below the table.
# [All parts](../docs/gap.md), and what each one means.
#
# On the command line the same is `fit-unfolded check my_loop.py` and `fit-unfolded gap my_loop.py`.
