"""Progress on standard error: bars on a terminal, and a line now and then elsewhere."""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

# The environment variable that tells a launched chief a file for its progress, which is shown by
# the process that launched it.
PROGRESS = "FIT_UNFOLDED_PROGRESS"
SECONDS_PER_LINE = 10.0


def progress_bars(*more: ProgressColumn) -> Progress:
    """Progress for a `with` block; on a terminal, bars with `more` columns on the right.

    Each task takes a field `note`, a few words such as the loss.
    """
    if PROGRESS in os.environ:
        return FileProgress(Path(os.environ[PROGRESS]))
    console = Console(stderr=True)
    if not console.is_terminal:
        return LineProgress()
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        *more,
        console=console,
        transient=True,
    )


class LineProgress(Progress):
    """Writes a line about the current task every `SECONDS_PER_LINE`, also amid a long step."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._write_lines, daemon=True)

    def start(self) -> None:
        """Starts the thread that writes the lines."""
        self._writer.start()

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self._writer.join()

    def _write_lines(self) -> None:
        while not self._over.wait(SECONDS_PER_LINE):
            running = [task for task in self.tasks if not task.finished]
            if running:
                print(_line(running[-1]), file=sys.stderr, flush=True)


class FileProgress(Progress):
    """Appends each update to a file as a line of JSON: `completed`, `total`, `note`."""

    def __init__(self, file: Path) -> None:
        super().__init__(disable=True)
        self._file = file

    def update(self, task_id: TaskID, **figures: Any) -> None:
        """As `Progress.update`."""
        super().update(task_id, **figures)
        task = self.tasks[task_id]
        shown = {"completed": task.completed, "total": task.total, "note": task.fields["note"]}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(shown) + "\n")


def _line(task: Task) -> str:
    count = "" if task.total is None else f"{task.completed:.0f} of {task.total:.0f}"
    parts = [count, task.fields["note"], f"{task.elapsed or 0:.0f} s"]
    return f"{task.description}: {', '.join(part for part in parts if part)}"
