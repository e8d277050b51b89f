"""`compare --ways`: the table, its values, its exit status."""

import functools
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_fit
from fit_unfolded.comparison import ways, ways_table

ROOT = Path(__file__).parents[3]

FILE = '''
"""Noise, weighted."""
import keras
import numpy as np
import tensorflow as tf


def build():
    a, b = keras.Input([4, 4, 2], name="a"), keras.Input([4, 4, 2], name="b")
    hidden = keras.layers.Dropout(0.5)(keras.layers.add([a, b]))
    {normalized}
    return keras.Model({{"a": a, "b": b}}, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))


def data():
    rng = np.random.default_rng(0)
    x = {{name: rng.normal(size=[34, 4, 4, 2]) for name in "ab"}}
    y, weights = rng.normal(size=[34, 1]).astype("float32"), rng.random(34).astype("float32")
    if {dataset}:
        return {{"x": tf.data.Dataset.from_tensor_slices((x, y, weights)).shuffle(34).batch(12)}}
    return {{"x": x, "y": y, "sample_weight": weights, "validation_data": (x, y)}}


COMPILE = {{
    "optimizer": "adam", "loss": "mse", "weighted_metrics": ["mae"], "run_eagerly": {eager}
}}
FIT = dict(epochs=2, callbacks=[keras.callbacks.EarlyStopping("loss", patience=5)])
if not {dataset}:
    FIT["batch_size"] = 12
'''
NORMALIZED = "hidden = keras.layers.BatchNormalization()(hidden)"


class LearnsFaster(keras_fit.Trainer):
    """A way that differs."""

    def compile(self, optimizer, **arguments):
        super().compile(keras.optimizers.SGD(0.2), **arguments)


@pytest.fixture
def timed_briefly(monkeypatch):
    """One turn of one epoch of two batches."""
    monkeypatch.setattr(ways_table, "TURNS", 1)
    brief = functools.partial(ways_table.measure, epochs_per_turn=2, batches=2)
    monkeypatch.setattr(ways_table, "measure", brief)


@pytest.fixture
def compare_ways(run, tmp_path, monkeypatch, timed_briefly):
    """Exit status, standard output and the figures of each way."""
    monkeypatch.syspath_prepend(tmp_path)

    def call(normalized="", eager=False, dataset=False):
        path = tmp_path / "mine.py"
        path.write_text(FILE.format(normalized=normalized, eager=eager, dataset=dataset))
        status, page, error = run("compare", path, "--ways", "--output", tmp_path)
        assert error == ""
        return status, page, json.loads((tmp_path / "ways.json").read_text())["ways"]

    return call


def test_the_table_of_all_four_ways(compare_ways):
    """As graphs; with a smaller last batch, train_on_batch traces more."""
    status, page, found = compare_ways(NORMALIZED)
    assert status == 0
    assert max(map(len, page.splitlines())) <= 80
    for way, figures in found.items():
        shown = re.search(rf"(?m)^ {way} +([\d,]+) +([\d,]+) +([\d.]+) +(\d+) +(\d+) ", page)
        assert shown, way
        ulp, speed, _, graphs, lines = (float(text.replace(",", "")) for text in shown.groups())
        assert ulp == figures["ulp"]
        assert speed == round(figures["samples_per_second"])
        assert (graphs, lines) == (figures["graphs"], figures["lines"])
    assert list(found) == ["fit", "custom step", "on batch", "manual loop"]
    fit, step, on_batch, loop = found.values()
    assert fit["ulp"] == step["ulp"] == loop["ulp"] == 0
    assert fit["history"] == step["history"] == loop["history"]
    assert fit["graphs"] == step["graphs"] < on_batch["graphs"]
    for name, values in on_batch["history"].items():
        np.testing.assert_allclose(values, fit["history"][name], rtol=1e-5)
    assert re.search("MATCH: custom step, (on batch, )?manual loop: 0 ULP from fit in all ", page)


def test_a_way_that_differs_is_not_timed_and_exits_1(compare_ways, monkeypatch):
    """In Python, on a dataset that shuffles anew in each epoch: the other ways are equal."""
    wrong = ways.WAYS["custom step"]._replace(trainer=LearnsFaster)
    monkeypatch.setitem(ways.WAYS, "custom step", wrong)
    status, page, found = compare_ways(eager=True, dataset=True)
    assert status == 1
    assert "custom step differs, first in batch logs, epoch 0, on_train_batch_end(1)" in page
    assert "MATCH: on batch, manual loop: 0 ULP from fit in all " in page
    assert re.search(r"(?m)^ custom step +[\d,inf]+ +- +- ", page)
    wrong_figures = found.pop("custom step")
    assert wrong_figures["match"] is False
    assert "speedup" not in wrong_figures
    for figures in found.values():
        assert (figures["ulp"], figures["graphs"]) == (0, 0)
        assert figures["speedup"]["value"] > 0


def test_a_model_with_a_step_of_its_own_keeps_it(run, tmp_path, timed_briefly):
    """That of this file takes no labels: train_on_batch hands it a tuple all the same."""
    example = ROOT / "examples" / "vae.py"
    options = ["--ways", "--eager", "--epochs", 1, "--output", tmp_path]
    status, page, _ = run("compare", example, *options)
    assert status == 0
    assert "The model has steps of its own, which all ways run" in page
    assert "Without on batch: " in page
    assert "in train_step" in page
    assert "MATCH: manual loop: 0 ULP from fit in all " in page
    found = json.loads((tmp_path / "ways.json").read_text())["ways"]
    assert list(found) == ["fit", "manual loop"]


def test_train_on_batch_gives_a_step_a_tuple_also_without_labels():
    class Own(keras.Sequential):
        def train_step(self, data):
            given.append(type(data))
            return {"loss": 0.0}

    given = []
    model = Own([keras.layers.Dense(1)])
    model.compile(run_eagerly=True)
    x = np.zeros([2, 1], "float32")
    model.fit(x, verbose=0)
    model.train_on_batch(x)
    assert not issubclass(given[0], tuple)
    assert given[1] is tuple
    assert list(ways.ways_of(model)) == ["fit", "on batch", "manual loop"]
    assert ways.ways_of(keras.Sequential()) == ways.WAYS


@pytest.mark.parametrize("fit", [{"steps_per_epoch": 2}, {"shuffle": "batch"}])
def test_arguments_that_the_loop_over_batches_lacks_are_refused(fit):
    (name,) = fit
    with pytest.raises(ways.InputError, match=rf"--ways: .* does not take {name}=.*leave it out"):
        ways.check_arguments(fit)
    ways.check_arguments({"shuffle": False, "epochs": 2, "callbacks": []})


def test_the_table_in_the_docs_is_that_of_these_pages():
    table = (ROOT / "docs" / "ways.md").read_text()
    for name, way in ways.WAYS.items():
        (lines,) = re.findall(rf"(?m)^ {name} .* (\d+)  +[a-z]", table)
        assert int(lines) == ways_table.lines_of_code(way.page)


def test_lines_of_code_are_counted_without_comments_and_docstrings(tmp_path):
    path = tmp_path / "page.py"
    path.write_text('"""One.\n\nTwo."""\n\nx = [\n    1,  # one\n\n]\n# no\ny = """a\nb"""\n')
    assert ways_table.lines_of_code(path) == 5
