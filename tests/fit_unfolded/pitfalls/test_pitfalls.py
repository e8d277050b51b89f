"""Each known mistake is caught by the comparison, and the right loop is not."""

import inspect
import sys
import urllib.parse

import numpy as np
import pytest

from fit_unfolded import cli, pitfalls
from fit_unfolded.common.errors import InputError
from fit_unfolded.pitfalls import experiment, run
from fit_unfolded.pitfalls.experiment import FIT, RIGHT, WRONG, measure
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, blobs, classifier
from manual_loop.distribution import single_device

NAMES = pitfalls.names()
ASKED_FOR = 24  # the mistakes that the list must hold at least

# What each does, beyond being caught: (metric, "more" or "less" than fit at the end).
WORSE = {
    "batchnorm-without-training": ("loss", "more"),
    "broadcast-labels": ("loss", "more"),
    "class-weight-in-validation": ("val_loss", "more"),
    "dropout-without-training": ("loss", "less"),
    "layer-built-in-step": ("loss", "more"),
    "logits-as-probabilities": ("loss", "more"),
    "loss-not-scaled": ("loss", "more"),
    "metrics-not-reset": ("loss", "more"),
    "optimizer-not-saved": ("loss", "more"),
    "regularizers-left-out": ("loss", "less"),
    "shuffled-split": ("val_loss", "less"),
    "small-shuffle-buffer": ("val_loss", "more"),
}
# Where the wrong loop learns the very same weights, and only shows other figures or costs more.
SAME_WEIGHTS = [
    "class-weight-in-validation",
    "mean-of-batches",
    "metrics-not-reset",
    "no-graph",
    "retraced-for-numbers",
    "retraced-for-shapes",
    "tape-around-optimizer",
]
MEASURED = {}


def measured(name):
    """The result of a pitfall, measured once for all tests."""
    if name not in MEASURED:
        MEASURED[name] = measure(pitfalls.get(name))
    return MEASURED[name]


def test_the_list_is_complete():
    assert len(NAMES) >= ASKED_FOR
    assert set(WORSE) | set(SAME_WEIGHTS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_loop_is_caught_and_the_right_one_is_equal_to_fit(name):
    result = measured(name)
    assert result.caught
    if result.pitfall.equal:
        assert result.right.match, result.right.verdict
    assert not result.counts_differ(RIGHT), result.counts


@pytest.mark.parametrize("name", WORSE)
def test_the_effect_goes_the_way_that_the_paragraph_says(name):
    metric, way = WORSE[name]
    last = measured(name).apart(metric)[-1]
    assert last > 0 if way == "more" else last < 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one-permutation"])
def test_which_pitfalls_change_the_weights(name):
    assert (measured(name).weights_apart() == 0) == (name in SAME_WEIGHTS)


def test_what_is_counted():
    def counts(name):
        return measured(name).counts

    assert counts("no-graph")[WRONG] == 96  # 8 epochs of 12 batches
    assert counts("retraced-for-numbers") == {FIT: 1, RIGHT: 1, WRONG: 8}  # 4 of 2
    assert counts("retraced-for-shapes") == {FIT: 1, RIGHT: 1, WRONG: 6}  # lengths
    assert counts("one-permutation") == {FIT: 5, RIGHT: 5, WRONG: 1}  # epochs
    assert counts("tape-around-optimizer") == {
        FIT: 0,
        RIGHT: 0,
        WRONG: 400,
    }  # 40 batches, 10 weights


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_what_runs(name):
    edit = pitfalls.get(name).edit
    right = edit.find()
    shown = [line.strip() for line in edit.wrong.strip().splitlines() if line.strip()]
    source = inspect.getsource(edit.wrong_function()).splitlines()
    source = [line.strip() for line in source if line.strip()]
    assert any(source[at : at + len(shown)] == shown for at in range(len(source)))
    module = right.file.removesuffix(".py").replace("/", ".")
    assert module.startswith("manual_loop.")
    lines = inspect.getsource(sys.modules[module]).splitlines()
    assert lines[right.first - 1].strip() == right.text.splitlines()[0].strip()


@pytest.mark.parametrize("name", NAMES)
def test_every_pitfall_says_where_keras_does_it_and_where_people_met_it(name):
    pitfall = pitfalls.get(name)
    place = pitfall.keras.find()
    assert place.file.startswith("keras/src/")
    assert place.first > 1
    assert 100 < len(pitfall.paragraph) < 700
    if pitfall.thread is not None:
        address = urllib.parse.urlsplit(pitfall.thread.url)
        assert address.scheme == "https"
        assert address.path.count("/") >= 2
        assert pitfall.thread.says.endswith(".")


def test_the_right_piece_is_back_after_the_wrong_one():
    before = single_device.train_step
    edit = pitfalls.get("regularizers-left-out").edit
    with edit.applied():
        assert single_device.train_step is not before
    assert single_device.train_step is before


@pytest.mark.parametrize("right", ["loss = 0", "return model.get_metrics"])
def test_an_edit_that_no_longer_fits_the_loop_is_an_error(right):
    edit = Edit("manual_loop.distribution.single_device:train_step", right=right, wrong="pass")
    with pytest.raises(LookupError, match="train_step"):
        edit.find()


def test_a_place_that_keras_no_longer_has_is_an_error():
    place = Place("keras.src.trainers.trainer:Trainer.compute_loss", "no such line")
    with pytest.raises(LookupError, match="no such line"):
        place.find()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_layer_built_in_a_graph_is_refused(jit_compile):
    case = experiment.Case(
        data=blobs(),
        build=classifier,
        compile=lambda: {"optimizer": "sgd", "loss": SPARSE, "jit_compile": jit_compile},
        fit={"epochs": 1, "batch_size": 11},
    )
    layer = "y_pred = keras.layers.Dense(3)(forward(model, x, training=True))"
    right = "y_pred = forward(model, x, training=True)"
    edit = Edit("manual_loop.distribution.single_device:train_step", right=right, wrong=layer)
    with edit.applied(), pytest.raises(ValueError, match="only supports singleton"):
        experiment.train_case("manual_loop", case)


@pytest.fixture
def call(monkeypatch, capsys):
    """The command, by its entry point: exit status, standard output and error."""

    def call(*arguments, columns=80):
        monkeypatch.setattr(sys, "argv", ["fit-unfolded", "pitfalls", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    monkeypatch.setattr(run, "measure", lambda pitfall, each_run: measured(pitfall.name))
    return call


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(call, columns):
    status, page, error = call(columns=columns)
    assert status == 0
    assert error == ""
    assert max(map(len, page.splitlines())) <= columns
    assert all(any(line.split()[:1] == [name] for line in page.splitlines()) for name in NAMES)
    text = " ".join(page.split())
    assert f"Detected: {len(NAMES)} of {len(NAMES)}." in text
    assert f"equals fit (0 ULP) in {len(NAMES) - 1} of {len(NAMES) - 1} seeded experiments" in text


@pytest.mark.parametrize("name", NAMES)
def test_one_pitfall_in_full(call, tmp_path, name):
    status, page, error = call(name, "--output", tmp_path)
    assert status == 0
    assert error == ""
    pitfall = pitfalls.get(name)
    text = " ".join(page.split())
    assert " ".join(pitfall.paragraph.split()) in text
    for piece, sign in ((pitfall.edit.right, "-"), (pitfall.edit.wrong, "+")):
        for line in piece.strip().splitlines():
            assert f"  {sign} {line}".rstrip() in page
    assert pitfall.keras.find().file in page
    assert (pitfall.thread.url if pitfall.thread else "No public thread was found.") in page
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_pitfall_that_is_not_caught_exits_1(call, monkeypatch):
    result = measured("mean-of-batches")
    right = experiment.Result(**{**vars(result), "wrong": result.right})
    assert not right.caught
    monkeypatch.setattr(run, "measure", lambda pitfall, each_run: right)
    monkeypatch.setattr(run, "names", lambda: ["mean-of-batches"])
    status, page, _ = call()
    assert status == 1
    assert "Detected: 0 of 1." in page
    assert "Not detected: mean-of-batches." in " ".join(page.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broadcast"], "did you mean broadcast-labels"),
        (["xyz"], "`fit-unfolded pitfalls` lists all"),
        (["no-graph", "--output", "{file}"], "--output: cannot write to"),
        (["--output", "somewhere"], "--output: "),
    ],
)
def test_unusable_input_is_one_line_and_exits_2(call, tmp_path, arguments, words):
    file = tmp_path / "file"
    file.write_text("text")
    status, page, error = call(*(argument.format(file=file) for argument in arguments))
    assert status == 2
    assert page == ""
    assert error.count("\n") == 1
    assert words in error


def test_names_are_checked_before_anything_is_imported():
    with pytest.raises(InputError, match="no-graph"):
        pitfalls.check("no-graf")


def test_figures_that_are_not_finite():
    result = measured("gradients-not-unscaled")
    assert np.isnan(result.apart("loss")[-1])
    assert result.ulp(WRONG, "loss")[-1] == np.inf
