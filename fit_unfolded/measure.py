"""Throughput of trainers, measured by epochs run in turns in one process."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import keras
import numpy as np

TURNS = 10
EPOCHS_PER_TURN = 3
BATCHES_PER_EPOCH = 64


class LossesDiffer(RuntimeError):
    """The trainers did not do the same work, so their times must not be compared."""


@dataclass(frozen=True)
class Timing:
    """Times of one trainer's counted epochs, in seconds; throughput in samples a second."""

    seconds: list[float]
    median: float
    lower_quartile: float
    upper_quartile: float
    samples_per_second: float


@dataclass(frozen=True)
class Measurement:
    """Times of all trainers, and the second's throughput as a multiple of the first's.

    Attributes:
        samples: rows of one timed epoch.
        timings: by the trainer's name.
        ratio: median time of the first trainer divided by that of the second.
        interval: 95 % percentile bootstrap interval of `ratio`, over whole turns of both, since
            the machine drifts from turn to turn.
    """

    samples: int
    timings: dict[str, Timing]
    ratio: float
    interval: tuple[float, float]


class EpochTimer(keras.callbacks.Callback):
    """Notes the seconds from `on_epoch_begin` to `on_epoch_end`, and the loss, of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._begin)
        self.losses.append(logs["loss"])


def measure(
    trainers: Mapping[str, Any],
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    seed: int,
    turns: int = TURNS,
    epochs_per_turn: int = EPOCHS_PER_TURN,
    each_turn: Callable[[], None] = lambda: None,
) -> Measurement:
    """Trains each trainer in turns and times its epochs; training goes on from where they stand.

    A turn is one `fit` of `epochs_per_turn` epochs without validation at `verbose=0`, from the
    same seed for every trainer. Its first epoch, which traces and starts the input pipeline, is
    not counted. An epoch is cut to 64 batches.

    Args:
        trainers: two compiled trainers of equal state, by name; the first is the reference.
        x, y: arrays `[samples, ...]`.
        each_turn: called after each trainer's turn, to show progress.

    Raises:
        LossesDiffer: when any epoch's losses are not equal.
    """
    x, y = x[: BATCHES_PER_EPOCH * batch_size], y[: BATCHES_PER_EPOCH * batch_size]
    seconds: dict[str, list[list[float]]] = {name: [] for name in trainers}
    for turn in range(turns):
        losses: dict[str, list[float]] = {}
        for name, trainer in trainers.items():
            timer = EpochTimer()
            keras.utils.set_random_seed(seed + turn)
            trainer.fit(
                x, y, batch_size=batch_size, epochs=epochs_per_turn, verbose=0, callbacks=[timer]
            )
            seconds[name].append(timer.seconds[1:])
            losses[name] = timer.losses
            each_turn()
        _check_equal(losses, turn)
    first, second = seconds.values()
    ratio, interval = _ratio(first, second)
    timings = {name: _timing(list(chain(*times)), len(x)) for name, times in seconds.items()}
    return Measurement(len(x), timings, ratio, interval)


def _check_equal(losses: dict[str, list[float]], turn: int) -> None:
    (first, expected), *others = losses.items()
    for name, found in others:
        for epoch, (a, b) in enumerate(zip(expected, found, strict=True)):
            if a != b and not (math.isnan(a) and math.isnan(b)):
                raise LossesDiffer(
                    f"turn {turn}, epoch {epoch}: loss {a} on {first}, {b} on {name}"
                )


def _timing(seconds: list[float], samples: int) -> Timing:
    lower, median, upper = (float(q) for q in np.percentile(seconds, [25, 50, 75]))
    return Timing(seconds, median, lower, upper, samples / median)


def _ratio(
    a: list[list[float]], b: list[list[float]], resamples: int = 2000
) -> tuple[float, tuple[float, float]]:
    """Ratio of the medians of two `[turns, epochs]` tables, and its interval."""
    first, second = np.array(a), np.array(b)
    turns = np.random.default_rng(0).integers(len(first), size=[resamples, len(first)])
    ratios = np.median(first[turns], axis=(1, 2)) / np.median(second[turns], axis=(1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(first) / np.median(second)), (float(low), float(high))
