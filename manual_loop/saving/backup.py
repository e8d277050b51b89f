"""Backup: an interrupted training resumes after the last completed epoch.

As `keras.callbacks.BackupAndRestore` (`keras/src/callbacks/backup_and_restore.py`, Keras 3.15), but

1. it contains the states of the random generators, so that Dropout continues with the same masks;
2. weights, optimizer and the epoch number are one file, replaced atomically: a process that dies
   while it writes leaves the previous backup intact.
"""

import os
import pathlib

import keras
import numpy as np


class Backup(keras.callbacks.Callback):
    """Writes all variables at the end of each epoch; `fit` starts from the last backup.

    The state of other callbacks and of datasets is not in it, nor is the history. The file is
    removed when `fit` ends.

    Args:
        path: of the file; must end in `.npz`.

    Raises:
        ValueError: another ending; from `fit`, a model that is not built, or not the one that the
            backup is of.
    """

    writes = True  # see `multi_worker.writes`

    def __init__(self, path):
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".npz":
            raise ValueError(f"`path` must end in .npz. Received: {path}")

    def on_train_begin(self, logs=None):
        """Restore the last backup, if there is one."""
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
        """Remove the backup: the training is complete."""
        self.path.unlink(missing_ok=True)

    def _variables(self):
        """dict: a name that no other has -> variable, of the model and of its optimizer."""
        both = [*self.model.variables, *self.model.optimizer.variables]
        return {f"{number} {v.path}": v for number, v in enumerate(both)}
