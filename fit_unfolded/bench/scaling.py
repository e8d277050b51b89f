"""How a step's time grows with replicas and workers, and a model of its cost.

Run as `python -m fit_unfolded.bench.scaling FILE`: measures, writes FILE, a JSON, prints tables.
All replicas and workers are parts of this one machine, so what is added is the work of sharing,
never a core.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FEATURES, CLASSES = 784, 10
WIDTHS = (128, 512, 2048)  # of the hidden layer
STRONG = 384  # samples a batch, shared out
WEAK = 128  # samples a batch for each
REPLICAS, WORKERS = (1, 2, 4), (1, 2, 3)
STEPS, EPOCHS = 16, 6  # of which the first is not counted
SEED = 0
MODULE = "fit_unfolded.bench.scaling"


@dataclass(frozen=True)
class Point:
    """One training: how many share how large a batch, and how wide the model is.

    Attributes:
        kind: "one device", "replicas" or "workers".
        count: how many there are.
        batch: samples in a batch, for all together.
        seconds: of one step, the median of epochs; 0 before it is measured.
    """

    kind: str
    count: int
    batch: int
    width: int
    seconds: float = 0.0

    @property
    def flop(self) -> float:
        """Of a step: its matrix products, forward and backward, see `limit.work`."""
        hidden, out = FEATURES * self.width, self.width * CLASSES
        return 2.0 * self.batch * (2 * hidden + 3 * out)

    @property
    def gradient_bytes(self) -> float:
        """What each has to tell the others in a step: a float32 for each weight."""
        return 4.0 * (FEATURES * self.width + self.width + self.width * CLASSES + CLASSES)

    @property
    def input_bytes(self) -> float:
        """Of a batch."""
        return 4.0 * self.batch * (FEATURES + 1)


def points(kind: str, counts: Sequence[int]) -> list[Point]:
    """Strong scaling, one batch shared out, and weak scaling, a batch that grows with them."""
    batches = {(count, batch) for count in counts for batch in (STRONG, WEAK * count)}
    return [Point(kind, *pair, width) for width in WIDTHS for pair in sorted(batches)]


# A model of the cost ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a step costs, term by term, see `terms`.

    Attributes:
        start: seconds that every step takes.
        each: seconds for each replica or worker: its share of the machine's dispatching.
        together: seconds as soon as there are several: to wait for each other's messages.
        per_flop: seconds.
        per_input_byte: seconds, to gather and pass the batch.
        per_gradient_byte: seconds, for each one after the first: to send and add up.
    """

    start: float
    each: float
    together: float
    per_flop: float
    per_input_byte: float
    per_gradient_byte: float

    def seconds(self, point: Point) -> float:
        """Of a step, when all share the cores of one machine."""
        return float(np.dot(terms(point), list(asdict(self).values())))


def terms(point: Point) -> list[float]:
    """What the six costs are multiplied by."""
    several = float(point.count > 1)
    shared = (point.count - 1) * point.gradient_bytes
    return [1.0, point.count, several, point.flop, point.input_bytes, shared]


def fitted(measured: Sequence[Point]) -> Cost:
    """The costs that come closest to what was measured, none of them negative.

    Least squares of relative errors, so that short steps count as much as long ones.
    """
    from scipy.optimize import nnls

    weights = np.array([1 / point.seconds for point in measured])
    matrix = np.array([terms(point) for point in measured]) * weights[:, None]
    scale = matrix.max(axis=0)  # the terms are as far apart as seconds and operations
    found, _ = nnls(matrix / scale, np.ones(len(measured)))
    return Cost(*(float(value) for value in found / scale))


def errors(cost: Cost, measured: Sequence[Point]) -> list[float]:
    """Of the model, relative to what was measured."""
    return [cost.seconds(point) / point.seconds - 1 for point in measured]


@dataclass(frozen=True)
class Cluster:
    """Devices that each have cores, memory and links of their own; an assumption, not a machine.

    Attributes:
        flops: of one device, what is reached of them.
        bytes_per_second: of one device's link to the others.
        latency: seconds, of one message.
        start: seconds that a step takes to be started.
    """

    flops: float
    bytes_per_second: float
    latency: float
    start: float

    def seconds(self, count: int, flop: float, gradient_bytes: float) -> float:
        """Of a step whose `flop` are shared out evenly, and whose gradients go round a ring.

        Args:
            flop: of all together.
            gradient_bytes: of one copy of the gradients. A ring all-reduce sends
                2 (count - 1) / count of them through each link, in 2 (count - 1) messages.
        """
        sent = 2 * (count - 1) / count * gradient_bytes / self.bytes_per_second
        return self.start + flop / count / self.flops + sent + 2 * (count - 1) * self.latency


# A step's operations and bytes of gradients, on each device or worker.
MLP = Point("", 1, WEAK, 512)
TO_PREDICT = {
    "mlp, 128 samples each": (MLP.flop, MLP.gradient_bytes),
    # 25.6 million weights; 3.8e9 multiplications and additions a sample (He et al. 2015, table 1),
    # and twice as many again backward
    "ResNet-50's size, 32 samples each": (32 * 3 * 2 * 3.8e9, 4 * 25.6e6),
}


def predictions(start: float) -> str:
    """What the model says of 8 GPUs and of 64 workers, as assumed here; a Markdown table.

    Args:
        start: seconds that a step takes to be started, as measured.
    """
    from fit_unfolded.bench.report import table

    clusters = {
        "GPU": (Cluster(2e13, 1e11, 1e-5, start), (1, 2, 4, 8)),
        "worker": (Cluster(1e11, 1.25e9, 5e-5, start), (1, 4, 16, 64)),
    }
    rows = []
    for device, (cluster, counts) in clusters.items():
        for name, (flop, gradient_bytes) in TO_PREDICT.items():
            whole = flop * counts[-1]
            alone = [cluster.seconds(1, work, gradient_bytes) for work in (flop, whole)]
            for count in counts:
                weak = cluster.seconds(count, flop * count, gradient_bytes)
                strong = cluster.seconds(count, whole, gradient_bytes)
                row = [f"{count} {device}{'s' * (count > 1)}", name, f"{weak * 1e3:,.1f}"]
                row += [f"{alone[0] / weak:.0%}", f"{strong * 1e3:,.1f}"]
                rows.append([*row, f"{alone[1] / strong:.1f}"])
    weak_headers = ["weak: ms per step", "efficiency"]
    return table(["", "model", *weak_headers, "strong: ms per step", "speedup over one"], rows)


# Measuring -------------------------------------------------------------------------------------


def measure(point: Point, strategy: Any) -> Point:
    """The point, with its seconds; to be called by all workers alike."""
    import contextlib

    import keras

    import manual_loop

    ended: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ended.append(time.perf_counter())

    keras.backend.clear_session()
    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(STEPS * point.batch, FEATURES)).astype("float32")
    y = rng.integers(CLASSES, size=(len(x), 1))
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        layers = keras.layers.Dense(point.width, "relu"), keras.layers.Dense(CLASSES, "softmax")
        trainer = manual_loop.Trainer(keras.Sequential([keras.Input([FEATURES]), *layers]))
        trainer.compile("sgd", "sparse_categorical_crossentropy")
    trainer.fit(x, y, batch_size=point.batch, epochs=EPOCHS, verbose=0, callbacks=[Clock()])
    seconds = float(np.median(np.diff(ended))) / STEPS
    return Point(point.kind, point.count, point.batch, point.width, seconds)


def main(file: Path) -> None:
    """Measures everything, each kind and number in processes of its own; writes and prints it."""
    from fit_unfolded.bench.environment import environment
    from fit_unfolded.common.results import circumstances, write_json

    measured = [point for kind, count in _runs() for point in _in_processes(kind, count)]
    costs = {
        kind: asdict(fitted([point for point in measured if point.kind == kind]))
        for kind in ("replicas", "workers")
    }
    figures = {"points": [asdict(point) for point in measured], "costs": costs}
    write_json(file, circumstances() | {"environment": environment()} | figures)
    print(tables(measured, {kind: Cost(**cost) for kind, cost in costs.items()}))
    print("\n" + predictions(costs["replicas"]["start"] + costs["replicas"]["each"]))


def tables(measured: Sequence[Point], costs: dict[str, Cost]) -> str:
    """What was measured beside what the model says, and the costs, in Markdown."""
    from fit_unfolded.bench.report import table

    rows = []
    for point in measured:
        row = [point.kind, str(point.count), str(point.batch), f"{point.width:,}"]
        row += [f"{point.seconds * 1e3:.2f}", f"{point.batch / point.seconds:,.0f}"]
        modelled = costs[point.kind].seconds(point) if point.kind in costs else None
        row += ["", ""] if modelled is None else [
            f"{modelled * 1e3:.2f}", f"{modelled / point.seconds - 1:+.0%}"
        ]  # fmt: skip
        rows.append(row)
    headers = ["", "how many", "batch", "width", "ms per step", "samples/s", "model, ms", "error"]
    found = [
        [
            kind,
            f"{cost.start * 1e3:.2f} ms",
            f"{cost.each * 1e3:.2f} ms",
            f"{cost.together * 1e3:.2f} ms",
            _per_second(cost.per_flop, "GFLOP/s"),
            _per_second(cost.per_input_byte, "GB/s"),
            _per_second(cost.per_gradient_byte, "GB/s"),
        ]
        for kind, cost in costs.items()
    ]
    names = ["", "start", "each", "together", "arithmetic", "input", "gradients"]
    return f"{table(headers, rows)}\n\n{table(names, found)}"


def _per_second(cost: float, unit: str) -> str:
    return f"{1e-9 / cost:,.1f} {unit}" if cost else "nothing"


def _runs() -> list[tuple[str, int]]:
    runs = [("one device", 1)]
    runs += [("replicas", count) for count in REPLICAS]
    return runs + [("workers", count) for count in WORKERS]


def _in_processes(kind: str, count: int) -> list[Point]:
    from fit_unfolded.common.launch import cluster, free_addresses

    print(f"{kind}: {count}", flush=True)
    processes = count if kind == "workers" else 1
    addresses = free_addresses(processes)
    with tempfile.NamedTemporaryFile("r", suffix=".json") as result:
        command = [sys.executable, "-m", MODULE, kind, str(count), result.name]
        running = []
        for place in range(processes):
            variables = dict(os.environ)
            if kind == "workers" and count > 1:
                variables["TF_CONFIG"] = cluster(addresses, place)
            running.append(subprocess.Popen(command, env=variables))
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise RuntimeError(f"{kind}, {count}: a process ended with {max(map(abs, statuses))}")
        return [Point(**point) for point in json.load(result)]


def one_run(kind: str, count: int, file: Path) -> None:
    """All points of one kind and number, in this process or as this worker; the chief writes."""
    from fit_unfolded.common.tf_import import import_tensorflow

    import_tensorflow()
    from fit_unfolded.common.device import divide_cpu
    from manual_loop.distribution.multi_worker import cluster_of, multi_worker_strategy
    from manual_loop.distribution.replicas import mirrored_strategy

    strategy = multi_worker_strategy() if kind == "workers" else None
    if kind == "replicas":
        divide_cpu(count)
        strategy = mirrored_strategy(count)
    counts = {"one device": (1,), "replicas": REPLICAS, "workers": WORKERS}[kind]
    due = [point for point in points(kind, counts) if point.count == count]
    measured = [asdict(measure(point, strategy)) for point in due]
    workers = cluster_of(strategy)
    if workers is None or workers.is_chief:
        file.write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        one_run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
