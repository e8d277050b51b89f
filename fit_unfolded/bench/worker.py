"""What a fresh process measures: `python -m fit_unfolded.bench.worker WHAT ...`, one line of JSON.

Every measurement has a process of its own: in one that is shared, memory, threads and traces that
one leaves behind would count for the next.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
EPOCHS = 3
# For `stream`: the limit for device-resident arrays in bytes, and the data as a multiple of it.
LIMIT, TIMES = 2**26, 4


def case(name: str, seconds: str, number: str) -> Figures:
    """All modes of a model by fit and by the loop, in turns: process `number` of several."""
    from fit_unfolded.bench import cases

    chosen = cases.suite_cases()[name]
    _warm_up()
    result = cases.run(chosen, float(seconds), int(number))
    model = chosen.model
    return {
        "samples": model.samples,
        "steps": model.steps,
        "batch_size": model.batch_size,
        "seconds": {str(variant): _table(turns) for variant, turns in result.turns.items()},
        "first_step": {str(variant): start for variant, start in result.first_step.items()},
    }


def _warm_up() -> None:
    """The first trace of a process takes longer, and would count for whoever comes first."""
    from fit_unfolded.bench import cases
    from fit_unfolded.bench.models import MODELS

    cases.run(cases.Case(MODELS["lesson"].cut(64), ("default", "block XLA")), 0.0, at_least=1)


def _table(turns: list[Any]) -> list[list[float]]:
    return [[float(f"{second:.5g}") for second in turn.seconds] for turn in turns]


def sweep(seconds: str, number: str) -> Figures:
    """fit's default and the loop's for the mlp over batch size and width."""
    from fit_unfolded.bench import cases

    points = [
        (name, value, cases.run(cases.Case(model, ("default",)), float(seconds), int(number)))
        for name, models in cases.sweeps().items()
        for value, model in models
    ]
    return {
        "samples": {f"{name} {value}": found.case.model.samples for name, value, found in points},
        "seconds": {
            f"{variant.side} {name} {value}": _table(turns)
            for name, value, found in points
            for variant, turns in found.turns.items()
        },
    }


def anatomy() -> Figures:
    """Where the time of a step goes, and of an epoch in one XLA program."""
    from fit_unfolded.bench.anatomy import anatomy_of_a_step, anatomy_of_an_epoch
    from fit_unfolded.bench.models import MODELS

    found = {name: MODELS[name] for name in ("lesson", "mlp", "cnn", "transformer")}
    step = {name: anatomy_of_a_step(model) for name, model in found.items()}
    # with XLA, a CPU runs convolutions one step per call: gains_from_a_block
    epoch = {name: anatomy_of_an_epoch(found[name]) for name in found if name != "cnn"}
    return {"a step": step, "an epoch": epoch}


def limit() -> Figures:
    """The machine's own speed, and the work of a step of each model."""
    from fit_unfolded.bench.limit import measure_limits, work
    from fit_unfolded.bench.models import LARGE_MODELS, MODELS

    works = {name: work(m)._asdict() for name, m in (MODELS | LARGE_MODELS).items()}
    return measure_limits()._asdict() | {"work": works}


def memory(name: str, mode: str, side: str) -> Figures:
    """`peak_bytes` of resident memory in three epochs, and `traces` of the step.

    `idle_bytes` is the memory before the model was built, with TensorFlow and the data loaded; on a
    GPU, `device_bytes` is the most of its memory in use.
    """
    import keras

    from fit_unfolded.bench.cases import Case, Recorder, Variant
    from fit_unfolded.bench.models import MODELS

    chosen = Case(MODELS[name], (mode,))
    x, y = chosen.model.data()
    idle = peak_memory()
    recorder = Recorder(keras.losses.SparseCategoricalCrossentropy(), EPOCHS * chosen.model.steps)
    trainer = chosen.trainer(Variant(side, mode), loss=recorder)
    trainer.fit(x, y, batch_size=chosen.model.batch_size, epochs=EPOCHS, verbose=0)
    figures = {"peak_bytes": peak_memory(), "idle_bytes": idle, "traces": recorder.traces}
    return figures | device_memory()


def stream(side: str) -> Figures:
    """`peak_bytes` in an epoch of the mlp on four times the limit for device-resident arrays."""
    import numpy as np

    import manual_loop.data.arrays
    from fit_unfolded.bench.cases import Case, Variant
    from fit_unfolded.bench.models import MODELS

    manual_loop.data.arrays.RESIDENT_BYTES = LIMIT
    chosen = Case(MODELS["mlp"], ("block",))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size=[TIMES * LIMIT // (4 * 784), 784], dtype="float32")
    y = rng.integers(10, size=len(x), dtype="int32")
    idle = peak_memory()
    trainer = chosen.trainer(Variant(side, "block"))
    trainer.fit(x, y, batch_size=chosen.model.batch_size, verbose=0)
    return {"peak_bytes": peak_memory(), "idle_bytes": idle, "data_bytes": x.nbytes}


def peers(name: str, seconds: str, number: str) -> Figures:
    """fit, the loop, PyTorch and JAX in turns."""
    from fit_unfolded.bench.models import MODELS
    from fit_unfolded.bench.peers.race import race

    model = MODELS[name]
    found = race(model, float(seconds))
    return {
        "samples": model.samples,
        "steps": model.steps,
        "seconds": {runner: _table(turns) for runner, turns in found.turns.items()},
        "apart": found.apart,
        "refused": found.refused,
    }


def target(name: str, number: str) -> Figures:
    """Time to 97 % on digits, of one implementation."""
    from fit_unfolded.bench.peers.race import time_to_accuracy

    return time_to_accuracy(name)


def device_memory() -> dict[str, int]:
    """`device_bytes`: peak memory in use on the first GPU; empty without one."""
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return {}
    return {"device_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"]}


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes; not on Windows.

    On Linux from VmHWM: `ru_maxrss` of a new process includes its parent's memory.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS, which counts bytes
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


WHAT: Mapping[str, Callable[..., Figures]] = {
    function.__name__: function
    for function in (case, sweep, anatomy, limit, memory, stream, peers, target)
}


def main(what: str, *arguments: str) -> None:
    """Measures and prints; a figure that was refused is `{"refused": why}`."""
    from fit_unfolded.common.tf_import import import_tensorflow

    if what in ("peers", "target"):
        # PyTorch's optimizers import it, and after TensorFlow, whose LLVM it would then call, it
        # crashes: https://github.com/tensorflow/tensorflow/issues/124205
        with suppress(ImportError):
            importlib.import_module("triton")
    import_tensorflow()
    from fit_unfolded.bench.measure import LossesDiffer

    try:
        figures = WHAT[what](*arguments)
    except LossesDiffer as refusal:
        figures = {"refused": str(refusal)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
