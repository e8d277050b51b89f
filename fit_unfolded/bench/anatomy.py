"""Where the time goes: the parts of a step and of an epoch, each timed alone."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.bench.cases import SEED, TRAINERS, Case, Variant, settle
from fit_unfolded.bench.measure import in_turns, turns_of
from fit_unfolded.bench.models import Model
from manual_loop.data.arrays import stream_arrays
from manual_loop.data.resident import ResidentDataset
from manual_loop.execution.dispatch import op_of
from manual_loop.execution.graph import graph

ROUNDS = 7

Piece = Callable[[], Any]


def anatomy_of_a_step(model: Model) -> dict[str, float]:
    """Seconds per step, one step per call without XLA: part -> median of alternating rounds.

    A callback reads the loss after each batch, so that the loop joins no steps.

    `fit` and `loop` are whole epochs, the others calls in an empty `for` loop, one for each step of
    an epoch. On a CPU.
    """
    trainers, epochs = _trained(model, "step")
    x, y = model.data()
    (bound,) = trainers["loop"]._function("train")._on_arrays.values()
    step = bound._run_full.function
    count = tf.Variable(0.0)
    empty = graph(lambda: count.assign_add(1.0)).get_concrete_function()
    dataset = ResidentDataset((x, y), model.samples, model.batch_size, shuffle=True)

    def iterate() -> None:
        for _ in stream_arrays((x, y), model.samples, model.batch_size, shuffle=True):
            pass

    def calls(call: Piece) -> Piece:
        def piece() -> None:
            bound.bind(iter(dataset))
            for _ in range(model.steps):
                call()

        return piece

    pieces = {
        "a batch from tf.data alone": iterate,
        "the loop's graph alone, called as a function": calls(step),
        "the loop's graph alone, called by an op": calls(op_of(step)),
        "forward and backward alone": calls(_gradients(trainers["loop"].model, x, y, model)),
        "an empty graph, called as a function": calls(empty),
        "an empty graph, called by an op": calls(op_of(empty)),
    }
    seconds = _in_turns(pieces, epochs)
    return {name: seconds[name] / model.steps for name in ("fit", "loop", *pieces)}


def anatomy_of_an_epoch(model: Model) -> dict[str, float]:
    """Seconds per epoch in one XLA program: part -> median of alternating rounds."""
    trainers, epochs = _trained(model, "block XLA")
    x, y = model.data()
    loop = trainers["loop"]
    (bound,) = loop._function("train")._on_arrays.values()
    dataset = ResidentDataset((x, y), model.samples, model.batch_size, shuffle=True)

    def program() -> None:
        bound.bind(iter(dataset))
        bound._run_block()

    def read() -> None:
        for value in loop.model.get_metrics_result().values():
            float(value)

    pieces = {
        "the program alone": program,
        "the metrics reset": loop.model.reset_metrics,
        "the metrics read": read,
    }
    seconds = _in_turns(pieces, epochs)
    return {name: seconds[name] for name in ("fit", "loop", *pieces)}


def _trained(model: Model, mode: str) -> tuple[dict[str, Any], Piece]:
    """Both trainers, traced; and a function that returns the seconds of an epoch of each."""
    case = Case(model, (mode,))
    trainers = {side: case.trainer(Variant(side, mode)) for side in TRAINERS}
    x, y = model.data()
    if mode == "step":
        settle(trainers["loop"], x, y, model)
    runners = {
        side: turns_of(trainer, {"x": x, "y": y}, model.batch_size, case.epochs_per_turn)
        for side, trainer in trainers.items()
    }

    def epochs() -> dict[str, float]:
        turns = in_turns(runners, SEED, 1)
        return {side: float(np.median(turns[side][0].seconds)) for side in runners}

    epochs()
    return trainers, epochs


def _gradients(model: Any, x: np.ndarray, y: np.ndarray, of: Model) -> Piece:
    """Calls a graph of the gradients on one batch: no optimizer, no metrics."""
    x, y = tf.constant(x[: of.batch_size]), tf.constant(y[: of.batch_size])
    loss = keras.losses.SparseCategoricalCrossentropy()

    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        return tape.gradient(value, model.trainable_weights)

    return graph(gradients).get_concrete_function()


def _in_turns(pieces: dict[str, Piece], epochs: Piece) -> dict[str, float]:
    """Seconds of each part, and of an epoch of each trainer, by name: medians of the rounds."""
    for piece in pieces.values():  # the first call optimizes
        piece()
    rounds = [
        {name: _timed(piece) for name, piece in pieces.items()} | epochs() for _ in range(ROUNDS)
    ]
    return {name: float(np.median([seconds[name] for seconds in rounds])) for name in rounds[0]}


def _timed(piece: Piece) -> float:
    begin = time.perf_counter()
    piece()
    tf.test.experimental.sync_devices()
    return time.perf_counter() - begin
