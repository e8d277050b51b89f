"""The corpus of training loops agrees with its table, and docs/check.md with both.

Nothing is trained here: `make corpus` does that.
"""

import ast
import inspect
import os
import re
import time

import corpus
import corpus_manifest
import keras
import pytest
from platforms import needs_fork

from fit_unfolded.workloads import user_file

LOOPS = corpus_manifest.loops()
# As in docs/check.md.
STAGES = {"initial_weights", "data", "forward", "loss", "gradients", "update"}
STAGES |= {"metrics", "epoch", "validation"}


@pytest.fixture(autouse=True)
def dtype_policy():
    """A file may set the global policy when it is imported."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def test_there_are_enough_loops():
    mistakes = [mistake for mistake in LOOPS.values() if mistake and mistake.stages]
    assert len(corpus_manifest.RIGHT) >= 20
    assert len(mistakes) >= 40
    assert {mistake.twin for mistake in corpus_manifest.MISTAKES} <= set(corpus_manifest.RIGHT)


def test_every_file_keeps_the_contract():
    for name in corpus_manifest.RIGHT:
        file = user_file.load(corpus_manifest.FOLDER / f"{name}.py")
        model = file.build()
        assert model.built, name
        assert not model.compiled, name
        given = user_file.read_data(file, seed=0) | file.fit
        assert "loss" in file.compile(), name
        _, *parameters = inspect.signature(file.train).parameters
        assert set(parameters) <= set(given), name


def test_every_wrong_loop_is_a_file_that_imports(tmp_path):
    for name, mistake in LOOPS.items():
        if mistake is not None:
            path = tmp_path / f"{mistake.twin}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(corpus_manifest.source(name, mistake))
            assert user_file.load(path).train is not None
            right = corpus_manifest.source(mistake.twin, None)
            assert ast.dump(ast.parse(path.read_text())) != ast.dump(ast.parse(right)), name


def test_text_that_is_not_there_is_named():
    mistake = corpus_manifest.MISTAKES[0]._replace(right="no such line")
    with pytest.raises(LookupError, match=r"stands 0 times"):
        corpus_manifest.source("name", mistake)


def test_the_table_uses_the_names_of_stages_and_pitfalls():
    for name, mistake in LOOPS.items():
        if mistake is not None:
            assert STAGES.issuperset(mistake.stages), name
            assert (mistake.name in corpus.PITFALLS) == mistake.in_catalogue, name
            assert corpus.PITFALLS.issuperset(mistake.also), name
            assert mistake.why or not (mistake.stages[1:] or mistake.also), name


def test_the_page_is_about_this_corpus():
    for name, loops in corpus_manifest.sets().items():
        _, text, _ = corpus.parts(name)
        assert corpus.summary(loops) in text
        named = set(re.findall(r"^\| `?([^`|]+)`? \|", text, re.MULTILINE))
        assert {mistake.name for mistake in loops.values() if mistake} <= named


# How an answer is judged ----------------------------------------------------------------------

KNOWN = next(m for m in corpus_manifest.MISTAKES if m.name == "mean_over_weights")
UNKNOWN = next(m for m in corpus_manifest.MISTAKES if m.name == "another loss")
COST = next(m for m in corpus_manifest.MISTAKES if m.name == "no_graph")


@pytest.mark.parametrize(
    ("mistake", "answer", "fault"),
    [
        (None, ("equal",), ""),
        (None, ("undecided",), "false alarm"),
        (None, ("different", "loss"), "false alarm"),
        (KNOWN, ("different", "loss", ["mean_over_weights"]), ""),
        (KNOWN, ("rounding",), "not detected"),
        (KNOWN, ("undecided",), "not detected"),
        (KNOWN, ("different", "data", ["mean_over_weights"]), "stage should be loss"),
        (KNOWN, ("different", "loss"), "cause should be mean_over_weights"),
        (
            KNOWN,
            ("different", "loss", ["class_weight_twice", "mean_over_weights"]),
            "cause should be mean_over_weights",
        ),
        (UNKNOWN, ("different", "loss"), ""),
        (UNKNOWN, ("different", "loss", ["words_of_its_own"]), ""),
        (UNKNOWN, ("different", "loss", ["mean_over_weights"]), "cause should be none"),
        (COST, ("equal", None, [], ["no_graph"]), ""),
        (COST, ("equal", None, [], []), "cost not named"),
        (COST, ("different", "loss", [], ["no_graph"]), "false alarm"),
        (KNOWN, ("failed",), "failed: "),
    ],
)
def test_an_answer_is_judged(mistake, answer, fault):
    assert corpus.faults(mistake, corpus.Answer(*answer)) == fault


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_a_check_that_crashes_or_hangs_is_one_failure():
    assert "exit code 3" in corpus.in_child(os_exit, 20).error
    assert "not done after" in corpus.in_child(wait, 0.1).error
    assert corpus.in_child(raises, 20).error == "KeyError: 'x'"


def os_exit():
    os._exit(3)


def wait():
    time.sleep(60)


def raises():
    raise KeyError("x")
