"""`fit-unfolded gap` as a command: page, figures, picture, exit status."""

import json
import os
from pathlib import Path

import pytest

EXAMPLE = (Path(__file__).parents[3] / "examples" / "blobs.py").read_text()
NAMES = ["moving_weights", "training_mode", "batch_statistics", "batches", "rows"]


@pytest.fixture
def write(tmp_path):
    """Writes the example, run eagerly on a fifth of its rows, with changes."""

    def make(*replacements):
        text = EXAMPLE.replace('"metrics"', '"run_eagerly": True, "metrics"')
        text = text.replace("[:300]", "[:60]").replace("[300:]", "[300:320]")
        for before, after in replacements:
            assert before in text
            text = text.replace(before, after)
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return make


def test_gap_of_a_file(run, write, tmp_path):
    out = tmp_path / "out"
    status, page, error = run("gap", write(), "--epoch", "2", "--output", out)
    assert (status, error) == (0, "")
    assert max(map(len, page.splitlines())) <= 80
    text = " ".join(page.split())
    assert "The replay of the epoch equals fit's log: 0 ULP. That of the validation: 0 ULP" in text
    assert "0% The model has no BatchNormalization." in text
    assert page.index("\n loss ") < page.index("\n evaluate(train) ") < page.index("\n val_loss ")
    assert sorted(os.listdir(out)) == ["gap.json", "gap.png"]
    assert (out / "gap.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((out / "gap.json").read_text())
    assert figures["epoch"] == 2
    assert [part["part"] for part in figures["parts"]] == NAMES
    whole = figures["val_loss"] - figures["loss"]
    assert sum(part["change"] for part in figures["parts"]) == pytest.approx(whole, abs=1e-12)
    assert sum(part["share"] for part in figures["parts"]) == pytest.approx(1)
    assert figures["parts"][-2]["loss_after"] == figures["evaluate_train"]
    side = "lower" if whole < 0 else "higher"
    assert figures["verdict"].startswith(f"val_loss is {side} than loss by ")
    assert text.count(figures["verdict"]) == 1


def test_another_replay_than_fit_exits_1_and_without_validation_data_it_says_so(run, write):
    noise = "keras.layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))"
    path = write(
        ("keras.layers.Dropout(0.5)", noise),
        (', "validation_data": (x[300:320], y[300:320])', ""),
        ('"epochs": 5', '"epochs": 2'),
    )
    status, page, error = run("gap", path, "--output", path.parent / "out")
    assert (status, error) == (1, "")
    assert "The replay does not equal fit's log: " in page
    assert "This epoch has no validation" in page
    assert "\n val_loss" not in page


def test_a_loss_that_is_nan_exits_1_and_writes_nothing(run, write):
    path = write(
        ('.astype("float32")', '.astype("float32") * np.nan'), ('"epochs": 5', '"epochs": 1')
    )
    status, page, error = run("gap", path, "--output", path.parent / "out")
    assert (status, error) == (1, "")
    assert page == "Epoch 1: a loss is nan: there is no difference to take apart.\n"
    assert [file.name for file in path.parent.iterdir() if file.is_dir()] == []


def test_an_epoch_that_a_callback_prevents(run, write):
    stop = 'callbacks": [keras.callbacks.EarlyStopping("loss", patience=0, mode="max")], "'
    path = write(('"epochs": 5', f'"{stop}epochs": 5'))
    status, page, error = run("gap", path, "--epoch", "3", "--output", path.parent / "out")
    assert (status, page) == (2, "")
    assert error == "error: --epoch: a callback in FIT stopped the training before epoch 3.\n"
