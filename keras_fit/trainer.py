"""`Trainer`: the interface of both implementations, over the model's own methods."""

import os
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np


class Trainer:
    """Trains a model with `keras.Model.compile`, `fit`, `evaluate`, `predict` and `save`.

    Args:
        model: any `keras.Model`, compiled or not.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    @property
    def optimizer(self):
        """The optimizer object in use, None before `compile`."""
        return self.model.optimizer

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """As `keras.Model.compile`, which also raises the errors; returns None."""
        self.model.compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """As `keras.Model.fit`, which also raises the errors; returns `keras.callbacks.History`."""
        return self.model.fit(
            x=x,
            y=y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """As `keras.Model.evaluate`: the loss and metrics as floats, a list or a dict."""
        return self.model.evaluate(
            x=x,
            y=y,
            batch_size=batch_size,
            verbose=verbose,
            sample_weight=sample_weight,
            steps=steps,
            callbacks=callbacks,
            return_dict=return_dict,
        )

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """As `keras.Model.predict`: the outputs as NumPy arrays, `[samples, ...]`."""
        return self.model.predict(
            x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
        )

    def save(self, path):
        """As `keras.Model.save`, through a temporary file that is renamed when complete.

        The states that Keras does not save are added to the file: `manual_loop.load_model` reads
        them, `keras.models.load_model` ignores them.

        Args:
            path: a file name that ends in `.h5` or `.keras`; the directory exists.

        Raises:
            ValueError: for another suffix.
        """
        path = Path(path)
        if path.suffix not in (".h5", ".keras"):
            raise ValueError(f"save: path must end in .h5 or .keras, not {path.name!r}.")
        partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        # Neither format holds the state of seed generators (Dropout's, say) in Keras 3.15.1.
        seeds = [v.numpy() for v in self.model.variables if v.name == "seed_generator_state"]
        try:
            if path.suffix == ".h5":
                self._save_h5(partial)
                with h5py.File(partial, "r+") as file:
                    file.create_dataset("seed_state", data=np.array(seeds))
            else:
                self.model.save(partial)
                with (
                    zipfile.ZipFile(partial, "a") as archive,
                    archive.open("seed_state.npz", "w") as member,
                ):
                    np.savez(member, *seeds)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _save_h5(self, path):
        compiled = self.model.compiled
        # model_metadata (keras/src/legacy/saving/saving_utils.py, 3.15.1) pops "optimizer" out of
        # the live compile config, so that a later .keras file would come back with RMSprop.
        # Keras has no public way to restore it, except to compile and trace again.
        arguments = dict(self.model._compile_config.config) if compiled else None
        self.model.save(path)
        if compiled:
            self.model._compile_config.config = arguments
        # load_model_from_hdf5 (keras/src/legacy/saving/legacy_h5_format.py, 3.15.1) builds the
        # optimizer on model._trainable_variables, which is empty for Sequential and functional
        # models: the first update after loading raises "Unknown variable". Under another name
        # it leaves the optimizer to be built by the first step.
        with h5py.File(path, "r+") as file:
            if "optimizer_weights" in file:
                file.move("optimizer_weights", "optimizer_state")
