"""What the measurements of a loop mean: known mistakes that cost time or memory."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fit_unfolded import pitfalls
from fit_unfolded.check.meter import Meter, Sample, Traced
from fit_unfolded.check.observe import Observer
from fit_unfolded.common.files import read_source
from fit_unfolded.workloads.user_file import UserFile

TIME, MEMORY = "time", "memory"
# A graph for the full batch and one for the last, smaller one are usual.
USUAL_GRAPHS = 2
# Of the batches: above this part, something happens with each of them.
EACH = 0.9
MOST_SIGNATURES = 3  # that are named
TIMED_EPOCHS, TIMED_BATCHES = 3, 64  # of fit
TIMED_SECONDS = 5.0


@dataclass(frozen=True)
class Cost:
    """A known mistake that leaves the numbers alone.

    Attributes:
        name: the pitfall's, if the catalogue has one.
        kind: "time" or "memory".
        title, says: what is wrong, and what was measured.
        line: of the user's file; 0 if unknown.
        write: what to write.
    """

    name: str
    kind: str
    title: str
    says: str
    line: int
    write: str

    @property
    def pitfall(self) -> bool:
        """Whether the catalogue has a page for it."""
        return self.name in pitfalls.names()


def find(meter: Meter, seen: Observer, path: Path, epochs: int) -> list[Cost]:
    """The known mistakes that the measurements show.

    Args:
        meter: of the loop as it is.
        seen: of the same loop run eagerly.
        epochs: of the loop.
    """
    batches = sum(bool(block.gradients) for step in seen.steps for block in step.blocks)
    return [
        *_of_graphs(meter, seen, batches),
        *_of_reads(meter, batches, epochs),
        *_of_memory(meter, path),
        *_of_tapes(seen),
    ]


# Time -----------------------------------------------------------------------------------------


def _of_graphs(meter: Meter, seen: Observer, batches: int) -> Iterator[Cost]:
    trained = [function for function in meter.functions.values() if function.tapes]
    if meter.eager > 1 and not trained:
        line = next((block.line for step in seen.steps for block in step.blocks), 0)
        says = f"all {meter.eager} batches run without a graph"
        if meter.functions:
            says += "; no tf.function has a GradientTape in it"
        write = "@tf.function(reduce_retracing=True) on the function that makes one step"
        yield Cost("no-graph", TIME, "No `tf.function` around the step", says, line, write)
    for function in meter.functions.values():
        if function.tapes > 1 and function.calls == 1:
            says = f"one graph of {function.name} holds {function.tapes} steps"
            write = "@tf.function on one step; call it for each batch"
            title = "The training loop is unrolled into one graph"
            yield Cost("loop-in-one-function", TIME, title, says, function.line, write)
        yield from _of_retracing(function)


def _of_retracing(function: Traced) -> Iterator[Cost]:
    says = f"{len(function.traces)} graphs of {function.name} in {function.calls} calls"
    if function.objects > USUAL_GRAPHS:
        says += f", for {function.objects} tf.functions were made of it"
        write = "make the tf.function once, before the first epoch"
        title = "A new `tf.function` again and again"
        yield Cost("function-made-anew", TIME, title, says, function.line, write)
        return
    arguments = [list(dict.fromkeys(kind)) for kind in zip(*function.signatures, strict=False)]
    many = [values for values in arguments if len(values) > USUAL_GRAPHS]
    numbers = [values for values in many if all(_is_number(value) for value in values)]
    if not many:
        return
    named = "; ".join(
        ", ".join(values[:MOST_SIGNATURES]) + (", ..." if len(values) > MOST_SIGNATURES else "")
        for values in numbers or many
    )
    says += f": an argument was {named}"
    if numbers:
        title = "A new graph for each Python number"
        write = "give it tf.constant(number), or read it from a tf.Variable"
        yield Cost("retraced-for-numbers", TIME, title, says, function.line, write)
    else:
        title = "A new graph for each shape"
        write = "@tf.function(reduce_retracing=True), or an input_signature with None"
        yield Cost("retraced-for-shapes", TIME, title, says, function.line, write)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _of_reads(meter: Meter, batches: int, epochs: int) -> Iterator[Cost]:
    each = {line: count for line, count in meter.reads.items() if count >= EACH * batches}
    if each and batches > 1:
        lines = ", ".join(map(str, sorted(each)))
        total = sum(each.values())
        spent = 1e3 * meter.read_seconds / max(1, sum(meter.reads.values()))
        says = (
            f"{total / batches:.3g} numbers are read after each batch (line {lines}), "
            f"{spent:.2g} ms each on this device; a GPU is waited for each time"
        )
        write = "read metric.result() once, after the last batch of the epoch"
        title = "The host asks for a number after each batch"
        yield Cost("numbers-read-each-batch", TIME, title, says, min(each), write)
    for (method, line), count in meter.asked.items():
        if count > 3 * epochs:
            all_calls = sum(meter.asked.values())
            spent = 1e3 * meter.asked_seconds / all_calls
            says = f"{count} calls of model.{method}, {spent:.3g} ms each"
            title = f"`{method}` called in a loop"
            write = "model(x, training=False) in a tf.function"
            yield Cost("predict-in-a-loop", TIME, title, says, line, write)


def step_milliseconds(meter: Meter) -> float | None:
    """The median time of a batch of the loop, without its first quarter; None if unknown."""
    times = np.diff(meter.times)
    return 1e3 * float(np.median(times[len(times) // 4 :])) if len(times) > 3 else None


def fit_milliseconds(file: UserFile, data: dict[str, Any], seed: int) -> float | None:
    """The same of fit, as a graph, on the first batches."""

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.times.append(time.perf_counter())
            late = self.times[-1] - self.times[0] > TIMED_SECONDS
            self.model.stop_training = self.model.stop_training or late

    keras.utils.set_random_seed(seed)
    model, clock = file.build(), Clock()
    model.compile(**file.compile())
    kept = {name: value for name, value in data.items() if name != "validation_data"}
    arguments = {n: v for n, v in file.fit.items() if not n.startswith("validation")}
    arguments |= {"epochs": TIMED_EPOCHS, "initial_epoch": 0, "callbacks": [clock], "verbose": 0}
    if "steps_per_epoch" not in arguments:
        arguments["steps_per_epoch"] = None
    model.fit(**kept, **arguments)
    times = np.diff(clock.times)
    return 1e3 * float(np.median(times[len(times) // 3 :])) if len(times) > 3 else None


# Memory ---------------------------------------------------------------------------------------


def growth(samples: list[Sample]) -> dict[str, float]:
    """What is more after each batch, and was so between all samples: number or bytes a batch."""
    grows: dict[str, float] = {}
    if len(samples) < 3:
        return grows
    for name in ("tensors", "tapes", "variables"):
        slopes = [
            (getattr(b, name) - getattr(a, name)) / (b.batches - a.batches)
            for a, b in pairwise(samples)
        ]
        if min(slopes) >= EACH:
            grows[name] = float(np.median(slopes))
    if "tensors" in grows:
        first, last = samples[0], samples[-1]
        size = (last.tensor_bytes - first.tensor_bytes) / (last.batches - first.batches)
        grows["bytes"] = size
    return grows


def _of_memory(meter: Meter, path: Path) -> Iterator[Cost]:
    grows = growth(meter.samples)
    if not {"tensors", "tapes"} & grows.keys():
        return
    parts = [f"{grows[name]:.3g} {name}" for name in ("tensors", "tapes") if name in grows]
    says = f"{' and '.join(parts)} more after each batch"
    if "bytes" in grows:
        says += f", {grows['bytes']:.3g} bytes"
    least = EACH * (meter.samples[-1].batches - meter.samples[0].batches)
    first, last = meter.holders[0], meter.holders[-1]
    holders = {name: n for name, n in last.items() if n - first.get(name, 0) >= least}
    line = 0
    if holders:
        names = ", ".join(f"{name} ({count} at the end)" for name, count in holders.items())
        says += f"; held by {names}"
        line = line_that_adds(path, next(iter(holders)))
    write = "keep float(loss), or a keras.metrics.Mean; no tensors and no tapes"
    title = "Tensors or tapes are kept from step to step"
    yield Cost("tensors-kept", MEMORY, title, says, line, write)


def line_that_adds(path: Path, name: str) -> int:
    """The first line that adds to a container; 0 if none is found."""
    ways = (f"{name}.append(", f"{name}.extend(", f"{name}.add(", f"{name} +=", f"{name}[")
    for number, line in enumerate(read_source(path, "FILE")[0].splitlines(), 1):
        if any(way in line for way in ways) or (f"{name}" in line and "].append(" in line):
            return number
    return 0


def _of_tapes(seen: Observer) -> Iterator[Cost]:
    inside = [update for step in seen.steps for update in step.updates if update.recorded]
    if inside:
        says = f"{len(inside)} updates were made while a persistent tape was recording"
        title = "The optimizer's update is inside the tape"
        write = "call tape.gradient and apply_gradients behind the with block"
        yield Cost("tape-around-optimizer", MEMORY, title, says, inside[0].line, write)
