"""Throughput of trainers, measured by alternating epochs; and the interval of a speedup.

Trainers that did different work are refused: the logs that their callbacks receive must be equal,
and so must their weights and the optimizers' variables at the end.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.workloads.user_file import DEFAULT_BATCH_SIZE, first_batches, samples_of

TURNS = 10
EPOCHS_PER_TURN = 3
BATCHES_PER_EPOCH = 64
UNSTABLE = 0.05  # if an interval extends farther than this part of the ratio

# 97.5 % quantiles of Student's t distribution, by degrees of freedom from 1 to 19.
STUDENT_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
STUDENT_T += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)


class LossesDiffer(RuntimeError):
    """The trainers did different work, so their times must not be compared."""


class Turn(NamedTuple):
    """One turn of one trainer.

    Attributes:
        seconds: of each counted epoch.
        losses: those that the callback read, a list for each epoch of the turn.
    """

    seconds: list[float]
    losses: list[list[float]]


class Ratio(NamedTuple):
    """Speedup, with its 95 % interval: of one process by `bootstrap`, of several by `across`."""

    value: float
    low: float
    high: float

    @property
    def unstable(self) -> bool:
        """Whether the machine was too noisy for this figure: measure again."""
        reach = max(self.high - self.value, self.value - self.low)
        return reach > UNSTABLE * self.value


@dataclass(frozen=True)
class Timing:
    """Times of one trainer's counted epochs, in seconds; throughput in samples per second."""

    seconds: list[float]
    median: float
    lower_quartile: float
    upper_quartile: float
    samples_per_second: float


@dataclass(frozen=True)
class Measurement:
    """Times of all trainers, and the speedup of the second over the first.

    Attributes:
        samples: rows of one timed epoch.
        turns: how many turns were counted.
        timings: by the trainer's name.
        ratio: median time of the first trainer divided by that of the second.
        interval: 95 % interval of `ratio`.
    """

    samples: int
    turns: int
    timings: dict[str, Timing]
    ratio: float
    interval: tuple[float, float]

    def faster(self, name: str, than: str) -> Ratio:
        """The speedup of trainer `name` over trainer `than`."""
        slow, fast = (np.reshape(self.timings[n].seconds, [self.turns, -1]) for n in (than, name))
        return bootstrap(slow, fast)


class Stopwatch(keras.callbacks.Callback):
    """Records the seconds of each epoch, and its loss.

    It has no method about batches, so a trainer is free to run many of them in one call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.losses: list[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.losses.append([])
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        tf.test.experimental.sync_devices()
        self.seconds.append(time.perf_counter() - self._begin)
        if logs is not None:
            self.losses[-1].append(logs["loss"])


class Watch(Stopwatch):
    """Also reads the loss after each call of the step.

    A loop whose losses nobody reads does less work.
    """

    def on_train_batch_end(self, batch, logs=None):
        self.losses[-1].append(logs["loss"])


def measure(
    trainers: Mapping[str, Any],
    x: Any,
    y: Any,
    batch_size: int | None,
    seed: int,
    turns: int = TURNS,
    epochs_per_turn: int = EPOCHS_PER_TURN,
    batches: int | None = BATCHES_PER_EPOCH,
    pairs: Sequence[tuple[str, str]] | None = None,
    each_turn: Callable[[], None] = lambda: None,
    extra: Mapping[str, Any] | None = None,
    **limits: Any,
) -> Measurement:
    """Trains the trainers in turns and times their epochs; training continues from their state.

    A turn is one `fit` of `epochs_per_turn` epochs without validation at `verbose=0`, from the
    same seed for every trainer. Its first epoch, which starts the input pipeline and in the first
    turn traces, is not counted.

    Args:
        trainers: compiled trainers of equal state, by name; the first is the reference.
        x, y: arrays `[samples, ...]`; or a `tf.data.Dataset` and None.
        batches: the first ones of an epoch that are used; None for all.
        pairs: names of trainers that must be equal to the last bit; None for all of them.
        each_turn: called after each trainer's turn, to show progress.
        extra: the other data arguments of fit.
        limits: `at_least` and `seconds`, see `in_turns`.

    Raises:
        LossesDiffer: when in any pair a loss, or a variable after the last turn, is not equal.
    """
    given = {"x": x, "y": y, **(extra or {})}
    if batches is not None:
        given = first_batches(given, batches, batch_size or DEFAULT_BATCH_SIZE)
    samples = samples_of(given)
    reference, *others = trainers
    pairs = [(reference, other) for other in others] if pairs is None else pairs

    check = functools.partial(check_turns, pairs)
    runners = {
        name: turns_of(trainer, given, batch_size, epochs_per_turn)
        for name, trainer in trainers.items()
    }
    found = in_turns(runners, seed, turns, check=check, each_turn=each_turn, **limits)
    for a, b in pairs:
        check_variables((a, trainers[a]), (b, trainers[b]))
    return summarize(found, samples)


def turns_of(
    trainer: Any,
    given: Mapping[str, Any],
    batch_size: int | None,
    epochs: int,
    verbose: int = 0,
    callback: Callable[[], Stopwatch] = Watch,
) -> Callable[[int], Turn]:
    """`seed -> Turn`: one call of `trainer.fit`, whose first epoch is not counted."""

    def turn(seed: int) -> Turn:
        watch = callback()
        keras.utils.set_random_seed(seed)
        how = {"batch_size": batch_size, "epochs": epochs, "verbose": verbose}
        trainer.fit(**given, **how, callbacks=[watch])
        return Turn(watch.seconds[1:], watch.losses)

    return turn


def in_turns(
    runners: Mapping[str, Callable[[int], Turn]],
    seed: int,
    turns: int,
    at_least: int = 1,
    seconds: float = math.inf,
    check: Callable[[int, Mapping[str, Turn]], None] = lambda number, done: None,
    each_turn: Callable[[], None] = lambda: None,
) -> dict[str, list[Turn]]:
    """Calls every runner with the same seed, one after the other, again and again.

    Args:
        runners: `seed -> Turn`, by name.
        seed: of the first turn; the next takes the next.
        turns: at most so many.
        at_least, seconds: no turn begins after so many seconds, once there are so many turns.
        check: called with the turn's number and all its `Turn`s after each turn; may raise.
        each_turn: called after each runner's turn.
    """
    found: dict[str, list[Turn]] = {name: [] for name in runners}
    begin = time.perf_counter()
    for number in range(turns):
        if number >= at_least and time.perf_counter() - begin > seconds:
            break
        done = {}
        for name, runner in runners.items():
            done[name] = runner(seed + number)
            found[name].append(done[name])
            each_turn()
        check(number, done)
    return found


def summarize(found: Mapping[str, list[Turn]], samples: int) -> Measurement:
    """Medians and quartiles of all counted epochs, and the ratio of the first two."""
    seconds = {name: [turn.seconds for turn in turns] for name, turns in found.items()}
    first, second, *_ = seconds.values()
    ratio = bootstrap(np.array(first), np.array(second))
    timings = {name: _timing(list(chain(*times)), samples) for name, times in seconds.items()}
    return Measurement(samples, len(first), timings, ratio.value, (ratio.low, ratio.high))


def bootstrap(slow: np.ndarray, fast: np.ndarray, resamples: int = 2000) -> Ratio:
    """Ratio of the medians of two tables of seconds `[turns, epochs]`.

    The 95 % percentile interval is over whole turns of both, since the machine drifts from turn to
    turn.
    """
    turns = np.random.default_rng(0).integers(len(slow), size=[resamples, len(slow)])
    ratios = np.median(slow[turns], axis=(1, 2)) / np.median(fast[turns], axis=(1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(float(np.median(slow) / np.median(fast)), float(low), float(high))


def across(processes: Sequence[tuple[np.ndarray, np.ndarray]]) -> Ratio:
    """Speedup from several processes, each with the seconds `[turns, epochs]` of slow and fast.

    Each process gives one value: the median over its turns of `log(slow / fast)`, of which both
    are neighbors in time. The ratio is the geometric mean of the processes, and its 95 % interval
    is Student's t interval of their logarithms. So the interval contains the variance between
    processes, such as that of memory layout and thread placement, and needs no model of the
    variance within one, which only makes the values of the processes less equal.

    Limits: with three processes the interval is wide (t = 4.3) and assumes that the logarithms are
    about normal; whoever adds processes until it is narrow gets a coverage slightly below 95 %;
    what is the same in all processes of one machine on one day is not in it. One process has no
    such interval: use `bootstrap`.
    """
    logs = [
        np.median(np.log(np.median(slow, axis=1) / np.median(fast, axis=1)))
        for slow, fast in processes
    ]
    count = len(logs)
    t = STUDENT_T[min(count - 1, len(STUDENT_T)) - 1]
    reach = t * np.std(logs, ddof=1) / math.sqrt(count)
    value, low, high = np.exp(np.mean(logs) + reach * np.array([0.0, -1.0, 1.0]))
    return Ratio(float(value), float(low), float(high))


def check_turns(pairs: Sequence[tuple[str, str]], turn: int, done: Mapping[str, Turn]) -> None:
    """Raises LossesDiffer if a loss of the turns of any pair is not equal, bit for bit."""
    for pair in pairs:
        _check_losses(turn, *pair, *(done[name].losses for name in pair))


def _check_losses(
    turn: int, first: str, name: str, epochs: list[list[float]], others: list[list[float]]
) -> None:
    for epoch, (losses, other) in enumerate(zip(epochs, others, strict=True)):
        if len(losses) != len(other):
            raise LossesDiffer(
                f"turn {turn}, epoch {epoch}: {len(losses)} calls in {first}, "
                f"{len(other)} in {name}"
            )
        for call, (a, b) in enumerate(zip(losses, other, strict=True)):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                raise LossesDiffer(
                    f"turn {turn}, epoch {epoch}, call {call}: loss {a} in {first}, {b} in {name}"
                )


def check_variables(expected: tuple[str, Any], found: tuple[str, Any]) -> None:
    """Raises LossesDiffer if a variable of two trainers, `(name, trainer)`, is not equal."""
    (first, trainer), (name, other) = expected, found
    for a, b in zip(variables_of(trainer), variables_of(other), strict=True):
        values, others = keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        if not np.array_equal(values, others, equal_nan=values.dtype.kind == "f"):
            raise LossesDiffer(f"after the last turn: {a.path} differs in {first} and {name}")


def variables_of(trainer: Any) -> list[Any]:
    """All variables of a trainer's model and of its optimizer."""
    return [*trainer.model.variables, *trainer.optimizer.variables]


def _timing(seconds: list[float], samples: int) -> Timing:
    lower, median, upper = (float(q) for q in np.percentile(seconds, [25, 50, 75]))
    return Timing(seconds, median, lower, upper, samples / median)
