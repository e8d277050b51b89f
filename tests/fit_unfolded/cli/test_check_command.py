"""`fit-unfolded check` as a command: page, figures, exit status."""

import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_a_right_loop(run, tmp_path):
    status, page, error = run("check", EXAMPLES / "blobs.py", "--output", tmp_path / "out")
    assert (status, error) == (0, "")
    assert "equal: the loop trains like fit" in page
    figures = json.loads((tmp_path / "out" / "check.json").read_text())
    assert (figures["verdict"], figures["stage"], figures["causes"]) == ("equal", None, [])
    assert figures["steps_compared"] == figures["steps"] == 50
    assert figures["seconds"]["check"] < 40


def test_a_wrong_loop(run):
    file = EXAMPLES / "dropout_without_training.py"
    status, page, error = run("check", file)
    assert (status, error) == (1, "")
    assert max(map(len, page.splitlines())) <= 80
    lines = file.read_text().splitlines()
    (at,) = [number for number, line in enumerate(lines, 1) if "y_pred = model(x)" in line]
    assert f"> {at:4} {lines[at - 1]}" in page
    assert "Cause: Dropout called without `training=True` (dropout-without-training)" in page
    assert "y_pred = self(x, training=True)" in page
    assert "More: fit-unfolded pitfalls dropout-without-training" in page


def test_a_file_that_cannot_be_used(run, tmp_path):
    file = tmp_path / "loop.py"
    status, page, error = run("check", file)
    assert (status, page) == (2, "")
    assert error == f"error: WORKLOAD: there is no file {file}.\n"
