"""Around Keras's own callbacks: their container, and the logs that they are given."""

import keras
import numpy as np
import tensorflow as tf

from manual_loop.keras_version import RETURNS_FLOATS

BASE = keras.callbacks.Callback


def callback_list(callbacks, distribution, model, num_batches, **how):
    """`keras.callbacks.CallbackList`: it adds History and the progress bar.

    Args:
        callbacks: a callback, a list of them, a `CallbackList` or None.
        distribution: which of them run in this process, see `distribution/single_device.py`.
        num_batches: steps of an epoch, or None if unknown.
        **how: `verbose`, `epochs`, and `add_history` for `fit`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks, progress_bar = distribution.callbacks(callbacks), how["verbose"] != 0
    return keras.callbacks.CallbackList(
        callbacks, add_progbar=progress_bar, model=model, **how, steps=num_batches
    )


def to_floats(logs):
    """Logs as Python floats, sorted by name; what is not a number stays as it is.

    (`keras/src/utils/python_utils.py`, `pythonify_logs`, Keras 3.15.)
    """
    floats = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            floats.update(to_floats(value))
            continue
        try:  # what cannot be a number stays, as an array if possible
            value = keras.ops.convert_to_numpy(value) if tf.is_tensor(value) else value
            value = float(value)
        except (TypeError, ValueError):
            pass
        floats[name] = value
    return floats


def of_evaluation(logs):
    """The logs of `evaluate`, as the installed Keras returns them: see `RETURNS_FLOATS`."""
    return to_floats(logs) if RETURNS_FLOATS else logs


def of_one_batch(logs):
    """The logs of `train_on_batch` and `test_on_batch`, as the installed Keras returns them."""
    return to_floats(logs) if RETURNS_FLOATS else keras.tree.map_structure(np.array, logs)


def in_order(model, logs):
    """The values of `logs` as `evaluate` returns them without `return_dict`.

    Args:
        model: a compiled model.
        logs: dict: name -> float.

    Returns:
        list of floats, or one float if it is the only one. Compiled metrics are looked up by their
        own name: those of several outputs (`klass_acc`) come last, sorted by name
        (`Trainer._flatten_metrics_in_order`).
    """
    names: list[str] = []
    for metric in model.metrics:
        own = (
            [m.name for m in metric.metrics] if metric.name == "compile_metrics" else [metric.name]
        )
        names += own
    values = [logs[name] for name in names if name in logs]
    values += [logs[name] for name in sorted(logs) if name not in names]
    return values[0] if len(values) == 1 else values


def is_due(epoch, validation_freq):
    """Whether to validate after this epoch (counted from 0; `validation_freq` counts from 1).

    Raises:
        ValueError: `validation_freq` is neither an int nor a list.
    """
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    if isinstance(validation_freq, list):
        return epoch + 1 in validation_freq
    raise ValueError(
        f"`validation_freq` must be an int or a list of ints. Received: {validation_freq!r}"
    )


def calls_of(batches, choose_steps, callbacks):
    """The calls of one epoch: of several steps each where nobody can tell, see `steps_tuner.py`.

    Args:
        batches: `EpochIterator`.
        choose_steps: of the `StepFunction` that will be called.
        callbacks: `keras.callbacks.CallbackList`.
    """
    if is_own_list(callbacks) or any(map(watches_single_batches, callbacks.callbacks)):
        return iter(batches)
    return batches.calls(choose_steps)


def watch_batches(callbacks):
    """`watches_batches` of a `CallbackList`: of a callback in it, or of methods of its own."""
    return is_own_list(callbacks) or any(map(watches_batches, callbacks.callbacks))


def is_own_list(callbacks):
    """Whether a list of callbacks is of the user's own class, which may do anything."""
    return type(callbacks) is not keras.callbacks.CallbackList


def watches_single_batches(callback):
    """Whether a callback does anything after a batch, other than to redraw a progress bar."""
    if type(callback) is keras.callbacks.ProgbarLogger:
        return False
    saves = keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore
    if type(callback) in saves and callback.save_freq == "epoch":
        return False
    return watches_batches(callback)


def watches_batches(callback):
    """Whether a callback does anything before or after a batch.

    If none does, nobody sees the logs of a batch, and they are not even turned into floats.
    """
    hooks = ("on_batch", "on_train_batch", "on_test_batch", "on_predict_batch")
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(BASE, name)
        for hook in hooks
        for name in (f"{hook}_begin", f"{hook}_end")
    )
