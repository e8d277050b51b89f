"""The command line through its entry point: exit status, both outputs, files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_fit
from fit_unfolded import cli
from fit_unfolded import compare as compare_module

ENTRY = Path(sys.executable).with_name("fit-unfolded")
TINY = ["digits-mlp", "--epochs", "2", "--batch-size", "256"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the entry point in this process; returns exit status, standard output and error."""

    def call(*arguments, columns=80):
        monkeypatch.setattr(sys, "argv", ["fit-unfolded", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


class LearnsFaster(keras_fit.Trainer):
    """A side that is not the same."""

    def compile(self, optimizer, **arguments):
        super().compile(keras.optimizers.SGD(0.2, momentum=0.9), **arguments)


def test_compare_as_a_program(tmp_path):
    """Everything on standard output, nothing of TensorFlow's, and no colour in a pipe."""
    done = subprocess.run(
        [ENTRY, "compare", *TINY], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "MATCH: 0 ULP apart" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    written = tmp_path / "results" / "compare" / "digits-mlp"
    assert sorted(os.listdir(written)) == ["compare.json", "compare.png"]


def test_compare_writes_all_figures(run, tmp_path):
    status, _, _ = run("compare", *TINY, "--seed", 5, "--output", tmp_path)
    assert status == 0
    figures = json.loads((tmp_path / "compare.json").read_text())
    assert figures["match"] is True
    assert figures["workload"] == "digits-mlp"
    assert figures["seed"] == 5
    assert figures["device"] == "CPU"
    assert figures["fit_arguments"]["batch_size"] == 256
    assert figures["versions"]["keras"] == keras.__version__
    assert {check["ulp"] for check in figures["checks"]} == {0}
    a, b = figures["sides"].values()
    assert len(a["history"]["loss"]) == 2
    assert a == b
    assert set(figures["throughput"]["timings"]) == {"keras_fit", "manual_loop"}
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_mismatch_is_shown_and_exits_1(run, tmp_path, monkeypatch):
    monkeypatch.setitem(compare_module.TRAINERS, "manual_loop", LearnsFaster)
    status, page, _ = run("compare", *TINY, "--output", tmp_path)
    assert status == 1
    assert "MISMATCH: first in batch logs, epoch 0, on_train_batch_end(1), logs[" in page
    assert "No throughput, for the work differed: turn 0, epoch 0, call" in page
    figures = json.loads((tmp_path / "compare.json").read_text())
    assert figures["match"] is False
    assert figures["throughput"] is None


@pytest.mark.parametrize("columns", [80, 120])
def test_the_page_fits_the_terminal(run, tmp_path, columns):
    _, page, _ = run("compare", *TINY, "--output", tmp_path, columns=columns)
    lines = page.splitlines()
    assert max(map(len, lines)) <= columns
    first = next(number for number, line in enumerate(lines) if "keras_fit" in line)
    fit, loop, apart = (line.split() for line in lines[first : first + 3])
    assert fit[:2] == ["1", "keras_fit"]
    assert loop == ["manual_loop", *fit[2:]]
    assert apart == ["ULP", "apart", "0", "0", "0", "0"]


def test_many_epochs_are_folded_unless_full(run, tmp_path):
    arguments = ["chapter", "--epochs", "13", "--output", tmp_path, "--side", "keras_fit"]
    _, folded, _ = run("train", *arguments)
    _, full, _ = run("train", *arguments, "--full")
    assert "3 epochs" in folded
    assert folded.count("keras_fit") == 10
    assert full.count("keras_fit") == 13


@pytest.mark.parametrize("side", ["keras_fit", "manual_loop"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_train_saves_a_model_that_goes_on(run, tmp_path, side, suffix):
    path = tmp_path / f"model{suffix}"
    status, page, _ = run("train", "--side", side, *TINY, "--save", path, "--output", tmp_path)
    assert status == 0
    assert "On the test part: accuracy" in page
    model = keras.models.load_model(path)
    model.fit(np.zeros([4, 8, 8, 1]), np.zeros(4), verbose=0)
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["side"] == side
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "train.json"])


def test_workloads_are_listed_without_tensorflow():
    script = (
        "import sys; sys.argv = ['fit-unfolded', 'workloads']\n"
        "from fit_unfolded import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["chapter", "chapter-onehot", "digits"]
    assert lines[-1] == "False False"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "digts"], "no 'digts'; did you mean digits"),
        (["compare", "--epochs", "0"], "'--epochs'"),
        (["compare", "--batch-size", "0"], "'--batch-size'"),
        (["compare", "--batch-size", "-3"], "'--batch-size'"),
        (["compare", "--seed", "-1"], "'--seed'"),
        (["compare", "--device", "tpu"], "--device: 'tpu' is none of auto, cpu, gpu, gpu:N"),
        (["compare", "--output", "{file}/out"], "--output: cannot write to"),
        (["compare", "--data", "{file}"], "--data: workload 'digits' brings its own data"),
        (["compare", "mnist", "--data", "{file}"], "cannot be read as .npz"),
        (["compare", "mnist", "--data", "{file}.none"], "--data: there is no file"),
        (["compare", "--eager", "--jit"], "--eager: cannot go with --jit"),
        (["compare", "--replicas", "0"], "'--replicas'"),
        (["compare", "--replicas", "33"], "--replicas: a batch of 32 cannot be divided among 33"),
        (["compare", "--replicas", "2", "--jit"], "--jit: Keras's own fit fails with it on sever"),
        (["compare", "--replicas", "2", "--steps-per-execution", "2"], "--steps-per-execution: "),
        (["compare", "--bogus"], "--bogus"),
        (["train", "--side", "torch"], "'--side'"),
        (["train", "--side", "keras_fit", "--save", "model.pt"], "must end in .keras or .h5"),
        (["train", "--side", "keras_fit", "--save", "{file}/m.h5"], "--save: cannot write to"),
        (["train", "--side", "keras_fit", "--save", "{directory}"], "--save: "),
        (["fit"], "'fit'"),
    ],
)
def test_unusable_input_is_one_message_and_exits_2(run, tmp_path, arguments, words):
    file = tmp_path / "file"
    file.write_text("text")
    directory = tmp_path / "directory.h5"
    directory.mkdir()
    arguments = [argument.format(file=file, directory=directory) for argument in arguments]
    status, page, error = run(*arguments)
    assert status == 2
    assert page == ""
    assert words in error
    assert "Traceback" not in error


def test_a_gpu_that_is_not_there(run):
    gpus = len(keras.distribution.list_devices("gpu"))
    status, _, error = run("compare", "--device", f"gpu:{gpus}")
    assert status == 2
    assert "--device: TensorFlow sees" in error


def test_fewer_gpus_than_replicas(run, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [f"{kind}:0"])
    status, _, error = run("compare", "--device", "gpu", "--replicas", "2")
    assert status == 2
    assert "--replicas: TensorFlow sees 1 of the 2 GPUs from 0 on; take fewer" in error


def test_unusable_input_has_no_traceback_as_a_program():
    done = subprocess.run([ENTRY, "compare", "digts"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_control_c_ends_cleanly(tmp_path):
    """Status 130, no traceback, no file; sent once training has written its first progress."""
    saved = tmp_path / "model.keras"
    # A shell's background job would be started with SIGINT ignored.
    command = [ENTRY, "train", "--side", "manual_loop", "chapter", "--epochs", "100000"]
    process = subprocess.Popen(
        [*command, "--save", saved],
        env=os.environ | {"FORCE_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        progress = ""
        deadline = time.monotonic() + 60
        while "loss" not in progress and time.monotonic() < deadline:
            progress += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        page, rest = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "loss" in progress
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert page == ""
    assert not list(tmp_path.iterdir())
