"""What `fit` does differently from Keras 3.13 on, each change measured on a tiny model.

`tests/test_versions.py` holds the loop to what the installed Keras does, and docs/versions.md shows
what was measured with each version.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from cases import SPARSE, X, Y, plain

layers = keras.layers

CHANGES = []


class Change(NamedTuple):
    """One change.

    Attributes:
        since: the version that has it, such as "3.14".
        title: what is measured.
        before, now: what `measure` returns before that version, and from it on.
        source: file and function of Keras.
        detail: number in docs/details.md, if the entry there no longer holds before; else None.
        loop_too: whether the loop does what the installed Keras does.
        measure: `Trainer -> ` a short text or number.
    """

    since: str
    title: str
    before: Any
    now: Any
    source: str
    detail: int | None
    loop_too: bool
    measure: Callable[..., Any]


def change(since, title, before, now, source, detail=None, loop_too=True):
    """A decorator for `measure`."""

    def add(measure):
        CHANGES.append(Change(since, title, before, now, source, detail, loop_too, measure))
        return measure

    return add


def compiled(Trainer, model=None, optimizer="sgd", **how):
    trainer = Trainer(model or plain())
    trainer.compile(**{"optimizer": optimizer, "loss": SPARSE, "run_eagerly": True, **how})
    return trainer


def error_or(name, function):
    """The class of the error that a call ends with, or `name`."""
    try:
        function()
    except Exception as error:
        return type(error).__name__
    return name


class Scripted(keras.callbacks.Callback):
    """Puts the numbers of `losses`, epoch by epoch, into the logs as `mine`."""

    def __init__(self, *losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["mine"] = self.losses[epoch]


def fit_twice(trainer, callback):
    """One epoch with the loss 1, then, with the same callback, three that fall to above 1."""
    for losses in ([1.0], [4.0, 3.0, 2.0]):
        callbacks = [Scripted(*losses), callback]
        history = trainer.fit(X, Y, epochs=len(losses), callbacks=callbacks, verbose=0)
    return history


# Data ----------------------------------------------------------------------------------------


@change(
    "3.15",
    "`fit` on a `tf.data.Dataset` or a generator, `shuffle` not given",
    "no warning",
    "warns that `shuffle=True` is ignored",
    "`keras/src/trainers/data_adapters/__init__.py`, `get_data_adapter`",
    detail=14,
)
def ignored_shuffle(Trainer):
    dataset = tf.data.Dataset.from_tensors((X, Y))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled(Trainer).fit(dataset, verbose=0)
    warned = any(str(w.message).startswith("`shuffle=True` was passed") for w in caught)
    return "warns that `shuffle=True` is ignored" if warned else "no warning"


@change(
    "3.15",
    "`fit` on a generator without a batch",
    "`IndexError`",
    "`ValueError`",
    "`keras/src/trainers/data_adapters/generator_data_adapter.py`, `GeneratorDataAdapter.__init__`",
)
def empty_generator(Trainer):
    fit = functools.partial(compiled(Trainer).fit, iter_of_nothing(), shuffle=False, verbose=0)
    return f"`{error_or('trains', fit)}`"


def iter_of_nothing():
    yield from ()


@change(
    "3.15",
    "`fit` on a `tf.SparseTensor` whose last samples are all zeros",
    "fails",
    "trains",
    "`keras/src/trainers/data_adapters/array_slicing.py`, `TensorflowSparseWrapper`",
    loop_too=False,
)
def sparse_zeros(Trainer):
    x = tf.sparse.from_dense(np.where(np.arange(22)[:, None] < 12, X, 0))
    model = keras.Sequential([keras.Input([8], sparse=True), layers.Dense(3, "softmax")])
    fit = functools.partial(compiled(Trainer, model).fit, x, Y, verbose=0)
    return "trains" if error_or("trains", fit) == "trains" else "fails"


# Compile -------------------------------------------------------------------------------------


@change(
    "3.14",
    '`metrics=("acc",)`, a tuple, for one output',
    "`ValueError`",
    "trains",
    "`keras/src/trainers/compile_utils.py`, `CompileMetrics._build_metrics_set`",
)
def tuple_of_metrics(Trainer):
    trainer = compiled(Trainer, metrics=("acc",))
    error = error_or("trains", functools.partial(trainer.fit, X, Y, verbose=0))
    return error if error == "trains" else f"`{error}`"


@change(
    "3.14",
    "`metrics=[None]` for one output",
    "trains",
    "`ValueError`",
    "`keras/src/trainers/compile_utils.py`, `get_metric`",
)
def no_metric(Trainer):
    trainer = compiled(Trainer, metrics=[None])
    error = error_or("trains", functools.partial(trainer.fit, X, Y, verbose=0))
    return error if error == "trains" else f"`{error}`"


@change(
    "3.14",
    '`optimizer="muon"`',
    "`ValueError`",
    "is found",
    "`keras/src/optimizers/__init__.py`, `ALL_OBJECTS`",
)
def muon_by_name(Trainer):
    error = error_or("is found", functools.partial(compiled, Trainer, optimizer="muon"))
    return error if error == "is found" else f"`{error}`"


# The step ------------------------------------------------------------------------------------


@change(
    "3.14",
    "An `activity_regularizer` adds",
    "its sum over the batch",
    "its mean over the samples",
    "`keras/src/layers/layer.py`, `Layer.__call__`",
)
def activity_regularizer(Trainer):
    regularized = layers.Dense(1, activity_regularizer="l2", kernel_initializer="ones")
    trainer = compiled(Trainer, keras.Sequential([keras.Input([8]), regularized]), loss=nothing)
    twice = np.concatenate([X, X])
    losses = [trainer.evaluate(x, x[:, :1], batch_size=len(x), verbose=0) for x in (X, twice)]
    return ("its mean over the samples", "its sum over the batch")[round(losses[1] / losses[0]) - 1]


def nothing(y, y_pred):
    return keras.ops.zeros_like(y_pred)


# Logs ----------------------------------------------------------------------------------------


class MoreLogs(keras.Sequential):
    """A `test_step` with a name that no metric has."""

    def test_step(self, data):
        return {**super().test_step(data), "size": keras.ops.sum(data[0])}


@change(
    "3.14",
    "`evaluate` of a `test_step` with names of its own returns",
    "tensors",
    "floats",
    "`keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.evaluate`",
)
def logs_of_a_step(Trainer):
    trainer = compiled(Trainer, MoreLogs([keras.Input([8]), layers.Dense(3, "softmax")]))
    loss = trainer.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    return "tensors" if tf.is_tensor(loss) else f"{type(loss).__name__}s"


@change(
    "3.14",
    "`train_on_batch` and `test_on_batch` return",
    "NumPy arrays",
    "floats",
    "`keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.train_on_batch`",
)
def kind_of_logs_on_batch(Trainer):
    trainer = compiled(Trainer)
    logs = trainer.train_on_batch(X, Y), trainer.test_on_batch(X, Y)
    return " and ".join({{np.ndarray: "NumPy arrays", float: "floats"}[type(log)] for log in logs})


@change(
    "3.15",
    "The logs of a second `train_on_batch` are",
    "means over both batches",
    "those of the second",
    "`keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.train_on_batch`",
    detail=78,
)
def second_train_on_batch(Trainer):
    trainer = compiled(Trainer, optimizer=keras.optimizers.SGD(0.0))
    batches = (X[:8], Y[:8]), (X[8:16], Y[8:16])
    _, second = (float(trainer.train_on_batch(*batch)) for batch in batches)
    trainer.reset_metrics()
    alone = float(trainer.train_on_batch(*batches[1]))
    return "those of the second" if second == alone else "means over both batches"


# Callbacks -----------------------------------------------------------------------------------


@change(
    "3.15",
    "`EarlyStopping` in a second `fit`",
    "compares with the best of the first",
    "begins anew",
    "`keras/src/callbacks/early_stopping.py`, `EarlyStopping.on_train_begin`",
)
def early_stopping_again(Trainer):
    stopping = keras.callbacks.EarlyStopping("mine", patience=1, mode="min")
    epochs = len(fit_twice(compiled(Trainer), stopping).epoch)
    return "begins anew" if epochs == 3 else "compares with the best of the first"


@change(
    "3.15",
    "`ReduceLROnPlateau` in a second `fit`",
    "compares with the best of the first",
    "begins anew",
    "`keras/src/callbacks/reduce_lr_on_plateau.py`, `ReduceLROnPlateau._reset`",
)
def plateau_again(Trainer):
    plateau = keras.callbacks.ReduceLROnPlateau("mine", patience=2, factor=0.5, mode="min")
    trainer = compiled(Trainer, optimizer=keras.optimizers.SGD(1.0))
    fit_twice(trainer, plateau)
    rate = float(trainer.optimizer.learning_rate)
    return "begins anew" if rate == 1 else "compares with the best of the first"


@change(
    "3.14",
    "`ModelCheckpoint(save_freq=4)` with 4 steps per call saves",
    "from the second call on",
    "from the first call on",
    "`keras/src/callbacks/model_checkpoint.py`, `ModelCheckpoint._should_save_on_batch`",
)
def save_freq_in_blocks(Trainer):
    saved = []

    class Noting(keras.callbacks.ModelCheckpoint):
        def _save_model(self, epoch, batch, logs):
            saved.append(batch)

    checkpoint = Noting("unused.keras", save_freq=4)
    trainer = compiled(Trainer, steps_per_execution=4)
    trainer.fit(X[:16], Y[:16], batch_size=2, callbacks=[checkpoint], verbose=0)
    return {3: "from the first call on", 7: "from the second call on"}[saved[0]]


@change(
    "3.15",
    "The loss in the progress bar, during an epoch, is",
    "a mean of the logs so far",
    "that of the logs",
    "`keras/src/callbacks/progbar_logger.py`, `ProgbarLogger._maybe_init_progbar`",
)
def loss_in_the_bar(Trainer):
    logger, shown = keras.callbacks.ProgbarLogger(), []

    class AfterIt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            total, count = logger.progbar._values["loss"]
            shown.append(total / count == logs["loss"])

    trainer = compiled(Trainer, optimizer=keras.optimizers.SGD(0.5))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.fit(X, Y, batch_size=8, callbacks=[logger, AfterIt()], verbose=1)
    return "that of the logs" if all(shown) else "a mean of the logs so far"
