"""`Trainer`: the interface of both implementations, over the model's own methods."""

import functools
import hashlib
import io
import os
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

SEAL = b"fit-unfolded sha256 "  # and the SHA-256 of all before it: the end of a file


class Trainer:
    """Trains a model by its own methods: `keras.Model.compile`, `fit`, `train_on_batch`, ...

    Args:
        model: any `keras.Model`, compiled or not.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    @property
    def optimizer(self):
        """The optimizer object in use, None before `compile`."""
        return self.model.optimizer

    # Arguments go on as they are given: a model may override any of these, with its own arguments.

    @functools.wraps(keras.Model.compile)
    def compile(self, *args, **kwargs):
        return self.model.compile(*args, **kwargs)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        callbacks = kwargs.get("callbacks")
        for callback in callbacks if isinstance(callbacks, list) else ():
            if hasattr(callback, "set_callbacks"):  # a `Backup`: Keras tells it of no others
                callback.set_callbacks(callbacks)
        return self.model.fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        return self.model.evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **kwargs):
        return self.model.predict(*args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **kwargs):
        return self.model.train_on_batch(*args, **kwargs)

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, *args, **kwargs):
        return self.model.test_on_batch(*args, **kwargs)

    @functools.wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args, **kwargs):
        return self.model.predict_on_batch(*args, **kwargs)

    @functools.wraps(keras.Model.reset_metrics)
    def reset_metrics(self, *args, **kwargs):
        return self.model.reset_metrics(*args, **kwargs)

    @property
    def metrics_names(self):
        """As `keras.Model.metrics_names`."""
        return self.model.metrics_names

    def save(self, path):
        """As `keras.Model.save`, through a temporary file that is renamed when complete.

        The states that Keras does not save are added to the file, and a checksum of it:
        `manual_loop.load_model` reads them, `keras.models.load_model` ignores them.

        Args:
            path: a file name that ends in `.h5` or `.keras`; the directory exists.

        Raises:
            ValueError: for another suffix.
            OSError: the disk is full, say; a file that was there is left as it is.
        """
        path = Path(path)
        if path.suffix not in (".h5", ".keras"):
            raise ValueError(f"save: path must end in .h5 or .keras, not {path.name!r}.")
        partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        # Neither format holds the state of seed generators (Dropout's, say) in Keras 3.15.1.
        seeds = [v.numpy() for v in self.model.variables if v.name == "seed_generator_state"]
        try:
            if path.suffix == ".h5":
                content = self._hdf5(seeds) + SEAL
                partial.write_bytes(content + hashlib.sha256(content).digest())
            else:
                self.model.save(partial)
                with zipfile.ZipFile(partial, "a") as archive:
                    with archive.open("seed_state.npz", "w") as member:
                        np.savez(member, *seeds)
                    archive.comment = SEAL + bytes(32)
                with partial.open("r+b") as file:
                    content = file.read()[:-32]
                    file.seek(-32, os.SEEK_END)
                    file.write(hashlib.sha256(content).digest())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _hdf5(self, seeds):
        """The content of an `.h5` file."""
        compiled = self.model.compiled
        # model_metadata (keras/src/legacy/saving/saving_utils.py, 3.15.1) pops "optimizer" out of
        # the live compile config, so that a later .keras file would come back with RMSprop.
        # Keras has no public way to restore it, except to compile and trace again.
        arguments = dict(self.model._compile_config.config) if compiled else None
        content = io.BytesIO()
        try:
            with _MemoryFile(content, "w") as file:
                self.model.save(file)
                # load_model_from_hdf5 (keras/src/legacy/saving/legacy_h5_format.py, 3.15.1) builds
                # the optimizer on model._trainable_variables, which is empty for Sequential and
                # functional models: the first update after loading raises "Unknown variable".
                # Under another name it leaves the optimizer to be built by the first step.
                if "optimizer_weights" in file:
                    file.move("optimizer_weights", "optimizer_state")
                file.create_dataset("seed_state", data=np.array(seeds))
                file.attrs["sealed"] = True
        finally:
            if compiled:
                self.model._compile_config.config = arguments
        return content.getvalue()


class _MemoryFile(h5py.File):
    """A HDF5 file in memory, which `keras.Model.save` takes for the name of one.

    On a full disk HDF5 leaves its file open, and Python crashes when it ends.
    """

    def __str__(self):
        return "model.h5"
