"""Saving to `.h5` and `.keras`, and back.

The files are Keras's own: `keras.models.load_model` reads them. This is the one room that calls
`Model.compile`, with the objects already in use, because Keras writes the training configuration of
a model that it compiled itself and of no other. The loop uses nothing of what that call builds.

Keras 3.15.1 forgets three things, mended here:

1. `.h5`, reading: the optimizer is built for `model._trainable_variables`, which is empty in a
   Sequential or functional model, so its state is dropped and `fit` raises "Unknown variable"
   (`legacy/saving/legacy_h5_format.py`, `load_model_from_hdf5`). The state is therefore written
   under another name, where Keras leaves it alone and `load_model` below finds it.
2. `.h5`, writing: the optimizer is removed from the configuration in use, so that the next `.keras`
   file has none (`legacy/saving/saving_utils.py`, `model_metadata`). Hence a fresh `compile`.
3. Both formats: the state of a `keras.random.SeedGenerator` is not written, so a Dropout that goes
   on training draws other masks than one that never stopped.
"""

import os
import pathlib
import zipfile

import h5py
import keras
import numpy as np

# What Keras forgets lies beside what it writes: groups in .h5, a member of the .keras archive.
OPTIMIZER_STATE = "optimizer_state"
SEED_STATE = "seed_state"
SEED_MEMBER = "seed_state.npz"


def register_training_config(model, **arguments):
    """Let Keras know how the model is trained, so that whatever saves it can write that down.

    `trainer.save` needs it, and so does a callback that saves: `ModelCheckpoint` calls
    `Model.save`. Everything is an object or a name already in use by the loop.
    """
    model.compile(**arguments, auto_scale_loss=False)


def training_config(model):
    """The arguments of `compile` from a compiled model, the optimizer being the object in use.

    Raises:
        ValueError: the model holds a loss or metric that Keras cannot write down and read back.
    """
    try:
        config = keras.saving.deserialize_keras_object(
            {**model.get_compile_config(), "optimizer": None}
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The model's training configuration cannot be read back: call `compile()` on the "
            f"trainer instead. {error}"
        ) from error
    return {**config, "optimizer": model.optimizer}


def save(model, path):
    """Write a compiled model to a `.h5` or `.keras` file, whole or not at all.

    Args:
        model: a `keras.Model` whose training configuration is registered.
        path: where to; a file that is there is replaced.

    Raises:
        ValueError: another ending.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".h5", ".keras"):
        raise ValueError(f"`path` must end in .h5 or .keras. Received: {path}")
    seeds = [keras.ops.convert_to_numpy(state) for state in seed_states(model)]
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        model.save(part)
        if path.suffix == ".h5":
            with h5py.File(part, "r+") as file:
                if "optimizer_weights" in file:
                    file.move("optimizer_weights", OPTIMIZER_STATE)
                file.create_dataset(SEED_STATE, data=np.array(seeds))
        else:
            with zipfile.ZipFile(part, "a") as archive, archive.open(SEED_MEMBER, "w") as member:
                np.savez(member, *seeds)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_model(path, **arguments):
    """`keras.models.load_model`, and the state that it leaves behind put back.

    Args:
        path: a `.h5` or `.keras` file, written by `save` above or by Keras.
        **arguments: those of `keras.models.load_model`.

    Returns:
        keras.Model: compiled as it was saved; training goes on from it as if it had not stopped.
        (A file written by Keras alone has no seeds: after it, Dropout draws other masks.)
    """
    model = keras.models.load_model(path, **arguments)
    path = pathlib.Path(path)
    optimizer_state, seeds = _read_h5(path) if path.suffix == ".h5" else ([], _read_seeds(path))
    if optimizer_state and model.compiled:
        optimizer = model.optimizer
        if optimizer.built:  # by Keras, for no variables: see 1. above
            optimizer = type(optimizer).from_config(optimizer.get_config())
            register_training_config(model, **{**training_config(model), "optimizer": optimizer})
        optimizer.build(model.trainable_variables)
        for variable, value in zip(optimizer.variables, optimizer_state, strict=True):
            variable.assign(value)
    if seeds:
        for variable, value in zip(seed_states(model), seeds, strict=True):
            variable.assign(value)
    return model


def seed_states(model):
    """The counters of the model's seed generators, in the order of its layers."""
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _read_h5(path):
    with h5py.File(path) as file:
        group = file.get(OPTIMIZER_STATE, file.get("optimizer_weights"))
        names = [] if group is None else group.attrs["weight_names"]
        seeds = file.get(SEED_STATE, ())
        return [group[name][()] for name in names], list(seeds)


def _read_seeds(path):
    with zipfile.ZipFile(path) as archive:
        if SEED_MEMBER not in archive.namelist():
            return []
        with archive.open(SEED_MEMBER) as member:
            return list(np.load(member).values())
