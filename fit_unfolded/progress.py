"""Callbacks that show how far a training is."""

import json
import os

import keras
from rich.progress import Progress

from fit_unfolded.bars import PROGRESS


class EpochProgress(keras.callbacks.Callback):
    """Moves one bar on by one at the end of each epoch, with the epoch's loss."""

    def __init__(self, bars: Progress, description: str, epochs: int):
        super().__init__()
        self.bars = bars
        self.task = bars.add_task(description, total=epochs, note="")

    def on_epoch_end(self, epoch, logs=None):
        self.bars.update(self.task, advance=1, note=f"loss {logs['loss']:.4g}")


class EpochReport(keras.callbacks.Callback):
    """Writes what a bar shall show to the pipe that `PROGRESS` numbers, a line of JSON an epoch."""

    def __init__(self, epochs: int):
        super().__init__()
        self.pipe = int(os.environ[PROGRESS])
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        figures = {"completed": epoch + 1, "total": self.epochs, "note": f"loss {logs['loss']:.4g}"}
        os.write(self.pipe, (json.dumps(figures) + "\n").encode())
