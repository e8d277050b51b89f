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
# # How fast?
#
# `fit` and the loop compute the same numbers. They do not take the same time. This notebook measures
# both on the machine that it runs on, says what the ratios mean, and on a GPU makes the folder of
# results to send.
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
# ## The device
#
# The first GPU if there is one, else the CPU. On Colab: Runtime, Change runtime type, and a GPU.

# %%
import sys
from pathlib import Path

import tensorflow as tf

from fit_unfolded.bench.cases import Case
from fit_unfolded.bench.environment import cores, machine_name
from fit_unfolded.bench.models import MODELS
from fit_unfolded.bench.run import ratios
from fit_unfolded.bench.suite import ROOT
from fit_unfolded.common.device import use

has_gpu = bool(tf.config.list_physical_devices("GPU"))
device = use("auto", memory_growth=has_gpu)  # leaves memory to the commands below
print(f"{device}, {cores()} CPU cores, TensorFlow {tf.__version__}")

# %% [markdown]
# ## Two models, three modes
#
# - **lesson**: 128 inputs, 64 units, batches of 16. The work of a step takes microseconds.
# - **cnn**: two convolutions on 28x28 pixels, batches of 128. The work of a step takes milliseconds.
#
# They are trained in these modes, by `fit` and by the loop:
#
# - **default**: no argument about execution. `fit` runs one step per call; the loop joins steps where
#   no callback watches batches, though not around convolutions.
# - **step**: a callback reads the loss after each batch, so both run one step per call.
# - **block**: `steps_per_execution` is a whole epoch, so both run it in one call.
#
# `fit` and the loop train in turns, from the same weights, on the same batches. If a loss or a weight
# differs, there is no figure.

# %%
found = ratios(
    [
        Case(MODELS["lesson"], ("default", "step", "block")),
        Case(MODELS["cnn"].cut(512), ("step", "block")),
    ],
    seconds=8,
)
found

# %% [markdown]
# ## What the ratios mean
#
# - **Samples per second** of `fit` and of the loop, and how many times as many the loop trains: the
#   speedup. The interval is that of this one process; a wide one is marked `unstable`, and means that
#   the machine did something else meanwhile.
# - **The lesson's model gains most.** In its steps, most of the time goes to Python, to `tf.data` and to
#   the call of the graph, and the loop has less of these. The longer a step, the more of it is the work
#   of the kernels, which are the same, so the cnn gains less.
# - **The loop is not the only way.** `steps_per_execution` is an argument of Keras, and takes much of
#   these costs away from `fit`, too. The next cell compares `fit` with `fit`.


# %%
def speed(model, mode, side):
    """Samples per second."""
    (record,) = [r for r in found.records if (r["model"], r["mode"]) == (model, mode)]
    return record["samples_per_second"][side]


for record in found.records:
    if record["mode"] == "block":
        name = record["model"]
        gain = speed(name, "block", "fit") / speed(name, "step", "fit")
        print(f"{name}: fit with one call per epoch, {gain:.1f} times fit with one per step")

# %% [markdown]
# ## When blocks help
#
# A call costs about the same, whatever it does. A block pays it once for many steps, so it helps where
# steps are short, and little or not at all where they are long. Its price: callbacks are called once
# for a block, not for each step. With XLA (`jit_compile=True`) a block of short steps is faster still,
# but on a CPU XLA is slow at convolutions.
#
# For your own model, `fit-unfolded bench FILE.py` measures all modes in about two minutes, with the time
# to the first step, and after how many epochs a mode is ahead. [What is
# measured](../docs/benchmarks.md).
#
# ## Exercise
#
# How long does a step of each model take in `fit`, and in the loop? A batch has
# `MODELS[name].batch_size` samples.

# %%
# Your code: speed(name, "step", "fit") is in samples per second.

# %% [markdown]
# <details markdown="1"><summary>Solution</summary>
#
# A step of the cnn takes many times as long, and the loop saves a smaller part of it.
#
# ```python
# for name in ("lesson", "cnn"):
#     size = MODELS[name].batch_size
#     fit, loop = (1e6 * size / speed(name, "step", side) for side in ("fit", "loop"))
#     print(f"{name}: {fit:,.0f} µs per step in fit, {loop:,.0f} µs in the loop")
# assert speed("lesson", "step", "loop") > speed("lesson", "step", "fit")
# ```
#
# </details>
#
# ## The whole measurement, to send
#
# The cells below run for a long time: `gpu-check` compares fit and the loop on the GPU in every mode, and
# `bench --submit` measures all models in several processes, for about 25 minutes. Set `RUN_ALL` to True
# to run them. Nothing else should run on the machine meanwhile.

# %%
RUN_ALL = False


def why_skipped(needs_gpu):
    """The reason not to run a cell; "" to run it."""
    if needs_gpu and not has_gpu:
        return "TensorFlow finds no GPU here"
    if not RUN_ALL:
        return "RUN_ALL is False"
    return ""


def command(arguments, folder=Path()):
    """Runs a command in a process of its own, and shows what it prints."""
    get_ipython().system(f'cd "{folder}" && "{sys.executable}" -m fit_unfolded {arguments}')


if reason := why_skipped(needs_gpu=True):
    print(f"gpu-check is skipped: {reason}.")
else:
    command("gpu-check --memory-growth")

# %% [markdown]
# `bench --submit` writes into the checkout of the repository, which is fetched if there is none.

# %%
checkout = ROOT if (ROOT / "benchmarks" / "results").is_dir() else Path("fit-unfolded").resolve()


def why_no_checkout():
    """The reason not to fetch the repository, if it is not here; "" if it is, or can be fetched."""
    if checkout.is_dir():
        return ""
    if not REPOSITORY:
        return "this copy of the notebook does not know the address of the repository"
    try:
        socket.create_connection((urlsplit(REPOSITORY).hostname, 443), timeout=5).close()
    except OSError:
        return "there is no network"
    return ""


if reason := why_skipped(needs_gpu=False) or why_no_checkout():
    print(f"bench is skipped: {reason}.")
else:
    if not checkout.is_dir():
        get_ipython().system(f'git clone --quiet --depth 1 {REPOSITORY} "{checkout}"')
    command("bench --submit" + " --memory-growth" * has_gpu, folder=checkout)

# %% [markdown]
# The last cell packs what there is: `to_send.zip`. Download it from the Files panel and attach it to an
# issue, with the form "A result from my machine". The reports name the processor, the GPU and the
# versions, and no host name and no path.

# %%
folder = Path("to_send")
results = [checkout / "benchmarks" / "results" / machine_name(), Path("results/gpu-check.md")]
results = [path for path in results if path.exists()]
if reason := why_skipped(needs_gpu=False) or ("" if results else "there are no results"):
    print(f"Nothing is packed: {reason}.")
else:
    folder.mkdir(exist_ok=True)
    for path in results:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, folder)
    print(shutil.make_archive("to_send", "zip", folder))
