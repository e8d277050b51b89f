"""compare, train, explain and bench with a file in place of a workload."""

import json
import re

import pytest

FILE = '''
"""Noise, weighted."""
import keras
import numpy as np
import tensorflow as tf

KIND = {kind!r}


def build():
    a, b = keras.Input([3], name="a"), keras.Input([3], name="b")
    dropped = keras.layers.Dropout(0.5)(keras.layers.add([a, b]))
    return keras.Model({{"a": a, "b": b}}, keras.layers.Dense(1)(dropped))


def data():
    rng = np.random.default_rng(0)
    x = {{name: rng.normal(size=[28, 3]).astype("float32") for name in "ab"}}
    y, weights = np.ones([28, 1], "float32"), rng.random(28).astype("float32")
    if KIND == "arrays":
        return {{"x": x, "y": y, "sample_weight": weights, "validation_data": (x, y)}}
    return {{"x": tf.data.Dataset.from_tensor_slices((x, y, weights)).shuffle(28).batch(14)}}


COMPILE = {{"optimizer": "adam", "loss": "mse", "run_eagerly": {eager}}}
FIT = dict(epochs=2, callbacks=[keras.callbacks.EarlyStopping("loss", patience=5)], verbose=1)
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def call(kind="arrays", eager=True, added=""):
        path = tmp_path / "mine.py"
        path.write_text(FILE.format(kind=kind, eager=eager) + added)
        return path

    return call


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_compare_with_a_file(run, write, tmp_path, kind):
    status, page, error = run("compare", write(kind), "--output", tmp_path / "out", columns=200)
    assert (status, error) == (0, ""), page
    assert "mine.py: Noise, weighted.\n" in page
    assert "callbacks=['EarlyStopping']" in page
    assert "MATCH: 0 ULP apart" in page
    figures = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert figures["match"] is True
    (a, b) = (figures["implementations"][side]["history"] for side in ("keras_fit", "manual_loop"))
    assert a == b
    assert ("val_loss" in a) == (kind == "arrays")
    assert figures["throughput"] is not None


def test_train_with_a_file(run, write):
    status, page, error = run("train", write(), "--epochs", "1", "--batch-size", "14")
    assert (status, error) == (0, "")
    assert "\nValidation data: loss " in page


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_explain_with_a_file(run, write, tmp_path, kind):
    status, page, error = run("explain", write(kind), "--html", tmp_path / "page.html")
    assert (status, error) == (0, "")
    assert "EQUAL" in page
    assert "mine.py" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "added", "words"),
    [
        (["compare"], "\nimport nothing_of_this_name\n", "importing it raises ModuleNotFoundErr"),
        (["train"], "\nCOMPILE['loss'] = 'msee'\n", "keras_fit, on the first batch, raises Value"),
        (["explain"], "\ndef build(): pass\n", r"build\(\) returns None"),
        (["bench"], "\ndef data(): return {'x': np.random.rand(5)}\n", r"data\(\) returns another"),
        (
            ["explain"],
            "\ndata = lambda d=data: {'x': {k: v[:4] for k, v in d()['x'].items()}, "
            "'y': d()['y'][:4]}\n",
            r"data\(\) returns too few rows; use at least 5",
        ),
        (["explain", "--graph"], "", "--graph: .* needs x and y as one array each"),
        (["compare", "--batch-size", "4"], "\nKIND = 'dataset'\n", "--batch-size: .* brings its"),
        (["compare", "--replicas", "64"], "", "--replicas: a batch of 32 cannot be divided"),
    ],
)
def test_a_file_that_cannot_be_used(run, write, tmp_path, monkeypatch, arguments, added, words):
    monkeypatch.chdir(tmp_path)
    path = write(added=added)
    status, page, error = run(*arguments, path)
    assert (status, page) == (2, "")
    assert re.match(rf"error: (\S+: )?{words}", error), error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py"]


def test_a_file_is_refused_before_tensorflow_is_imported(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fit_unfolded.cli.job.import_tensorflow", pytest.fail)
    missing = tmp_path / "none.py"
    for command in ("compare", "train", "explain", "bench"):
        status, _, error = run(command, missing)
        assert (status, error) == (2, f"error: WORKLOAD: there is no file {missing}.\n")
