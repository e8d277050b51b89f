"""Backup: training that was cut off goes on after the last epoch that was finished.

As `keras.callbacks.BackupAndRestore` (`keras/src/callbacks/backup_and_restore.py`, Keras 3.15), but

1. the states of the random generators are in it, so that Dropout goes on with the masks that it
   would have drawn;
2. weights, optimizer and the number of the epoch are one file, replaced as a whole: a process that
   dies while it writes leaves the last backup as it was.
"""

import os
import pathlib

import keras
import numpy as np


class Backup(keras.callbacks.Callback):
    """Writes all variables at the end of each epoch; `fit` begins with those of the last backup.

    What other callbacks and datasets remember from epoch to epoch is not in it, nor is the history.
    The file is removed when `fit` comes to its end.

    Args:
        path: where to; must end in `.npz`.

    Raises:
        ValueError: another ending; from `fit`, a model that is not built, or not the one that the
            backup is of.
    """

    writes = True  # see `workers.writes`

    def __init__(self, path):
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".npz":
            raise ValueError(f"`path` must end in .npz. Received: {path}")

    def on_train_begin(self, logs=None):
        """Go on where the last backup was written, if there is one."""
        if not self.model.built:
            raise ValueError("`Backup` needs a built model: call it on one batch before `fit`.")
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if not self.path.exists():
            return
        variables = self._variables()
        with np.load(self.path) as file:
            saved = {name: file[name] for name in file.files}
        epoch = saved.pop("epoch", None)
        shapes = {name: value.shape for name, value in saved.items()}
        if epoch is None or shapes != {name: tuple(v.shape) for name, v in variables.items()}:
            raise ValueError(
                f"{self.path} is the backup of another model. Remove it, or name another `path`."
            )
        for name, variable in variables.items():
            variable.assign(saved[name])
        self.model._initial_epoch = int(epoch)  # where fit, Keras's too, looks for it

    def on_epoch_end(self, epoch, logs=None):
        """Write the backup."""
        values = {name: keras.ops.convert_to_numpy(v) for name, v in self._variables().items()}
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with part.open("wb") as file:
                np.savez(file, epoch=epoch + 1, **values)
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        """Remove it: there is nothing left to go on with."""
        self.path.unlink(missing_ok=True)

    def _variables(self):
        """dict: a name that no other has -> variable, of the model and of its optimizer."""
        both = [*self.model.variables, *self.model.optimizer.variables]
        return {f"{number} {v.path}": v for number, v in enumerate(both)}
