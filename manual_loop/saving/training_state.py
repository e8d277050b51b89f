"""What a training depends on beside its data: variables, callbacks, random generators.

Each pair of functions reads a part as plain values and arrays, and writes it back.
"""

import random
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

callbacks = keras.callbacks

# What changes in Keras's callbacks while they run, and is not set again by `on_epoch_begin`
# (`keras/src/callbacks/`, Keras 3.15).
ATTRIBUTES: dict[type, tuple[str, ...]] = {
    callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    callbacks.History: ("history", "epoch"),
}
KNOWN = (callbacks.CSVLogger, *ATTRIBUTES)


STATE: dict[str, Any] = {  # what `Backup.state` makes
    "epoch": int,
    "step": int,
    "logs": dict,
    "stopped": bool,
    "data": dict | None,
    "callbacks": list,
    "random": dict,
    "variables": list | None,
}


def check(state):
    """Whether the parts of a backup are all there, before any of them is used.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(state, dict) or state.keys() != STATE.keys():
        raise ValueError("is no backup: other parts are in it")
    for name, kind in STATE.items():
        if not isinstance(state[name], kind):
            raise ValueError(f"is no backup: its {name!r} is {type(state[name]).__name__}")


def get_variables(variables):
    """list of `(path, tensor)`. Nothing is copied here: TensorFlow gives a variable a buffer of its
    own when it is changed next, so the tensors keep the values that they have now.
    """
    return [(v.path, tf.convert_to_tensor(v.value)) for v in variables]


def check_variables(variables, saved):
    """Whether `set_variables` can assign all of them.

    Raises:
        ValueError: these are other variables.
    """
    here = [(v.path, tuple(v.shape), v.dtype) for v in variables]
    if here != [(path, value.shape, value.dtype.name) for path, value in saved]:
        raise ValueError("is the backup of another model")


def set_variables(variables, saved):
    """Assign what `get_variables` returned, as arrays, after `check_variables`."""
    for variable, (_, value) in zip(variables, saved, strict=True):
        variable.assign(value)


def get_callback_states(all_callbacks):
    """list of `(class name, state)`, of those that have a state."""
    return [(type(c).__name__, get_state(c)) for c in all_callbacks if has_state(c)]


def set_callback_states(all_callbacks, saved):
    """Give each callback the state that it had.

    Raises:
        ValueError: these are other callbacks.
    """
    stateful = [callback for callback in all_callbacks if has_state(callback)]
    here, there = [type(c).__name__ for c in stateful], [name for name, _ in saved]
    if here != there:
        raise ValueError(f"was written with the callbacks {there}, and these are {here}")
    for callback, (_, state) in zip(stateful, saved, strict=True):
        set_state(callback, state)


def has_state(callback):
    """Whether a callback has a state to be kept: its own, or one that is known here."""
    own = hasattr(callback, "get_state") and hasattr(callback, "set_state")
    return own or isinstance(callback, KNOWN)


def get_state(callback):
    """The state of a callback that has one."""
    if hasattr(callback, "get_state"):
        return callback.get_state()
    if isinstance(callback, callbacks.CSVLogger):
        with open(callback.filename, "rb") as file:
            content = np.frombuffer(file.read(), "uint8")
        return {"keys": callback.keys, "content": content}
    return {name: getattr(callback, name) for name in attributes_of(callback)}


def set_state(callback, state):
    """Give a callback the state that `get_state` returned."""
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    elif isinstance(callback, callbacks.CSVLogger):  # has opened its file: drop what came later
        content = state["content"].tobytes().decode()
        callback.csv_file.seek(0)
        callback.csv_file.truncate()
        callback.csv_file.write(content)
        callback.csv_file.flush()
        callback.keys, callback.append_header = state["keys"], not content
    else:
        if set(state) != set(attributes_of(callback)):
            raise ValueError(f"has another state of {type(callback).__name__}")
        for name, value in state.items():
            setattr(callback, name, value)


def attributes_of(callback):
    """What changes in a callback of Keras's own, see `ATTRIBUTES`."""
    (names,) = (names for kind, names in ATTRIBUTES.items() if isinstance(callback, kind))
    return names


def get_random_states():
    """dict: the global random generators of Python, NumPy and TensorFlow."""
    eager = context.context()
    try:
        generator: Any = tf.random.get_global_generator().state.numpy()
    except RuntimeError:  # under determinism there is none, unless somebody has set one
        generator = None
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        # the seeds of random ops, and of graphs: `tf.random.set_seed`
        "seed": eager._seed,
        "seeds of ops": eager._rng.getstate() if eager._seed is not None else None,
        "generator": generator,
    }


def set_random_states(saved):
    """Set what `get_random_states` returned."""
    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])
    if saved["seed"] is not None:
        tf.random.set_seed(saved["seed"])
        context.context()._rng.setstate(saved["seeds of ops"])
    if saved["generator"] is not None:
        tf.random.get_global_generator().state.assign(saved["generator"])
