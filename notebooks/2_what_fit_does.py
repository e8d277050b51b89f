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
# # What `fit` does, event by event
#
# `explain` trains a model twice, by `fit` and by the loop, for two epochs of three batches. Objects in
# the model note each call that they get: layers, the loss, metrics, the optimizer, the tape, the data
# and a callback. Both trainings must make the same calls in the same order. The page that it returns
# shows each call with the line of Keras and the line of the loop that it comes from.
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
# ## The lesson's model
#
# 128 inputs, a hidden layer of 64, 3 classes; Adam, and one metric.

# %%
from collections import Counter
from dataclasses import replace

import keras

from fit_unfolded import workloads
from fit_unfolded.explain import explain

lesson = explain("lesson")
lesson

# %% [markdown]
# ## How to read the page
#
# Press **Next**: each stop is one event. The sentence on top says what kind of event it is, and names
# the [detail](../docs/details.md) of `fit` that goes with it. Below are the list of events, the line of
# Keras and the line of the loop. Read it in this order:
#
# 1. **Compile**: what became of each argument, and because of what. `"acc"` became a class only when
#    the first batch was seen.
# 2. **Epoch 0, batch 0**, the whole step: the batch is taken, the tape is entered, the model calls its
#    layers, the loss is computed, the tape is left; then gradients, the update of each weight, and the
#    metrics. The right arrow key goes to the next batch.
# 3. **The validation** of epoch 0: the same model and the same metrics, without a tape.
# 4. **The end of the epoch**, where the logs become the history. What repeats is folded.
#
# The same events are data. This cell prints the first step; `│` marks what the tape records.


# %%
def step(explanation, epoch=0, batch=0):
    """The events of one training step."""
    place = "train", epoch, batch
    events = [pair.event for pair in explanation.events]
    return [event for event in events if (event.phase, event.epoch, event.batch) == place]


for event in step(lesson):
    print("│" if event.taped else " ", event.call, event.detail)

# %% [markdown]
# Gradients and updates come after the tape was left, so that it does not record them
# ([44](../docs/details.md)). The loss is added to its mean before the update, and the metrics get the
# predictions of the same forward pass ([41](../docs/details.md)).
#
# ## A convolutional network
#
# On images of digits, with BatchNormalization, an L2 regularizer and Dropout.

# %%
digits = explain("digits")
digits

# %% [markdown]
# The step has more layers and more weights. What differs is what the layers are told: `training` is
# True in a training step, False in the validation.

# %%
told = Counter(
    (pair.event.phase, pair.event.detail.rpartition(", ")[2])
    for pair in digits.events
    if pair.event.call == "dropout.call"
)
for (phase, training), calls in told.items():
    print(f"{phase}: dropout.call, {training}, {calls} times")

# %% [markdown]
# The regularizer is no call of its own: its penalty is in `model.losses`, and `fit` adds it to what the
# loss returned ([32](../docs/details.md)). So the mean of the loss gets a larger number than the loss
# returned:

# %%
for event in step(digits):
    if event.source == "loss" or event.call == "loss.update_state":
        print(event.call, event.detail)

# %% [markdown]
# ## One argument of `compile`
#
# `explain` also takes a file with [your own model](../docs/your-own-model.md), or a workload with
# something changed. Here the optimizer gets `gradient_accumulation_steps=2`: it adds up the gradients
# of two steps before it updates the weights.

# %%
accumulating = explain(
    replace(
        workloads.get("lesson"),
        name="lesson, two steps per update",
        compile=lambda: {
            "optimizer": keras.optimizers.Adam(gradient_accumulation_steps=2),
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["acc"],
        },
    )
)
accumulating


# %%
def updates(explanation):
    """For each training step, how many weights the optimizer updated."""
    places = [(epoch, batch) for epoch in range(2) for batch in range(3)]
    calls = [[event.call for event in step(explanation, *place)] for place in places]
    return [sum(call.endswith(".update_step") for call in names) for names in calls]


print("lesson:", updates(lesson))
print("two steps per update:", updates(accumulating))

# %% [markdown]
# Every second step updates the four weights. The first step of the second epoch completes what the
# last one of the first epoch began: the count goes on over epochs ([45](../docs/details.md)).
#
# ## Exercises
#
# ### 1. The validation
#
# Which calls of a training step does a validation step not make? Guess before you look.

# %%
# Your code: compare step(lesson) with the events of the phase "validation".

# %% [markdown]
# <details markdown="1"><summary>Solution</summary>
#
# No tape, no gradients, no optimizer. All else is there, with another callback's method.
#
# ```python
# training = {event.call for event in step(lesson)}
# validation = {pair.event.call for pair in lesson.events if pair.event.phase == "validation"}
# print(sorted(training - validation))
# assert {"tape.enter", "tape.exit", "tape.gradient", "adam.apply"} <= training - validation
# ```
#
# </details>
#
# ### 2. A frozen layer
#
# With `model.layers[0].trainable = False`, which calls disappear, and which stay?

# %%
# Your code: replace(workloads.get("lesson"), name=..., build=...), then explain it.

# %% [markdown]
# <details markdown="1"><summary>Solution</summary>
#
# The layer is still called, with `training=True`. There are two gradients and two updates instead of
# four: the tape watches trainable weights only.
#
# ```python
# def frozen():
#     """The lesson's model, with its first layer frozen."""
#     model = workloads.get("lesson").build()
#     model.layers[0].trainable = False
#     return model
#
#
# half = explain(replace(workloads.get("lesson"), name="lesson, half frozen", build=frozen))
# print(updates(half))
# assert updates(half) == [2] * 6
# assert "dense.call" in [event.call for event in step(half)]
# ```
#
# </details>
#
# ### 3. No metrics
#
# Without `metrics`, what is left in the logs, and which object computes it?

# %%
# Your code: compile without metrics, and print the events whose source is "metric".

# %% [markdown]
# <details markdown="1"><summary>Solution</summary>
#
# The loss: it is a running mean too, `keras.metrics.Mean`, which `fit` keeps besides the metrics of
# `compile`, and resets with them ([28](../docs/details.md)).
#
# ```python
# bare = explain(
#     replace(
#         workloads.get("lesson"),
#         name="lesson, without metrics",
#         compile=lambda: {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"},
#     )
# )
# calls = Counter(pair.event.call for pair in bare.events if pair.event.source == "metric")
# print(calls)
# assert {call.partition(".")[0] for call in calls} == {"loss"}
# ```
#
# </details>
