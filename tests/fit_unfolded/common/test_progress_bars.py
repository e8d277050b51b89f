"""Progress: a line now and then where standard error is no terminal, and figures to a file."""

import json
import re
import time

from fit_unfolded.common import progress_bars as module
from fit_unfolded.common.progress_bars import PROGRESS, progress_bars


def test_a_pipe_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS_PER_LINE", 0.2)
    with progress_bars() as bars:
        done = bars.add_task("keras_fit", total=1, note="")
        bars.advance(done)
        task = bars.add_task("manual_loop", total=20, note="")
        bars.update(task, advance=3, note="loss 0.25")
        time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"manual_loop: 3 of 20, loss 0\.25, \d+ s", line) for line in lines)


def test_a_short_run_is_silent(capsys):
    with progress_bars() as bars:
        bars.add_task("explain", total=None, note="digits")
    assert capsys.readouterr() == ("", "")


def test_a_task_without_a_total(monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS_PER_LINE", 0.05)
    with progress_bars() as bars:
        bars.add_task("explain", total=None, note="digits")
        time.sleep(0.3)
    assert capsys.readouterr().err.startswith("explain: digits, 0 s\n")


def test_a_launched_chief_writes_to_its_file(monkeypatch, capsys, tmp_path):
    file = tmp_path / "progress"
    monkeypatch.setenv(PROGRESS, str(file))
    with progress_bars() as bars:
        task = bars.add_task("manual_loop", total=2, note="")
        bars.update(task, advance=1, note="loss 0.5")
    (line,) = file.read_text().splitlines()
    assert json.loads(line) == {"completed": 1, "total": 2, "note": "loss 0.5"}
    assert capsys.readouterr() == ("", "")
