"""Each known mistake is caught by the comparison, and the right loop is not."""

import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import urllib.parse
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from fit_unfolded import cli, pitfalls
from fit_unfolded.common.errors import InputError
from fit_unfolded.pitfalls import experiment, plot, run
from fit_unfolded.pitfalls.experiment import FIT, RIGHT, WRONG, measure
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, blobs, classifier
from manual_loop.distribution import single_device

SUPPORT = Path(__file__).parents[2] / "support"
NAMES = pitfalls.names()
ASKED_FOR = 51  # the mistakes that the list must hold at least

# Symptoms that say which way a metric goes, at the end of training.
WAYS = {
    "loss too low": ("loss", "less"),
    "loss too high, or it falls too slowly": ("loss", "more"),
    "val_loss too low": ("val_loss", "less"),
    "val_loss too high": ("val_loss", "more"),
}
SYMPTOM = {name: pitfalls.get(name).symptom for name in NAMES}
# Where the wrong loop learns the very same weights, and only shows other figures or costs more.
SAME_WEIGHTS = [
    "class-weight-in-validation",
    "clock-counts-tracing",
    "clock-does-not-wait",
    "loop-in-one-function",
    "mean-of-batches",
    "metrics-after-update",
    "metrics-not-reset",
    "no-graph",
    "numbers-read-each-batch",
    "predict-in-a-loop",
    "retraced-for-numbers",
    "retraced-for-shapes",
    "tape-around-optimizer",
    "tensors-kept",
]
REFERENCES = {}
PICTURES = {}
MEASURED = {}


def measured(name):
    """The result of a pitfall, measured once for all tests."""
    if name not in MEASURED:
        pitfall = pitfalls.get(name)
        alone = pitfall.replicas > 1
        MEASURED[name] = (
            measured_alone(pitfall) if alone else measure(pitfall, references=REFERENCES)
        )
    return MEASURED[name]


def measured_alone(pitfall):
    """In a process of its own, for a CPU can be divided into several only before it is used."""
    script = SUPPORT / "pitfall_alone.py"
    process = subprocess.run(
        [sys.executable, script, pitfall.name], capture_output=True, check=True
    )
    return experiment.Result(pitfall=pitfall, **pickle.loads(process.stdout))


def test_the_list_is_complete():
    assert len(NAMES) >= ASKED_FOR
    assert set(SAME_WEIGHTS) <= set(NAMES)
    assert set(SYMPTOM.values()) == set(pitfalls.SYMPTOMS)


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_loop_is_caught_and_the_right_one_is_equal_to_fit(name):
    result = measured(name)
    assert result.caught
    if result.pitfall.equal:
        assert result.right.match, result.right.verdict
    assert not result.counts_differ(RIGHT), result.counts


@pytest.mark.parametrize("name", [name for name in NAMES if SYMPTOM[name] in WAYS])
def test_the_effect_goes_the_way_that_the_symptom_says(name):
    metric, way = WAYS[SYMPTOM[name]]
    last = measured(name).apart(metric)[-1]
    assert last > 0 if way == "more" else last < 0


@pytest.mark.parametrize("name", [name for name in NAMES if SYMPTOM[name] not in WAYS])
def test_the_other_symptoms(name):
    result = measured(name)
    losses = [result.apart(m) for m in ("loss", "val_loss") if m in result.runs[FIT].history]
    differ = bool(np.any(losses))
    if SYMPTOM[name] == "loss is NaN":
        assert np.isnan(losses).all()
    elif SYMPTOM[name] == "loss or val_loss off, up or down":
        assert differ
    elif result.pitfall.equal and name != "predict-in-a-loop":  # whose losses agree to rounding
        assert not differ
    assert (pitfalls.SYMPTOMS.index(SYMPTOM[name]) >= pitfalls.COSTS) == bool(
        result.counts or result.alive.get(FIT)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one-permutation"])
def test_which_pitfalls_change_the_weights(name):
    assert (measured(name).weights_apart() == 0) == (name in SAME_WEIGHTS)


def test_what_is_counted():
    def counts(name):
        return measured(name).counts

    assert counts("no-graph") == {FIT: 1, RIGHT: 1, WRONG: 12}  # 4 epochs of 3 batches
    assert counts("retraced-for-numbers") == {FIT: 1, RIGHT: 1, WRONG: 12}
    assert counts("loop-in-one-function") == {FIT: 1, RIGHT: 1, WRONG: 8}  # batches
    assert counts("clock-counts-tracing") == {FIT: 0, RIGHT: 0, WRONG: 1}  # epoch
    assert counts("predict-in-a-loop") == {FIT: 0, RIGHT: 0, WRONG: 8}  # 2 epochs of 4 batches
    assert counts("numbers-read-each-batch") == {FIT: 0, RIGHT: 0, WRONG: 20}  # 10 batches, 2 logs
    under_way = counts("clock-does-not-wait")
    assert under_way[FIT] == under_way[RIGHT] == 0 < under_way[WRONG]
    leaked = counts("validation-rows-leak")
    assert leaked[FIT] == leaked[RIGHT] == 0 < leaked[WRONG]
    assert counts("retraced-for-shapes") == {FIT: 1, RIGHT: 1, WRONG: 6}  # lengths
    assert counts("one-permutation") == {FIT: 5, RIGHT: 5, WRONG: 1}  # epochs
    assert counts("tape-around-optimizer") == {
        FIT: 0,
        RIGHT: 0,
        WRONG: 200,
    }  # 20 batches, 10 weights


def test_what_stays_in_memory():
    result = measured("tensors-kept")
    assert result.growth(FIT) == result.growth(RIGHT) == (0, 0)
    grown = result.growth(WRONG)
    assert grown.tensors == 2 * 4 * 3  # epochs 3 and 4 of 4 batches: loss, predictions, logits
    assert grown.bytes == 2 * 4 * (4 + 2 * 12 * 3 * 4)
    assert result.caught


def test_pitfalls_of_one_case_share_its_runs():
    first, second = measured("regularizers-twice"), measured("regularizers-left-out")
    assert first.pitfall.case() is second.pitfall.case()
    assert first.runs[FIT] is second.runs[FIT]
    assert first.runs[RIGHT] is second.runs[RIGHT]
    assert first.runs[WRONG] is not second.runs[WRONG]


@pytest.mark.parametrize("name", ["clock-counts-tracing", "clock-does-not-wait"])
def test_a_wrong_clock_tells_another_time(name):
    result = measured(name)
    slower = result.slower()
    assert slower > 2 if name == "clock-counts-tracing" else slower < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_what_runs(name):
    edit = pitfalls.get(name).edit
    right = edit.find()
    shown = [line.strip() for line in edit.wrong.strip().splitlines() if line.strip()]
    source = inspect.getsource(edit.wrong_function()).splitlines()
    source = [line.strip() for line in source if line.strip()]
    assert any(source[at : at + len(shown)] == shown for at in range(len(source)))
    module = right.file.removesuffix(".py").replace("/", ".")
    assert module.startswith("fit_unfolded.bench." if "clock" in name else "manual_loop.")
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

    monkeypatch.setattr(run, "measure", lambda pitfall, *_: measured(pitfall.name))
    return call


@pytest.mark.parametrize("columns", [80, 120])
def test_the_index_fits_the_terminal(call, columns):
    status, page, error = call(columns=columns)
    assert status == 0
    assert error == ""
    assert max(map(len, page.splitlines())) <= columns
    first_words = [line.split()[:1] for line in page.splitlines()]
    assert all(first_words.count([name]) == 1 for name in NAMES)
    lines = page.splitlines()
    for name in NAMES:  # under its symptom
        at = first_words.index([name])
        above = [line for line in lines[:at] if line in pitfalls.SYMPTOMS]
        assert above[-1] == SYMPTOM[name]
    assert lines.index(above[0]) > lines.index(next(line for line in lines if "val_loss:" in line))
    text = " ".join(page.split())
    assert f"Detected: {len(NAMES)} of {len(NAMES)}." in text
    assert f"equals fit (0 ULP) in {len(NAMES) - 1} of {len(NAMES) - 1} seeded experiments" in text


def picture(name):
    """What decides which lines of `plot` draw the picture of a pitfall."""
    result = measured(name)
    history = result.runs[FIT].history
    apart = result.apart("loss")
    return (
        "val_loss" in history,
        bool(result.counts),
        bool(result.alive.get(FIT)),
        bool(np.isfinite(apart).all()),
        not np.any(np.nan_to_num(apart, nan=1.0)),
        max(result.runs[WRONG].history["loss"]) > plot.LOGARITHMIC_FROM * min(history["loss"]),
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_pitfall_in_full(call, monkeypatch, tmp_path, name):
    drawn = PICTURES.setdefault(picture(name), name) == name  # one picture of each kind
    if not drawn:
        monkeypatch.setattr(plot, "draw", lambda path, result: path.touch())
    status, page, error = call(name, "--output", tmp_path)
    assert status == 0
    assert error == ""
    pitfall = pitfalls.get(name)
    text = " ".join(page.split())
    assert " ".join(pitfall.paragraph.split()) in text
    shown = re.search(r"(?s)- wrong, \+ right: .*?\n(.*?)\n\n *\n", page)[1].splitlines()
    for piece, signs in ((pitfall.edit.wrong, " -"), (pitfall.edit.right, " +")):  # it mends
        lines = [line[4:] for line in shown if line[2:3] in signs]
        assert lines == textwrap.dedent(piece.strip("\n")).rstrip().splitlines()
    assert pitfall.keras.find().file in page
    assert (pitfall.thread.url if pitfall.thread else "No public thread was found.") in page
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG" if drawn else b"")


def test_a_pitfall_that_is_not_caught_exits_1(call, monkeypatch):
    result = measured("mean-of-batches")
    right = experiment.Result(**{**vars(result), "wrong": result.right})
    assert not right.caught
    monkeypatch.setattr(run, "measure", lambda *_: right)
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


def test_epochs_and_batches_count_from_1(call, tmp_path):
    _, page, _ = call("metrics-not-reset", "--output", tmp_path)
    first = re.search(r"differs first in (.+)", page)[1]
    assert first.startswith("batch logs: epoch 2, batch 1, logs['acc']")
    assert [row.split()[1] for row in page.splitlines() if row.startswith(" loss")] == ["1"]


def test_a_layer_first_built_under_xla_computes_what_one_built_before_does():
    """As reported in tensorflow/tensorflow#125391, it would not; with this version it does."""

    def outputs(built):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.LayerNormalization(), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        x = np.random.default_rng(0).normal(size=[3, 4]).astype("float32")
        if built:
            model.build(x.shape)
        return tf.function(model, jit_compile=True)(x).numpy()

    np.testing.assert_array_equal(outputs(built=False), outputs(built=True))


def test_figures_that_are_not_finite():
    result = measured("gradients-not-unscaled")
    assert np.isnan(result.apart("loss")[-1])
    assert result.ulp(WRONG, "loss")[-1] == np.inf
