"""Trains one implementation in a separate process: peak memory and number of traces.

In one process both would share a heap, and memory that the first leaves behind would count for the
second. Run as `python -m fit_unfolded.bench.fresh MODEL MODE SIDE XLA`, or with `stream SIDE` for
arrays too large for the device; prints one line of JSON.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EPOCHS = 3
# For `stream`: the limit for device-resident arrays in bytes, and the data as a multiple of it.
LIMIT, TIMES = 2**26, 4


def in_fresh_process(model: str, mode: str, side: str, xla: bool) -> dict[str, Any]:
    """The figures that `main` prints.

    Returns:
        dict: `peak_bytes` of resident memory; `idle_bytes` of it before the model was built, with
        TensorFlow and the data loaded; `traces` of the step; on a GPU, `device_bytes`, the most
        of its memory in use.
    """
    return _run(model, mode, side, str(int(xla)))


def streamed(side: str) -> dict[str, Any]:
    """The figures of `stream`: `peak_bytes`, `idle_bytes` with the data loaded, `data_bytes`."""
    return _run("stream", side)


def _run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(model: str, mode: str, side: str, xla: str) -> None:
    """Trains three epochs and prints the figures."""
    from fit_unfolded.common.tf_import import import_tensorflow

    import_tensorflow()
    import keras

    from fit_unfolded.bench.cases import Case, Recorder, Variant
    from fit_unfolded.bench.models import MODELS

    case = Case(MODELS[model], mode)
    x, y = case.model.data()
    idle = peak_memory()
    recorder = Recorder(keras.losses.SparseCategoricalCrossentropy(), EPOCHS * case.model.steps)
    trainer = case.trainer(Variant(side, bool(int(xla))), loss=recorder)
    trainer.fit(x, y, batch_size=case.model.batch_size, epochs=EPOCHS, verbose=0)
    figures = {"peak_bytes": peak_memory(), "idle_bytes": idle, "traces": recorder.traces}
    print(json.dumps(figures | device_memory()))


def stream(side: str) -> None:
    """Trains an epoch of the mlp on four times the limit for device-resident arrays."""
    from fit_unfolded.common.tf_import import import_tensorflow

    import_tensorflow()
    import numpy as np

    import manual_loop.data.arrays
    from fit_unfolded.bench.cases import Case, Variant
    from fit_unfolded.bench.models import MODELS

    manual_loop.data.arrays.RESIDENT_BYTES = LIMIT
    case = Case(MODELS["mlp"], "block")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size=[TIMES * LIMIT // (4 * 784), 784], dtype="float32")
    y = rng.integers(10, size=len(x), dtype="int32")
    idle = peak_memory()
    case.trainer(Variant(side, False)).fit(x, y, batch_size=case.model.batch_size, verbose=0)
    sizes = {"peak_bytes": peak_memory(), "idle_bytes": idle, "data_bytes": x.nbytes}
    print(json.dumps(sizes))


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


if __name__ == "__main__":
    first, *others = sys.argv[1:]
    if first == "stream":
        stream(*others)
    else:
        main(first, *others)
