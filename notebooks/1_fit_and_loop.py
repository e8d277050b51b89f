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
# # `fit` on one page, the loop on one page
#
# The same Keras model is trained twice: by `compile` and `fit`, and by a `tf.GradientTape` loop that
# writes out what they do. At the end every number of both histories and every weight is equal.
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
# ## Load data
#
# 100 samples of 128 features, each with the number of its class as label.

# %%
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

# %% tags=["keras_fit"]
keras.utils.set_random_seed(0)

# The data: 100 samples of 128 features, each with the number of its class as label.
x = np.ones([100, 128], "float32")
y = np.ones([100, 1], "float32")

# %% [markdown]
# ## Load the model

# %% tags=["keras_fit"]
# The model: 128 inputs, 3 classes.
model = keras.Sequential(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

# %% [markdown]
# ## Compile and fit

# %% tags=["keras_fit"]
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])
history = model.fit(x, y, epochs=100, validation_split=0.3, batch_size=16, verbose=0).history

# %% [markdown]
# The rest of this notebook does the same without these two calls. What `fit` gave is kept to compare.

# %%
fit_history, fit_weights = history, model.get_weights()

# %% [markdown]
# ## The same, written out
#
# ### The validation split
#
# The seed again, the last 30 % of the rows held back, and a new model with the same first weights.

# %% tags=["manual_loop"]
EPOCHS, BATCH_SIZE, VALIDATION_SPLIT = 100, 16, 0.3
keras.utils.set_random_seed(0)

# %% tags=["manual_loop"]
# validation_split: the last rows are held back, before any shuffling.
split = int(len(x) * (1 - VALIDATION_SPLIT))
x_train, y_train, x_val, y_val = x[:split], y[:split], x[split:], y[split:]

# The model: 128 inputs, 3 classes.
model = keras.Sequential(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

# %% [markdown]
# ### What `compile` makes of its arguments

# %% tags=["manual_loop"]
# compile: names become objects. "acc" is this class because the labels are class numbers.
optimizer = keras.optimizers.Adam()
loss_fn = keras.losses.SparseCategoricalCrossentropy()
mean_loss = keras.metrics.Mean()
accuracy = keras.metrics.SparseCategoricalAccuracy()

# %% [markdown]
# ### A step
#
# `train_step` updates the weights once; `test_step` only measures.

# %% tags=["manual_loop"]
# A batch may be smaller than the others, so its size is left open: one graph serves them all.
BATCH = [tf.TensorSpec([None, 128], tf.float32), tf.TensorSpec([None, 1], tf.float32)]


@tf.function(input_signature=BATCH)
def train_step(x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = loss_fn(y, y_pred)
    gradients = tape.gradient(loss, model.trainable_weights)
    optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])  # a mean over samples
    accuracy.update_state(y, y_pred)


@tf.function(input_signature=BATCH)
def test_step(x, y):
    """Forward, loss, metrics."""
    y_pred = model(x, training=False)
    mean_loss.update_state(loss_fn(y, y_pred), sample_weight=tf.shape(x)[0])
    accuracy.update_state(y, y_pred)


# %% [markdown]
# ### An epoch
#
# `fit` shuffles the rows before each epoch. The last batch has the rows that are left.

# %%
tf.get_logger().setLevel("ERROR")  # no advice against tracing `shuffled` in each epoch


# %% tags=["manual_loop"]
def shuffled(n):
    """A permutation of n rows: under the seed, the one that fit draws in each of its epochs."""
    return tf.function(tf.random.shuffle)(tf.range(n, dtype=tf.int64))


def run(step, x, y, order):
    """One pass over the data: the mean loss and the accuracy."""
    mean_loss.reset_state()
    accuracy.reset_state()
    for start in range(0, len(x), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        step(tf.gather(x, rows), tf.gather(y, rows))
    return float(mean_loss.result()), float(accuracy.result())


# %% [markdown]
# ### All epochs

# %% tags=["manual_loop"]
history: dict[str, list[float]] = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
for epoch in range(EPOCHS):
    train_loss, train_acc = run(train_step, x_train, y_train, shuffled(len(x_train)))
    val_loss, val_acc = run(test_step, x_val, y_val, tf.range(len(x_val)))
    values = train_loss, train_acc, val_loss, val_acc
    for name, value in zip(history, values, strict=True):
        history[name].append(value)

# %% [markdown]
# ## Equal
#
# No tolerance: the numbers are compared as they are.

# %%
print("history equal:", history == fit_history)
pairs = zip(model.get_weights(), fit_weights, strict=True)
print("weights equal:", all(np.array_equal(ours, fits) for ours, fits in pairs))

# %% [markdown]
# ## The printed lines
#
# Both programs are in the project as a page each, and print a line for each epoch.

# %%
lines = {
    page: subprocess.run(
        [sys.executable, "-m", page], capture_output=True, text=True, check=True
    ).stdout
    for page in ("keras_fit.one_page", "manual_loop.one_page")
}
fit_lines, loop_lines = lines.values()
print("lines equal:", fit_lines == loop_lines)
print(*fit_lines.splitlines()[::33], sep="\n")
