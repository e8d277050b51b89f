"""The interface both sides share, and what keras_fit adds to saving."""

import inspect
import os

import h5py
import keras
import numpy as np
import pytest

import keras_fit
import manual_loop

X = np.linspace(0, 1, 32, dtype="float32").reshape(8, 4)
Y = np.arange(8) % 3
ON_BATCH = ["train_on_batch", "test_on_batch", "predict_on_batch", "reset_metrics"]
METHODS = ["compile", "fit", "evaluate", "predict", *ON_BATCH]


@pytest.fixture
def trainer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input([4]), keras.layers.Dense(3, activation="softmax")])
    trainer = keras_fit.Trainer(model)
    trainer.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    trainer.fit(X, Y, verbose=0)
    return trainer


def parameters(function):
    """Names and defaults in order; `evaluate` of Keras also takes private `**kwargs`."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in found if p.kind is not inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize("side", [keras_fit, manual_loop])
@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_those_of_keras(side, method):
    assert parameters(getattr(side.Trainer, method)) == parameters(getattr(keras.Model, method))


def test_the_trainer_shows_its_model_and_optimizer(trainer):
    assert trainer.optimizer is trainer.model.optimizer
    assert isinstance(trainer.optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_is_compiled_and_trains_on(trainer, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    trainer.save(path)
    model = keras.models.load_model(path)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    np.testing.assert_array_equal(model.predict(X, verbose=0), trainer.predict(X, verbose=0))
    expected = trainer.fit(X, Y, verbose=0).history["loss"]
    assert model.fit(X, Y, verbose=0).history["loss"] == expected
    assert os.listdir(tmp_path) == [path.name]


def test_keras_alone_saves_an_h5_that_cannot_train_on(trainer, tmp_path):
    """The fault that `save` works around; when this test fails, the workaround can go."""
    trainer.model.save(tmp_path / "model.h5")
    model = keras.models.load_model(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="Unknown variable"):
        model.fit(X, Y, verbose=0)


def test_h5_keeps_the_optimizer_state_under_another_name(trainer, tmp_path):
    trainer.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        state = file["optimizer_state"]
        names = list(state.attrs["weight_names"])
        assert names == [variable.path for variable in trainer.optimizer.variables]
        for name, variable in zip(names, trainer.optimizer.variables, strict=True):
            np.testing.assert_array_equal(state[name][()], variable.numpy())


def test_keras_after_h5_keeps_the_optimizer(trainer, tmp_path):
    trainer.save(tmp_path / "model.h5")
    trainer.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert int(model.optimizer.iterations) == 1


def test_saving_leaves_the_traced_step_alone(trainer, tmp_path):
    step = trainer.model.train_function
    trainer.save(tmp_path / "model.h5")
    assert trainer.model.train_function is step


def test_an_uncompiled_model_is_saved_too(tmp_path):
    model = keras.Sequential([keras.layers.Input([4]), keras.layers.Dense(3)])
    keras_fit.Trainer(model).save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_save_refuses_another_suffix(trainer, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.h5 or \.keras, not 'model\.pt'"):
        trainer.save(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_broken_off_save_leaves_the_old_file(trainer, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"old")

    def broken_off(file):
        file.create_group("half") if suffix == ".h5" else file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.model, "save", broken_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
