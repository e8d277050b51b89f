"""The same case on both sides, and everything that can be seen of it held side by side."""

import contextlib
import io
import random
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fit
import manual_loop
from fit_unfolded.comparison.record import Recorder
from fit_unfolded.comparison.ulp import log_distance
from manual_loop.keras_version import since

TRAINERS = {"keras_fit": keras_fit.Trainer, "manual_loop": manual_loop.Trainer}


covers = pytest.mark.covers  # what a test holds, for docs/coverage.md: see coverage_table.py


def needs_keras(version, reason):
    """A mark: skip the test with a Keras before `version`, such as "3.14"; what that one does."""
    return pytest.mark.skipif(not since(version), reason=f"Keras before {version} {reason}")


def observe(side, script, *args, seed=0, **kwargs):
    """What `script(Trainer, *args, **kwargs)` shows on one side, in a new session.

    Args:
        side: "keras_fit" or "manual_loop".
        script: trains with the `Trainer` it is given; returns a dict: what was seen -> values.
        seed: set before anything is built.

    Returns:
        dict: see `watch`.
    """
    new_session()
    return watch(script, TRAINERS[side], *args, seed=seed, **kwargs)


def new_session():
    """Names count from 1 again; the dtype policy, which Keras forgets too, stays."""
    policy = keras.config.dtype_policy()
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)


def watch(script, *args, seed=0, **kwargs):
    """The dict that `script(*args, **kwargs)` returns, and what it leaves behind.

    That is: how the warnings begin, the output with the times taken out, and the next number of
    each global random generator.
    """
    keras.utils.set_random_seed(seed)
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        seen = script(*args, **kwargs)
    return {
        **seen,
        "warnings": [(w.category.__name__, str(w.message)[:40]) for w in caught],
        "stdout": without_times(printed.getvalue()),
        "next random numbers": [random.random(), np.random.random(), tf.random.uniform([]).numpy()],
    }


def train(Trainer, build, compile, *args, then=None, **kwargs):
    """Build, compile and use a model: a dict of all that is to be seen.

    Args:
        Trainer: of one of the sides.
        build: function that returns a new model.
        compile: function that returns the arguments of `compile`, all objects in them new.
        *args, **kwargs: those of `use`.
        then: what to do with the trainer, `use` or `fit`; None for `use`.
    """
    trainer = Trainer(build())
    trainer.compile(**compile())
    return (then or use)(trainer, *args, **kwargs)


def use(trainer, data, test=None, callbacks=list, **arguments):
    """Fit, evaluate and predict: a dict of all that is to be seen.

    Args:
        trainer: a compiled `Trainer` of one of the sides.
        data, callbacks, **arguments: see `fit`.
        test: as `data`, for `evaluate` and `predict`, with `steps` and `batch_size`; if None,
            `data` without what only `fit` takes.
    """
    seen = fit(trainer, data, callbacks, **arguments)
    recorder = Recorder()
    again = {"verbose": arguments.get("verbose", 0), "callbacks": [recorder]}
    seen["evaluate"] = trainer.evaluate(**for_test(data, test), **again)
    inputs = {k: v for k, v in for_test(data, test).items() if k in ("x", "batch_size", "steps")}
    seen["predict"] = exact(trainer.predict(**inputs, **again))
    seen["calls of evaluate and predict"] = calls(recorder)
    return seen


def fit(trainer, data, callbacks=list, **arguments):
    """Fit alone: a dict of all that is to be seen.

    Args:
        trainer: a compiled `Trainer` of one of the sides.
        data: `x`, `y`, `sample_weight`, `class_weight` and `validation_data` for `fit` as a dict,
            or a function that returns one, for data that can be walked through only once.
        callbacks: function that returns a list of new callbacks.
        **arguments: further ones of `fit`.
    """
    recorder = Recorder()
    callbacks = [*callbacks(), recorder]
    history = trainer.fit(**get(data), callbacks=callbacks, **{"verbose": 0, **arguments})
    return {
        "calls": calls(recorder),
        "history": history.history,
        "epochs": history.epoch,
        "weights": values(trainer.model.variables),
        "optimizer variables": values(trainer.optimizer.variables),
    }


def for_test(data, test):
    """The arguments of `evaluate`: `test`, or what it takes of `data`."""
    if test is not None:
        return get(test)
    return {k: v for k, v in get(data).items() if k in ("x", "y", "sample_weight")}


def assert_parity(*args, script=train, **kwargs):
    """Hold both sides of a case against each other; returns what was seen of the loop."""
    seen = [observe(side, script, *args, **kwargs) for side in TRAINERS]
    assert_same(*seen)
    return seen[1]


class Pair:
    """A model compiled once on each side, to be trained many times from the same start.

    Tracing is most of the time that a tiny model takes; here it is paid once.
    """

    def __init__(self, build, compile):
        self.trainers = []
        for Trainer in TRAINERS.values():
            new_session()
            keras.utils.set_random_seed(0)
            trainer = Trainer(build())
            trainer.compile(**compile())
            trainer.optimizer.build(trainer.model.trainable_variables)
            self.trainers.append(trainer)
        self.start = [[v.numpy() for v in variables(trainer)] for trainer in self.trainers]

    def assert_parity(self, *args, script=use, **kwargs):
        """As the function `assert_parity`; the arguments are those of `use`."""
        seen = [watch(script, trainer, *args, **kwargs) for trainer in self.restarted()]
        assert_same(*seen)
        return seen[1]

    def restarted(self):
        """The two trainers, each with the values that its variables had at first."""
        for trainer, start in zip(self.trainers, self.start, strict=True):
            for variable, value in zip(variables(trainer), start, strict=True):
                variable.assign(value)
            yield trainer


def variables(trainer):
    return [*trainer.model.variables, *trainer.optimizer.variables]


def assert_same(ours, theirs):
    """Fail at the first difference, and name it."""
    difference = first_difference(ours, theirs)
    assert difference is None, f"{' and '.join(TRAINERS)} differ: {difference}"


def first_difference(a, b, where=""):
    """Where two structures differ first, in words; None if nowhere. NaN equals NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"names in {where or 'all'}: {list(a)} and {list(b)}"
        return next_difference((f"{where}[{key!r}]", a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        paired = ((f"{where}[{i}]", *pair) for i, pair in enumerate(zip(a, b, strict=False)))
        if difference := next_difference(paired):
            return difference
        return None if len(a) == len(b) else f"length of {where}: {len(a)} and {len(b)}"
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} {a} and {type(b).__name__} {b}"
    if isinstance(a, str) or a is None:
        return None if a == b else f"{where}: {a!r} and {b!r}"
    ulp = log_distance(a, b)
    return f"{where}, {ulp:.0f} ULP apart: {a} and {b}" if ulp else None


def next_difference(rows):
    """The first difference in rows of (where, a, b)."""
    differences = (first_difference(a, b, where) for where, a, b in rows)
    return next((difference for difference in differences if difference), None)


def label(text):
    """A test's name: without the addresses of functions, which differ in each process."""
    return re.sub(r"<function (\S+) at 0x\w+>", r"\1", text)


def get(given):
    """What was given, or what it returns if it is a function."""
    return given() if callable(given) else given


def calls(recorder):
    """The callback calls as tuples: method, argument, logs."""
    return [tuple(call) for call in recorder.calls]


def values(variables):
    """dict: path of a variable -> its values, a NumPy array."""
    return {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in variables}


def exact(outputs):
    """Ragged and sparse outputs as tuples of arrays, by kind."""

    def leaf(x):
        if isinstance(x, tf.RaggedTensor):
            return ("ragged", x.flat_values.numpy(), *(s.numpy() for s in x.nested_row_splits))
        if isinstance(x, tf.SparseTensor):
            return ("sparse", x.indices.numpy(), x.values.numpy(), x.dense_shape.numpy())
        return x

    return keras.tree.map_structure(leaf, outputs)


def without_times(text):
    """What Keras's progress bar printed, without backspaces, colours and the times it measured.

    Of each line its last state alone: which others are shown depends on the clock (`Progbar` shows
    one every 0.05 s).
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", text.replace("\b", ""))
    text = "\n".join(line.rpartition("\r")[-1] for line in text.split("\n"))
    text = re.sub(r"\d+(:\d\d)*(us|ms|s)(/step|/epoch)?(?=\s)", "", text)
    return re.sub(r" +(?=\n)", "", re.sub(r" +", " ", text))
