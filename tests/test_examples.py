"""The files in `examples/`: one right loop, and three that differ from it by one mistake.

`vae.py` has no loop of its own: `tests/fit_unfolded/explain/test_explain.py` trains it.
"""

import difflib
from pathlib import Path

import pytest

import keras_fit
from fit_unfolded.workloads import user_file

EXAMPLES = Path(__file__).parents[1] / "examples"
BROKEN = ["dropout_without_training", "mean_of_batches", "metrics_not_reset"]


def code(name):
    """The lines after the docstring."""
    return (EXAMPLES / f"{name}.py").read_text().split('"""\n', 2)[-1].splitlines()


@pytest.fixture(scope="module")
def history_of_fit():
    file = user_file.load(EXAMPLES / "blobs.py")
    given = user_file.read_data(file, seed=1)
    trainer = keras_fit.Trainer(user_file.build_model(file, seed=1))
    trainer.compile(**file.compile())
    return trainer.fit(**given, **file.fit, verbose=0).history


def history_of_loop(name):
    file = user_file.load(EXAMPLES / f"{name}.py")
    given = user_file.read_data(file, seed=1)
    model = user_file.build_model(file, seed=1)
    fit = {name: file.fit[name] for name in ("epochs", "batch_size")}
    return file.train(model, **given, **fit)


def test_the_right_loop_is_equal_to_fit(history_of_fit):
    assert history_of_loop("blobs") == history_of_fit


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_changes_the_history(history_of_fit, name):
    assert history_of_loop(name) != history_of_fit


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_differs_from_the_right_one_by_one_line(name):
    lines = [line for line in difflib.ndiff(code("blobs"), code(name)) if line[0] in "+-"]
    assert [line[0] for line in lines] in (["-", "+"], ["-"])


def test_all_examples_are_tested():
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(["blobs", "vae", *BROKEN])
