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
# # Ten mistakes in training loops
#
# A training loop with a mistake in it still trains. Nothing is raised, and the loss falls, only not
# as it would with `fit`. This notebook has a small loop that trains like `fit`, and ten exercises. In
# each, one function of the loop has a mistake. Read it and guess; run the cell; then mend the
# function and run it again. `check` judges: it compares every stage of your loop with the stage of
# `fit`, and names the first one that differs, with the line.
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
# ## The model and its data
#
# Three clouds of points. The network has what loops get wrong most often: Dropout, a regularizer and
# a last batch that is smaller than the others. `COMPILE` and `FIT` hold the arguments of `compile` and
# `fit`; they say what the training is meant to be.

# %%
import inspect
import itertools
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.check import check

COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
FIT = {"epochs": 2, "batch_size": 16}


def data():
    """40 rows to train on, in batches of 16, 16 and 8, and 24 to validate on."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=64)
    x = (rng.normal(size=[3, 8])[y] + rng.normal(size=[64, 8])).astype("float32")
    return {"x": x[:40], "y": y[:40], "validation_data": (x[40:], y[40:])}


def build():
    """Eight inputs, a hidden layer of which Dropout leaves half, three classes."""
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(16, activation="relu", kernel_regularizer="l2"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


# %% [markdown]
# ## The loop
#
# What `compile` and `fit` do with this model, in six functions. Each exercise replaces one of them.


# %%
def compiled(model):
    """What `compile` makes of its arguments."""
    return SimpleNamespace(
        model=model,
        optimizer=keras.optimizers.Adam(),
        loss_fn=keras.losses.SparseCategoricalCrossentropy(),
        mean_loss=keras.metrics.Mean(),
        accuracy=keras.metrics.SparseCategoricalAccuracy(),
    )


def train_step(loop, x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


def test_step(loop, x, y):
    """Forward, loss, metrics."""
    y_pred = loop.model(x, training=False)
    loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


# %%
def batches(x, y, batch_size, shuffle=False):
    """The rows of one epoch, as a dataset of batches."""
    order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
    return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(batch_size)


def run_epoch(loop, step, dataset):
    """One pass over the data: the mean loss and the accuracy."""
    loop.mean_loss.reset_state()
    loop.accuracy.reset_state()
    for x, y in dataset:
        step(x, y)
    return float(loop.mean_loss.result()), float(loop.accuracy.result())


def train(model, x, y, validation_data, epochs, batch_size):
    """What `fit` does: train, validate, keep the history."""
    loop = compiled(model)
    train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
    test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


# %% [markdown]
# ## The judge
#
# `check` takes a file. `check_loop` writes one, with the functions that it is given in the place of
# those above, and returns what `check` finds. Without arguments it judges the loop as it is: it must
# train like `fit`.

# %%
LOOP = (data, build, compiled, train_step, test_step, batches, run_epoch, train)
HEADER = f"""import keras
import numpy as np
import tensorflow as tf
from functools import partial
from types import SimpleNamespace

COMPILE = {COMPILE}
FIT = {FIT}
"""
folder = Path(tempfile.mkdtemp())
numbers = itertools.count()


def check_loop(*changed):
    """What `check` finds in the loop with these functions in it."""
    functions = {function.__name__: function for function in (*LOOP, *changed)}
    file = folder / f"loop_{next(numbers)}.py"
    sources = [inspect.getsource(function) for function in functions.values()]
    file.write_text("\n\n".join([HEADER, *sources]), encoding="utf-8")
    return check(file)


check_loop()

# %% [markdown]
# The table has a line for each stage, in the order in which they happen in a step. Below it, folded,
# are the steps one by one, with your source beside Keras's.
#
# ## 1. The model fits too well
#
# The training loss falls faster than with `fit`. On new data the model is worse.


# %%
def train_step(loop, x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>dropout-without-training</code></summary>
#
# A model that is called without `training` runs in inference mode: Dropout leaves every unit on, and
# BatchNormalization uses its moving averages. `fit` passes `training=True`.
#
# ```python
# def train_step(loop, x, y):
#     """Forward, loss, backward, update, metrics."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 2. The loss is too low from the first batch on
#
# And the weights of the first layer grow larger than with `fit`.


# %%
def train_step(loop, x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>regularizers-left-out</code></summary>
#
# The penalties of regularizers are in `model.losses`, one tensor for each. `fit` adds them to the loss
# in each step; a loop must do so itself. The same line in `test_step` is right already.
#
# ```python
# def train_step(loop, x, y):
#     """Forward, loss, backward, update, metrics."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 3. The accuracy is ahead of the loss
#
# The loss is right. The accuracy is that of another moment.


# %%
def train_step(loop, x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, loop.model(x))


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>metrics-after-update</code></summary>
#
# `fit` updates the metrics with the predictions that the loss was made of. A second forward pass takes
# time, and sees the weights after the update, with Dropout off.
#
# ```python
# def train_step(loop, x, y):
#     """Forward, loss, backward, update, metrics."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 4. The first epoch is right, the second is not
#
# From the second epoch on the steps are too large.


# %%
def train(model, x, y, validation_data, epochs, batch_size):
    """What `fit` does: train, validate, keep the history."""
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        loop = compiled(model)
        train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
        test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


check_loop(train)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>optimizer-made-anew</code></summary>
#
# Adam keeps two moments of each weight and the number of steps. A new optimizer has none of them.
# Make it once, before the epochs; the functions too, since each is traced anew.
#
# ```python
# def train(model, x, y, validation_data, epochs, batch_size):
#     """What `fit` does: train, validate, keep the history."""
#     loop = compiled(model)
#     train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
#     test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
#     history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
#     for _ in range(epochs):
#         values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
#         values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
#         for name, value in zip(history, values, strict=True):
#             history[name].append(value)
#     return history
# ```
#
# </details>
#
# ## 5. The accuracy stays at chance
#
# The model learns nothing, whatever the learning rate.


# %%
def batches(x, y, batch_size, shuffle=False):
    """The rows of one epoch, as a dataset of batches."""
    if shuffle:
        x = np.random.permutation(x)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


check_loop(batches)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>x-shuffled-without-y</code></summary>
#
# `x` and `y` need the same permutation, or the labels belong to other rows.
#
# ```python
# def batches(x, y, batch_size, shuffle=False):
#     """The rows of one epoch, as a dataset of batches."""
#     order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
#     return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(batch_size)
# ```
#
# </details>
#
# ## 6. Some rows are never seen
#
# In each epoch the model gets fewer rows than there are.


# %%
def batches(x, y, batch_size, shuffle=False):
    """The rows of one epoch, as a dataset of batches."""
    order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
    dataset = tf.data.Dataset.from_tensor_slices((x[order], y[order]))
    return dataset.batch(batch_size, drop_remainder=True)


check_loop(batches)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>partial-batch-dropped</code></summary>
#
# 40 rows make two batches of 16 and one of 8. `fit` trains on the last one too.
#
# ```python
# def batches(x, y, batch_size, shuffle=False):
#     """The rows of one epoch, as a dataset of batches."""
#     order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
#     dataset = tf.data.Dataset.from_tensor_slices((x[order], y[order]))
#     return dataset.batch(batch_size)
# ```
#
# </details>
#
# ## 7. The loss shown falls more slowly than the loss
#
# The weights are right. The history is not, from the second epoch on.


# %%
def run_epoch(loop, step, dataset):
    """One pass over the data: the mean loss and the accuracy."""
    for x, y in dataset:
        step(x, y)
    return float(loop.mean_loss.result()), float(loop.accuracy.result())


check_loop(run_epoch)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>metrics-not-reset</code></summary>
#
# A metric is a running mean. Without `reset_state` it goes on over all epochs, and over the validation
# as well. `fit` resets all metrics before each epoch and before each validation.
#
# ```python
# def run_epoch(loop, step, dataset):
#     """One pass over the data: the mean loss and the accuracy."""
#     loop.mean_loss.reset_state()
#     loop.accuracy.reset_state()
#     for x, y in dataset:
#         step(x, y)
#     return float(loop.mean_loss.result()), float(loop.accuracy.result())
# ```
#
# </details>
#
# ## 8. The loss of an epoch is off by a little
#
# With 40 rows and batches of 16 it differs; with batches of 20 it would not.


# %%
def train_step(loop, x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss)
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>mean-of-batches</code></summary>
#
# The loss of a batch is a mean over its rows. The mean over an epoch must weight each batch by its
# number of rows, or the last batch of 8 counts as much as one of 16.
#
# ```python
# def train_step(loop, x, y):
#     """Forward, loss, backward, update, metrics."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 9. The validation loss is too high, and it is noisy
#
# Two validations in a row of the same model give two values.


# %%
def test_step(loop, x, y):
    """Forward, loss, metrics."""
    y_pred = loop.model(x, training=True)
    loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(test_step)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>evaluating-in-training-mode</code></summary>
#
# Dropout acts in the validation. `fit` validates with `training=False`.
#
# ```python
# def test_step(loop, x, y):
#     """Forward, loss, metrics."""
#     y_pred = loop.model(x, training=False)
#     loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 10. The numbers are right, and the loop is slow
#
# `check` calls this loop equal to `fit`. Look below the table.


# %%
def train(model, x, y, validation_data, epochs, batch_size):
    """What `fit` does: train, validate, keep the history."""
    loop = compiled(model)
    train_batch = partial(train_step, loop)
    test_batch = partial(test_step, loop)
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


check_loop(train)

# %% [markdown]
# <details markdown="1"><summary>Solution: <code>no-graph</code></summary>
#
# Without `tf.function` Python calls every operation of every step. `fit` traces the step once, and then
# runs the graph.
#
# ```python
# def train(model, x, y, validation_data, epochs, batch_size):
#     """What `fit` does: train, validate, keep the history."""
#     loop = compiled(model)
#     train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
#     test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
#     history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
#     for _ in range(epochs):
#         values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
#         values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
#         for name, value in zip(history, values, strict=True):
#             history[name].append(value)
#     return history
# ```
#
# </details>
#
# ## All others
#
# There are more. This cell lists them by what one sees first; `fit-unfolded pitfalls NAME` on the command
# line shows one in full, with its effect on the numbers, the time or the memory.

# %%
from fit_unfolded import pitfalls

found = [pitfalls.get(name) for name in pitfalls.names()]
for symptom in pitfalls.SYMPTOMS:
    print(symptom)
    for pitfall in found:
        if pitfall.symptom == symptom:
            print(f"    {pitfall.name}: {pitfall.title}")
