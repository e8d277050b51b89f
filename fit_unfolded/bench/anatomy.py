"""Where the time of a step goes, one batch a call without XLA: its pieces, timed by themselves."""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from fit_unfolded.bench.cases import SEED, Case, Variant
from fit_unfolded.bench.models import Model
from fit_unfolded.measure import in_turns, turns_of
from manual_loop.arrays import Resident, Walk, stream_arrays

ROUNDS = 7
FIT, ITERATOR, LOOP, GRAPH, EMPTY = (
    "fit",
    "a batch from tf.data alone",
    "loop",
    "the loop's graph alone",
    "an empty graph",
)


def anatomy(model: Model) -> dict[str, float]:
    """Seconds a step, the median of rounds in turns, by the names above.

    `fit` and `loop` are epochs, as everywhere; the others are calls in an empty `for`, as many as
    an epoch has steps.
    """
    case = Case(model, "step", xla=(False,))
    x, y = model.data()
    trainers = {side: case.trainer(Variant(side, False)) for side in (FIT, LOOP)}
    runners = {
        name: turns_of(trainer, x, y, model.batch_size, 2) for name, trainer in trainers.items()
    }
    turns = in_turns(runners, SEED, 1)  # traces
    pieces = {
        ITERATOR: _iterator(model, x, y),
        GRAPH: _graph(trainers[LOOP], model, x, y),
        EMPTY: _empty(model),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*runners, *pieces)}
    for number in range(ROUNDS):
        for name, piece in pieces.items():
            seconds[name].append(_timed(piece))
        turns = in_turns(runners, SEED + number, 1)
        for name in runners:
            seconds[name] += turns[name][0].seconds
    return {name: float(np.median(times)) / model.steps for name, times in seconds.items()}


def _timed(piece: Callable[[], None]) -> float:
    begin = time.perf_counter()
    piece()
    tf.test.experimental.sync_devices()
    return time.perf_counter() - begin


def _iterator(model: Model, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    dataset = stream_arrays((x, y), model.samples, model.batch_size, shuffle=True)

    def walk() -> None:
        for _ in dataset:
            pass

    return walk


def _graph(trainer: object, model: Model, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    (desk,) = trainer._train_function._batches.values()  # type: ignore[attr-defined]
    resident = Resident((tf.constant(x), tf.constant(y)), model.samples, model.batch_size, True)

    def walk() -> None:
        desk.lay(Walk(resident))
        for _ in range(model.steps):
            desk.call()

    return walk


def _empty(model: Model) -> Callable[[], None]:
    call = tf.function(lambda: tf.constant(0.0)).get_concrete_function()

    def walk() -> None:
        for _ in range(model.steps):
            call()

    return walk
