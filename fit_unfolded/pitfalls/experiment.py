"""The experiment on a pitfall: fit, the right loop and the wrong loop from one seed, compared."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.comparison.compare import TRAINERS, Check, Comparison, Run, compare
from fit_unfolded.comparison.record import Recorder
from fit_unfolded.comparison.ulp import log_distance
from fit_unfolded.pitfalls import Pitfall

SEED = 0
FIT, RIGHT, WRONG = "fit", "right loop", "wrong loop"
# Values of a pitfall's `TIMED`.
AFTER_THE_FIRST = "an epoch after the first"
ALL = "all epochs, tracing included"


@dataclass(frozen=True)
class Case:
    """Data and model of an experiment.

    Attributes:
        data: x and y to train on, x and y to evaluate and predict on afterwards; see
            `workloads.Data`. Or a `tf.data.Dataset` and None, twice.
        build: returns a new model.
        compile: returns the arguments of `compile`, new objects each time.
        fit: arguments of `fit` other than x and y; at least `batch_size` and `epochs`.
    """

    data: tuple[Any, Any, Any, Any]
    build: Callable[[], Any]
    compile: Callable[[], dict[str, Any]]
    fit: dict[str, Any]


class Trained(NamedTuple):
    """One side after its training: what can be seen of it, and the seconds of each epoch."""

    run: Run
    seconds: list[float]


@dataclass
class Result:
    """What was measured.

    Attributes:
        pitfall: of what.
        runs: by name: fit, the right loop, the wrong loop.
        right, wrong: the two loops against fit, in all that `compare` compares.
        counts: by name of the run, what the pitfall counts; empty if nothing.
        seconds: by name of the run, of each epoch.
    """

    pitfall: Pitfall
    runs: dict[str, Run]
    right: Comparison
    wrong: Comparison
    counts: dict[str, int]
    seconds: dict[str, list[float]]

    @property
    def caught(self) -> bool:
        """Whether the wrong loop shows, in numbers or in what is counted."""
        return not self.wrong.match or self.counts_differ(WRONG)

    @property
    def right_holds(self) -> bool:
        """Whether the right loop is equal to fit."""
        return (self.right.match or not self.pitfall.equal) and not self.counts_differ(RIGHT)

    def counts_differ(self, name: str) -> bool:
        """Whether what the pitfall counts is not what it is in fit."""
        return bool(self.counts) and self.counts[name] != self.counts[FIT]

    @property
    def epochs(self) -> list[int]:
        """The numbers of the epochs, counted from 1."""
        calls = self.runs[FIT].calls
        return [call.argument + 1 for call in calls if call.method == "on_epoch_begin"]

    def apart(self, metric: str) -> list[float]:
        """Wrong minus fit after each epoch, of one metric of the history."""
        fit, wrong = (self.runs[name].history[metric] for name in (FIT, WRONG))
        return [b - a for a, b in zip(fit, wrong, strict=True)]

    def ulp(self, name: str, metric: str) -> list[float]:
        """The distance from fit after each epoch in ULP, of one metric of the history."""
        fit, other = (self.runs[run].history[metric] for run in (FIT, name))
        return [log_distance(a, b) for a, b in zip(fit, other, strict=True)]

    def weights_apart(self) -> float:
        """The largest difference between a weight of fit and of the wrong loop, absolute.

        The states of random generators, which are integers, are left out.
        """
        fit, wrong = (
            [values for _, values in self.runs[name].weights if values.dtype.kind == "f"]
            for name in (FIT, WRONG)
        )
        pairs = zip(fit, wrong, strict=True)
        return max(float(np.max(np.abs(a - b))) for a, b in pairs)

    def slower(self) -> float:
        """Seconds of the wrong loop as a multiple of the right loop's.

        Of the median epoch after the first, in which the right loop traces; or of all epochs
        together, where the wrong loop loses time in the first.
        """
        right, wrong = self.seconds[RIGHT], self.seconds[WRONG]
        if self.pitfall.timed == AFTER_THE_FIRST:
            return statistics.median(wrong[1:]) / statistics.median(right[1:])
        return sum(wrong) / sum(right)

    def first(self) -> Check | None:
        """The first check in which the wrong loop differs."""
        return next((check for check in self.wrong.checks if check.first is not None), None)


class Clock(keras.callbacks.Callback):
    """Notes the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        tf.test.experimental.sync_devices()
        self.seconds.append(time.perf_counter() - self._begin)


def measure(pitfall: Pitfall, each_run: Callable[[], None] = lambda: None) -> Result:
    """Trains by fit, by the right loop and by the wrong one, and compares.

    Args:
        each_run: called after each of the three, to show progress.
    """
    runs, seconds = {}, {}

    def train(name: str, side: str) -> None:
        runs[name], seconds[name] = pitfall.train(side)
        runs[name].side = name
        each_run()

    with _quiet():
        train(FIT, "keras_fit")
        train(RIGHT, "manual_loop")
        with pitfall.edit.applied():
            train(WRONG, "manual_loop")
    counts = {name: pitfall.count(run) for name, run in runs.items()} if pitfall.count else {}
    return Result(
        pitfall=pitfall,
        runs=runs,
        right=compare(runs[FIT], runs[RIGHT]),
        wrong=compare(runs[FIT], runs[WRONG]),
        counts=counts,
        seconds=seconds,
    )


def train_case(side: str, case: Case) -> Trained:
    """One side of a case, from the seed."""
    return finish(side, start(side, case), case)


def start(side: str, case: Case) -> Any:
    """A compiled trainer; the seed is set before its model is built, and again at the end."""
    keras.utils.set_random_seed(SEED)
    trainer = TRAINERS[side](case.build())
    trainer.compile(**case.compile())
    keras.utils.set_random_seed(SEED)
    return trainer


def finish(side: str, trainer: Any, case: Case) -> Trained:
    """Fit, evaluate and predict: all that `compare` compares."""
    recorder, clock = Recorder(), Clock()
    x, y, x_test, y_test = case.data
    history = trainer.fit(x, y, callbacks=[recorder, clock], verbose=0, **case.fit)
    weights, optimizer = _values(trainer.model.variables), _values(trainer.optimizer.variables)
    test = {"batch_size": case.fit["batch_size"], "verbose": 0, "callbacks": [recorder]}
    run = Run(
        side=side,
        trainer=trainer,
        calls=recorder.calls,
        history=history.history,
        weights=weights,
        optimizer=optimizer,
        evaluate=trainer.evaluate(x_test, y_test, return_dict=True, **test),
        predict=trainer.predict(x_test, **test),
    )
    return Trained(run, clock.seconds)


def _values(variables: Any) -> list[tuple[str, np.ndarray]]:
    return [(v.path, np.array(keras.ops.convert_to_numpy(v))) for v in variables]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keras and TensorFlow warn of some of the pitfalls; here they are meant."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
