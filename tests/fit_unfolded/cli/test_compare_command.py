"""`compare`: its report, its files, its exit status."""

import json
import os
import re

import keras
import numpy as np
import pytest

import keras_fit
from fit_unfolded.comparison import compare as compare_module

TINY = ["digits-mlp", "--epochs", "2", "--batch-size", "256"]


class LearnsFaster(keras_fit.Trainer):
    """An implementation that differs."""

    def compile(self, optimizer, **arguments):
        super().compile(keras.optimizers.SGD(0.2, momentum=0.9), **arguments)


def test_compare_as_a_program(program, tmp_path):
    """The report on standard output, no lines of TensorFlow's, and no color in a pipe."""
    done = program("compare", *TINY)
    assert done.returncode == 0, done.stderr
    assert all(re.fullmatch(r"\w+: .* s", line) for line in done.stderr.splitlines()), done.stderr
    assert "MATCH: 0 ULP apart" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    written = tmp_path / "results" / "compare" / "digits-mlp"
    assert sorted(os.listdir(written)) == ["compare.json", "compare.png"]


def test_compare_writes_all_figures(run, tmp_path):
    status, page, _ = run("compare", *TINY, "--seed", 5, "--output", tmp_path, columns=120)
    assert status == 0
    assert max(map(len, page.splitlines())) <= 120
    rows = [line.split() for line in page.splitlines() if "both, 0 ULP" in line]
    assert [row[:4] for row in rows] == [["1", "both,", "0", "ULP"], ["2", "both,", "0", "ULP"]]
    figures = json.loads((tmp_path / "compare.json").read_text())
    assert figures["match"] is True
    assert figures["workload"] == "digits-mlp"
    assert figures["seed"] == 5
    assert figures["device"] == "CPU"
    assert figures["fit_arguments"]["batch_size"] == 256
    assert figures["versions"]["keras"] == keras.__version__
    assert {check["ulp"] for check in figures["checks"]} == {0}
    a, b = figures["implementations"].values()
    assert len(a["history"]["loss"]) == 2
    assert a == b
    assert set(figures["throughput"]["timings"]) == {"keras_fit", "manual_loop"}
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_mismatch_is_shown_and_exits_1(run, tmp_path, monkeypatch):
    monkeypatch.setitem(compare_module.TRAINERS, "manual_loop", LearnsFaster)
    status, page, _ = run("compare", *TINY, "--output", tmp_path)
    assert status == 1
    assert "MISMATCH: first in batch logs, epoch 0, on_train_batch_end(1), logs[" in page
    assert "No throughput: the losses differ, turn 0, epoch 0, call" in page
    figures = json.loads((tmp_path / "compare.json").read_text())
    assert figures["match"] is False
    assert figures["throughput"] is None


@pytest.mark.parametrize("implementation", ["keras_fit", "manual_loop"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_train_saves_a_model_that_trains_on(run, tmp_path, implementation, suffix):
    path = tmp_path / f"model{suffix}"
    options = ["--implementation", implementation, "--save", path, "--output", tmp_path]
    status, page, _ = run("train", *TINY, *options)
    assert status == 0
    assert "Test set: accuracy" in page
    model = keras.models.load_model(path)
    model.fit(np.zeros([4, 8, 8, 1]), np.zeros(4), verbose=0)
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["implementation"] == implementation
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "train.json"])
