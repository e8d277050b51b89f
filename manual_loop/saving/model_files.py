"""Saving to `.h5` and `.keras`, and back.

The files are Keras's own: `keras.models.load_model` reads them. Keras 3.15.1 loses three things,
which are restored here:

1. `.h5`, reading (`legacy/saving/legacy_h5_format.py`, `load_model_from_hdf5`): the optimizer's
   state is dropped, because `model._trainable_variables` is empty in a Sequential or functional
   model; metrics and losses come back under other names or not at all; how a step is run is passed
   over. The state is therefore written under a name that Keras leaves alone, and `load_model` below
   reads the training configuration itself.
2. `.h5`, writing: the optimizer is removed from the configuration in use, so that the next `.keras`
   file has none (`legacy/saving/saving_utils.py`, `model_metadata`). So it is put back.
3. Both formats: the state of a `keras.random.SeedGenerator` is not written, so a Dropout that goes
   on training draws other masks than one that never stopped.

Each file ends in a checksum of it, and is examined before it is loaded, see `trust.py`.
"""

import io
import json
import os
import pathlib
import zipfile

import h5py
import keras
import numpy as np

from manual_loop.saving import trust

# What Keras loses is stored beside what it writes: groups in .h5, a member of the .keras archive.
OPTIMIZER_STATE = "optimizer_state"
SEED_STATE = "seed_state"
SEED_MEMBER = "seed_state.npz"


def save(model, path):
    """Write a compiled model to a `.h5` or `.keras` file, whole or not at all.

    Args:
        model: a `keras.Model`, compiled or not.
        path: where to; a file that is there is replaced.

    Raises:
        ValueError: another ending.
        OSError: the disk is full, say. A file that was there is left as it is.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".h5", ".keras"):
        raise ValueError(f"`path` must end in .h5 or .keras. Received: {path}")
    seeds = [keras.ops.convert_to_numpy(state) for state in seed_states(model)]
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    # a private attribute, since Keras has no public way to restore what it has removed
    configuration = getattr(model, "_compile_config", None)
    arguments = dict(configuration.config) if configuration else None
    try:
        if path.suffix == ".h5":
            part.write_bytes(trust.sealed(_hdf5_of(model, seeds)))
        else:
            model.save(part)
            with zipfile.ZipFile(part, "a") as archive:
                with archive.open(SEED_MEMBER, "w") as member:
                    np.savez(member, *seeds)
                archive.comment = trust.SEAL + bytes(trust.DIGEST)
            trust.seal(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        if configuration:
            configuration.config = arguments


class MemoryFile(h5py.File):
    """A HDF5 file in memory, which `keras.Model.save` takes for the name of one.

    On a full disk HDF5 leaves its file open, and Python crashes when it ends.
    """

    def __str__(self):
        return "model.h5"


def _hdf5_of(model, seeds):
    """The content of an `.h5` file."""
    content = io.BytesIO()
    with MemoryFile(content, "w") as file:
        model.save(file)
        if "optimizer_weights" in file:
            file.move("optimizer_weights", OPTIMIZER_STATE)
        file.create_dataset(SEED_STATE, data=np.array(seeds))
        file.attrs[trust.SEALED] = True
    return content.getvalue()


def load_model(path, custom_objects=None, compile=True, **arguments):
    """`keras.models.load_model`, and what it leaves behind put back.

    Args:
        path: a `.h5` or `.keras` file, written by `save` above or by Keras.
        custom_objects: dict: name -> class or function of one's own.
        compile: whether the model shall be compiled as it was saved.
        **arguments: further ones of `keras.models.load_model`.

    Returns:
        keras.Model: training continues as if it had not stopped. (A file written by Keras
        alone has no seeds: after it, Dropout draws other masks.)

    Raises:
        OSError: the file is missing, a directory or unreadable.
        ValueError: it is damaged, has code in it, needs far more memory than it has content, or is
            no model.
        TypeError: it needs a class that is not in `custom_objects`.
    """
    path = pathlib.Path(path)
    with trust.loading(path):
        if path.suffix == ".h5":
            model = keras.models.load_model(path, custom_objects, compile=False, **arguments)
            with h5py.File(path) as file:
                seeds = list(file.get(SEED_STATE, ()))
                if compile and "training_config" in file.attrs:
                    with keras.saving.CustomObjectScope(custom_objects or {}):
                        _compile_from_h5(model, file, custom_objects or {})
        else:
            model = keras.models.load_model(path, custom_objects, compile=compile, **arguments)
            seeds = _read_seeds(path)
        if seeds:
            for variable, value in zip(seed_states(model), seeds, strict=True):
                variable.assign(value)
    return model


def _compile_from_h5(model, file, custom_objects):
    """Compile `model` with the configuration in an open `.h5` file, and fill its optimizer."""

    def restored(entry, get):
        """A name stays a name, a configuration becomes the object that it is of."""
        if isinstance(entry, dict) and "class_name" in entry:
            return get(entry)
        if isinstance(entry, dict):
            return {key: restored(value, get) for key, value in entry.items()}
        if isinstance(entry, list):
            return [restored(value, get) for value in entry]
        return custom_objects.get(entry, entry) if isinstance(entry, str) else entry

    config = json.loads(file.attrs["training_config"])
    config["optimizer"] = keras.optimizers.deserialize(config.pop("optimizer_config"))
    config["loss"] = restored(config["loss"], keras.losses.get)
    for name in ("metrics", "weighted_metrics"):
        config[name] = restored(config[name], keras.metrics.get)
    model.compile(**config)
    group = file.get(OPTIMIZER_STATE, file.get("optimizer_weights"))
    if group is not None:
        model.optimizer.build(model.trainable_variables)
        names = group.attrs["weight_names"]
        for variable, name in zip(model.optimizer.variables, names, strict=True):
            variable.assign(group[name][()])


def seed_states(model):
    """The counters of the model's seed generators, in the order of its layers."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _read_seeds(path):
    with zipfile.ZipFile(path) as archive:
        if SEED_MEMBER not in archive.namelist():
            return []
        with archive.open(SEED_MEMBER) as member:
            return list(np.load(member).values())
