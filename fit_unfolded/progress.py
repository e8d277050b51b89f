"""Live progress on standard error while both sides train; nothing where that is no terminal."""

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


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


class EpochProgress(keras.callbacks.Callback):
    """Moves one bar on by one at the end of each epoch, with the epoch's loss."""

    def __init__(self, bars: Progress, description: str, epochs: int):
        super().__init__()
        self.bars = bars
        self.task = bars.add_task(description, total=epochs, note="")

    def on_epoch_end(self, epoch, logs=None):
        self.bars.update(self.task, advance=1, note=f"loss {logs['loss']:.4g}")
