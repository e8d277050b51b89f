"""What is promised of a GPU, as far as it can be tested without one."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, X, compile_with, plain
from parity import assert_parity

from fit_unfolded import cli, workloads
from fit_unfolded.bench import cases, gpu_check
from fit_unfolded.bench.measure import Watch
from fit_unfolded.bench.models import MODELS
from fit_unfolded.bench.run import Ratios
from fit_unfolded.common.device import environment, use
from fit_unfolded.common.errors import InputError
from fit_unfolded.comparison.compare import train
from fit_unfolded.comparison.record import Call
from fit_unfolded.pitfalls.experiment import Clock
from fit_unfolded.workloads import Data
from manual_loop.data import resident
from manual_loop.data.resident import WIDENED, ResidentDataset, gather, widen
from manual_loop.execution.graph import on_plain_tensors

needs_kernels = pytest.mark.skipif(
    not tf.test.is_built_with_cuda(), reason="this TensorFlow was built without kernels for GPUs"
)
needs_gpu = pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU"), reason="no GPU here: not tested on one"
)


# Where a step runs, and what it copies


@pytest.fixture(scope="module")
def placed():
    """What `placement.py` found, by case."""
    script = Path(__file__).parents[1] / "support" / "placement.py"
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=240, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


LOOP = ["one batch", "partial batch", "block", "XLA", "XLA, block"]


@needs_kernels
@pytest.mark.parametrize("case", LOOP)
def test_a_step_runs_on_its_device_alone(placed, case):
    assert placed[case]["devices"] == ["/job:localhost/replica:0/task:0/device:CPU:1"]
    assert placed[case]["unplaced"] == []


def kinds(copies):
    """How many copies there are: `to, dtype, ops` -> number."""
    return Counter(tuple(copy[:3]) for copy in copies)


@needs_kernels
def test_a_copy_is_noticed(placed):
    to_host = {copy[0] for copy in placed["a slice"]["copies"]}
    assert to_host == {"host"}
    assert placed["a shuffle"]["unplaced"] == ["RandomShuffle RandomShuffle"]


@needs_kernels
@pytest.mark.parametrize("case", ["one batch", "partial batch"])
def test_a_step_copies_no_more_than_keras_does_in_it(placed, case):
    """Scalars, in the metrics and in the loss: of the arrays, their order and position nothing."""
    assert kinds(placed[case]["copies"]) == kinds(placed["fit"]["copies"])


@needs_kernels
def test_a_block_copies_no_more_in_a_step(placed):
    """Once a block it asks the device where it stands."""
    copies = placed["block"]["copies"]
    full = [copy for copy in copies if "/while/body/" in copy[3]]
    partial = [copy for copy in copies if "/cond/then/" in copy[3]]
    for step in (full, partial):
        assert kinds(step) == kinds(placed["fit"]["copies"])
    others = [copy for copy in copies if copy not in full + partial]
    assert {copy[2].split()[0] for copy in others if copy[0] == "host"} == {"Cast", "Greater"}


@needs_kernels
@pytest.mark.parametrize("case", ["XLA", "XLA, block"])
def test_around_an_xla_program_nothing_is_copied(placed, case):
    assert placed[case]["copies"] == []


# Integers, which a GPU cannot gather as they are


@pytest.mark.parametrize("dtype", WIDENED, ids=lambda dtype: dtype.name)
def test_a_wider_dtype_holds_every_value(dtype):
    near = {dtype.min, dtype.min + 1, dtype.max // 2, dtype.max - 1, dtype.max}
    if dtype.size == 1:
        near = range(dtype.min, dtype.max + 1)
    given = np.array(sorted(near), dtype.as_numpy_dtype)
    widened = widen(tf.constant(given))
    assert widened.values.dtype == WIDENED[dtype]
    found = on_plain_tensors(lambda batch: batch)(gather((widened,), tf.range(len(given))))[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, given)


@needs_kernels
@pytest.mark.parametrize(
    "dtype", [*WIDENED.values(), tf.int64, tf.bool, tf.float32, tf.bfloat16], ids=str
)
def test_arrays_on_a_gpu_can_be_gathered_there(dtype):
    from tensorflow.python.framework import kernels

    found = [
        {c.name: c.allowed_values.list.type[0] for c in kernel.constraint}
        for kernel in kernels.get_registered_kernels_for_op("GatherV2").kernel
        if kernel.device_type == "GPU"
    ]
    wanted = {"Tparams": dtype.as_datatype_enum, "Tindices": tf.int64.as_datatype_enum}
    assert wanted in found


@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"jit_compile": True, "steps_per_execution": 2}], ids=str
)
def test_widened_arrays_train_alike(monkeypatch, how):
    monkeypatch.setattr(resident, "on_gpu", lambda: True)
    data = {"x": (X * 50).astype("int8"), "y": CLASSES["y"].astype("int32")}
    assert_parity(plain, compile_with(**how), data, epochs=2, batch_size=11)


def test_widened_arrays_of_another_length_trace_nothing_new(monkeypatch):
    monkeypatch.setattr(resident, "on_gpu", lambda: True)
    signatures = [
        ResidentDataset((tf.zeros([rows, 2], tf.uint8),), rows, 4, False).signature
        for rows in (8, 12)
    ]
    assert signatures[0] == signatures[1]


# XLA, the clock, the options


@pytest.mark.parametrize(("kinds", "xla"), [(["CPU"], False), (["CPU", "GPU"], True)], ids=str)
def test_auto_means_xla_where_there_is_a_gpu(monkeypatch, kinds, xla):
    devices = [tf.config.PhysicalDevice(f"/physical_device:{kind}:0", kind) for kind in kinds]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices)
    for Trainer in gpu_check.TRAINERS.values():
        trainer = Trainer(plain())
        trainer.compile("sgd", "mse")
        assert trainer.model.jit_compile is xla


@pytest.mark.parametrize("Callback", [Watch, Clock])
def test_the_clock_is_read_when_the_device_is_done(monkeypatch, Callback):
    events = []
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: events.append("wait"))
    monkeypatch.setattr("time.perf_counter", lambda: events.append("clock") or 0.0)
    callback = Callback()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0)
    assert events == ["clock", "wait", "clock"]


@pytest.fixture
def two_gpus(monkeypatch):
    """As if there were two; returns what was set."""
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    names = {gpu: {"device_name": f"model {i}"} for i, gpu in enumerate(gpus)}
    seen = {}
    grow = tf.config.experimental
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda which, kind: seen.update(visible=which)
    )
    monkeypatch.setattr(grow, "set_memory_growth", lambda gpu, on: seen.update(growth=(gpu, on)))
    monkeypatch.setattr(grow, "get_device_details", names.get)
    return gpus, seen


@pytest.mark.parametrize("growth", [False, True])
@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("gpu", 0), ("gpu:1", 1)])
def test_a_gpu_is_chosen(two_gpus, device, number, growth):
    gpus, seen = two_gpus
    assert use(device, growth) == f"GPU:{number} model {number}"
    assert seen == {"visible": [gpus[number]], "growth": (gpus[number], growth)}


def test_the_cpu_is_chosen_where_there_are_gpus(two_gpus):
    assert use("cpu") == "CPU"
    assert two_gpus[1] == {"visible": []}


def test_a_gpu_too_few(two_gpus):
    with pytest.raises(
        InputError, match=r"gpu:2 is not available, TensorFlow sees 2 GPUs; use gpu:0 to"
    ):
        use("gpu:2")


def test_no_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=r"sees no GPU; .* `nvidia-smi` .* fit-unfolded\[gpu\]"):
        use("gpu")
    with pytest.raises(InputError, match="--memory-growth: applies to GPUs only"):
        use("auto", memory_growth=True)


@pytest.mark.parametrize(
    ("device", "before", "after"),
    [("cpu", "0", "-1"), ("gpu:1", None, "1"), ("gpu:1", "4,6", "6"), ("auto", "4", "4")],
)
def test_a_process_of_the_suite_gets_the_same_device(monkeypatch, device, before, after):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    variables = environment(device, memory_growth=True)
    assert variables["CUDA_VISIBLE_DEVICES"] == after
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


# gpu-check


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the entry point in this process; returns exit status, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fit-unfolded", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def small(monkeypatch):
    """One workload of few rows, two ways and one benchmark; determinism is not left behind."""
    from tensorflow.python.util import _pywrap_determinism

    load = workloads.Workload.load
    chosen = [way for way in gpu_check.WAYS if way.name in ("graph", "graph, deterministic")]
    monkeypatch.setattr(workloads, "names", lambda: ["digits-mlp", "mnist"])
    monkeypatch.setattr(
        workloads.Workload, "load", lambda *args: Data(*(part[:60] for part in load(*args)))
    )
    monkeypatch.setattr(gpu_check, "WAYS", tuple(chosen))
    tiny = cases.Case(MODELS["lesson"].cut(64), ("step",))
    monkeypatch.setattr(cases, "quick_cases", lambda: [tiny])
    yield
    _pywrap_determinism.enable(False)


def test_gpu_check_on_a_cpu(run, small, tmp_path):
    status, page, error = run("gpu-check", "--device", "cpu", "--out", tmp_path / "it.md")
    assert (status, error) == (0, "")
    assert page == f"Written: {tmp_path / 'it.md'}\n"
    assert os.listdir(tmp_path) == ["it.md"]
    text = (tmp_path / "it.md").read_text()
    assert text.startswith("# Parity and throughput on CPU\n")
    assert "nothing here was measured on a GPU" in text
    assert '`jit_compile="auto"`: no XLA, which is right without a GPU' in text
    for way in ("graph", "graph, deterministic"):
        assert f"| digits-mlp, {way} | 0 | 0 | 0 | 0 ULP | yes | CPU:0 |" in text
    assert re.search(r"\| lesson step \| [\d,]+ \| [\d,]+ \| \d+\.\d\d \| ", text)
    assert f"tensorflow {tf.__version__}" in text


def test_gpu_check_notices_what_differs(run, small, tmp_path, monkeypatch):
    class LearnsFaster(gpu_check.TRAINERS["keras_fit"]):
        def compile(self, **arguments):
            super().compile(**arguments | {"optimizer": keras.optimizers.SGD(0.2, momentum=0.9)})

    monkeypatch.setitem(gpu_check.TRAINERS, "manual_loop", LearnsFaster)
    monkeypatch.setattr(gpu_check, "WAYS", gpu_check.WAYS[:1])
    monkeypatch.setattr(gpu_check.bench, "ratios", lambda *_: Ratios([], [], []))
    status, _, _ = run("gpu-check", "--device", "cpu", "--out", tmp_path / "it.md")
    text = (tmp_path / "it.md").read_text()
    assert status == 1
    assert "**Some checks failed, see below.**" in text
    assert "- digits-mlp, graph: MISMATCH: first in batch logs, epoch 0, " in text
    assert "| **no** |" in text


def test_gpu_check_reports_what_a_device_cannot_do(run, small, tmp_path, monkeypatch):
    def fail(*args):
        raise tf.errors.UnimplementedError(None, None, "no such kernel\nand its stack")

    monkeypatch.setattr(gpu_check, "train", fail)
    monkeypatch.setattr(gpu_check.bench, "ratios", lambda *_: Ratios([], [], []))
    status, _, _ = run("gpu-check", "--device", "cpu", "--out", tmp_path / "it.md")
    text = (tmp_path / "it.md").read_text()
    assert status == 1
    assert "| digits-mlp, graph | failed | failed | failed |  | **no** |  |" in text
    assert "- digits-mlp, graph: UnimplementedError: no such kernel\n" in text


def test_losses_apart():
    def run(*losses):
        calls = [Call("on_train_batch_end", i, {"loss": loss}) for i, loss in enumerate(losses)]
        return SimpleNamespace(calls=[*calls, Call("on_epoch_end", 0, {}), *calls[:1]])

    assert gpu_check.losses_apart(run(2.0, np.nan), run(2.0, np.nan)) == 0
    assert gpu_check.losses_apart(run(2.0, 4.0), run(2.0, 5.0)) == 0.25
    assert gpu_check.losses_apart(run(2.0, 4.0), run(2.0)) == np.inf
    assert gpu_check.losses_apart(run(2.0), run(np.nan)) == np.inf


def test_a_tolerance_is_of_the_losses():
    row = gpu_check.Parity("", "", 5.0, 5.0, 1e-6, "", 1e-5, frozenset())
    assert row.within
    assert not row._replace(losses=1e-4).within
    assert not row._replace(losses=np.inf).within
    assert not row._replace(tolerance=None).within
    assert row._replace(tolerance=None, ulp=0.0).within


def test_every_way_has_a_tolerance_on_a_gpu_and_is_exact_on_a_cpu():
    for way in gpu_check.WAYS:
        assert way.tolerance("CPU") is None
        assert (way.tolerance("GPU:0 model") is None) == way.deterministic


def test_the_page_of_tolerances_is_true():
    page = (Path(__file__).parents[2] / "docs" / "tolerances.md").read_text()
    for way in gpu_check.WAYS:
        allowed = "0 ULP" if way.on_gpu is None else f"losses {way.on_gpu:g}"
        assert f"| {way.name} | {allowed} | not measured |" in page
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page):
        (path,) = Path(__file__).parents[1].rglob(file)
        assert f"def {test}(" in path.read_text(), test


without_gpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU here"
)


@without_gpu
@pytest.mark.parametrize(
    "command",
    [["compare"], ["train", "--implementation", "keras_fit"], ["bench", "--quick"], ["gpu-check"]],
    ids=lambda command: command[0],
)
def test_options_without_a_gpu(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for option, words in (
        (["--device", "gpu"], "error: --device: gpu is not available, TensorFlow sees no GPU; ch"),
        (["--device", "cpu", "--memory-growth"], "error: --memory-growth: applies to GPUs only"),
    ):
        status, page, error = run(*command, *option)
        assert (status, page) == (2, "")
        assert error.startswith(words)
        assert error.count("\n") == 1
    assert not os.listdir(tmp_path)


@without_gpu
def test_gpu_check_without_a_gpu(run, tmp_path):
    status, page, error = run("gpu-check", "--out", tmp_path / "it.md")
    assert (status, page) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith("error: --device: gpu is not available, TensorFlow sees no GPU; check")
    assert not os.listdir(tmp_path)


def test_a_report_needs_a_file(run, tmp_path):
    status, _, error = run("gpu-check", "--device", "cpu", "--out", tmp_path)
    assert status == 2
    assert f"--out: {tmp_path} is a directory; name a file." in error


# On a GPU


def few_rows():
    workload = workloads.get("digits-mlp")
    return workload, Data(*(part[:60] for part in workload.load(0))), 0, {"epochs": 1}


@needs_gpu
def test_arrays_lie_on_the_gpu():
    trainer = train("manual_loop", *few_rows()).trainer
    assert gpu_check._devices(trainer) == {"GPU:0"}


@needs_gpu
def test_gpu_check_on_a_gpu(run, small, tmp_path):
    status, _, _ = run("gpu-check", "--memory-growth", "--out", tmp_path / "it.md")
    assert status == 0
    assert (tmp_path / "it.md").read_text().startswith("# Parity and throughput on GPU:0")


@needs_gpu
def test_a_step_matches_on_a_gpu():
    seen = [train(side, *few_rows()) for side in ("keras_fit", "manual_loop")]
    assert gpu_check.losses_apart(*seen) <= 1e-5
