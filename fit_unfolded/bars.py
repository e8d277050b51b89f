"""Live progress on standard error; nothing where that is no terminal."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

# Where a launched chief finds the number of a pipe: its progress is shown by who launched it.
PROGRESS = "FIT_UNFOLDED_PROGRESS"


def progress_bars(*more: ProgressColumn) -> Progress:
    """Bars that vanish when their `with` block ends, with `more` columns on the right."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        *more,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
