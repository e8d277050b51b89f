"""The experiment on a pitfall: fit, the right loop and the wrong loop from one seed, compared."""

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.common.device import divide_cpu
from fit_unfolded.comparison.compare import TRAINERS, Check, Comparison, Run, compare
from fit_unfolded.comparison.record import Recorder
from fit_unfolded.comparison.ulp import log_distance
from fit_unfolded.pitfalls import Pitfall

SEED = 0
FIT, RIGHT, WRONG = "fit", "right loop", "wrong loop"
# Values of a pitfall's `TIMED`.
AFTER_THE_FIRST = "an epoch after the first"
ALL = "all epochs, tracing included"
BY_ITS_CLOCK = "what a clock tells"


@dataclass(frozen=True, eq=False)  # a key of `References`
class Case:
    """Data and model of an experiment.

    Attributes:
        data: x and y to train on, x and y to evaluate and predict on afterwards; see
            `workloads.Data`. Or a `tf.data.Dataset` and None, twice.
        build: returns a new model.
        compile: returns the arguments of `compile`, new objects each time.
        fit: arguments of `fit` other than x and y; at least `batch_size` and `epochs`.
        callbacks: returns further callbacks, new objects each time.
        memory: whether to measure what is alive after each epoch.
    """

    data: tuple[Any, Any, Any, Any]
    build: Callable[[], Any]
    compile: Callable[[], dict[str, Any]]
    fit: dict[str, Any]
    callbacks: Callable[[], list[Any]] = list
    memory: bool = False


class Alive(NamedTuple):
    """The tensors outside graphs that training made and did not drop: how many, their bytes."""

    tensors: int
    bytes: int


class Trained(NamedTuple):
    """One side after its training: what can be seen of it, seconds and memory of each epoch."""

    run: Run
    seconds: list[float]
    alive: list[Alive] = []  # noqa: RUF012  (a NamedTuple's default, never changed)


# What fit and the right loop made of a case, by `(case, side)`.
References = dict[tuple[Case, str], Trained]


@dataclass
class Result:
    """What was measured.

    Attributes:
        pitfall: of what.
        runs: by name: fit, the right loop, the wrong loop.
        right, wrong: the two loops against fit, in all that `compare` compares.
        counts: by name of the run, what the pitfall counts; empty if nothing.
        seconds: by name of the run, of each epoch.
        alive: by name of the run, after each epoch; empty lists if not measured.
    """

    pitfall: Pitfall
    runs: dict[str, Run]
    right: Comparison
    wrong: Comparison
    counts: dict[str, int]
    seconds: dict[str, list[float]]
    alive: dict[str, list[Alive]] = field(default_factory=dict)

    @property
    def caught(self) -> bool:
        """Whether the wrong loop shows, in numbers, in what is counted, or in memory."""
        return not self.wrong.match or self.counts_differ(WRONG)

    @property
    def right_holds(self) -> bool:
        """Whether the right loop is equal to fit."""
        return (self.right.match or not self.pitfall.equal) and not self.counts_differ(RIGHT)

    def counts_differ(self, name: str) -> bool:
        """Whether what the pitfall counts, or what stays alive, is not what it is in fit."""
        counts = bool(self.counts) and self.counts[name] != self.counts[FIT]
        return counts or self.growth(name) != self.growth(FIT)

    def growth(self, name: str) -> Alive:
        """What has come to stay from the end of the second epoch to the end of the last.

        The first two may leave constants behind, which later ones find.
        """
        if not self.alive.get(name):
            return Alive(0, 0)
        _, second, *_, last = self.alive[name]
        return Alive(last.tensors - second.tensors, last.bytes - second.bytes)

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
        together, where the wrong loop loses time in the first; or what their clocks tell.
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


class LiveTensors(keras.callbacks.Callback):
    """Notes what is alive after each epoch.

    Counted are Python's objects, which is exact: a process's memory also holds what the allocators
    keep for later. What waits for the garbage collector is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[Alive] = []

    def on_train_begin(self, logs=None):
        gc.freeze()  # the collector need not look at what was there before

    def on_train_end(self, logs=None):
        gc.unfreeze()

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        kind = type(tf.constant(0.0))
        tensors = [thing for thing in gc.get_objects() if type(thing) is kind]
        sizes = (tensor.shape.num_elements() * tensor.dtype.size for tensor in tensors)
        self.alive.append(Alive(len(tensors), sum(sizes)))


def measure(
    pitfall: Pitfall,
    each_run: Callable[[], None] = lambda: None,
    references: References | None = None,
) -> Result:
    """Trains by fit, by the right loop and by the wrong one, and compares.

    Args:
        each_run: called after each of the three, to show progress.
        references: of the pitfalls measured before, to which those of this one are added; its case
            is trained by fit and by the right loop only if it is not there.

    Raises:
        RuntimeError: the pitfall needs several devices, and the CPU, in use already, is one.
    """
    if pitfall.replicas > 1:
        divide_cpu(pitfall.replicas)
    references = {} if references is None else references
    case = pitfall.case() if pitfall.case else None
    trained: dict[str, Trained] = {}

    def train(name: str, side: str) -> None:
        if case is None:
            trained[name] = pitfall.train(side)
        elif name == WRONG:
            trained[name] = train_case(side, case)
        else:
            trained[name] = references.get((case, side)) or train_case(side, case)
            references[case, side] = trained[name]
        trained[name].run.side = name
        each_run()

    with _quiet():
        train(FIT, "keras_fit")
        train(RIGHT, "manual_loop")
        with pitfall.edit.applied():
            train(WRONG, "manual_loop")
    runs = {name: found.run for name, found in trained.items()}
    counts = {name: pitfall.count(run) for name, run in runs.items()} if pitfall.count else {}
    return Result(
        pitfall=pitfall,
        runs=runs,
        right=compare(runs[FIT], runs[RIGHT]),
        wrong=compare(runs[FIT], runs[WRONG]),
        counts=counts,
        seconds={name: found.seconds for name, found in trained.items()},
        alive={name: found.alive for name, found in trained.items()},
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
    recorder, clock, live = Recorder(), Clock(), LiveTensors()
    x, y, x_test, y_test = case.data
    callbacks = [recorder, clock, *case.callbacks(), *([live] if case.memory else [])]
    history = trainer.fit(x, y, callbacks=callbacks, verbose=0, **case.fit)
    weights, optimizer = _values(trainer.model.variables), _values(trainer.optimizer.variables)
    if not trainer.model.jit_compile:  # no further graphs: they are not what a pitfall is about
        trainer.model.run_eagerly = True
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
    return Trained(run, clock.seconds, live.alive)


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
