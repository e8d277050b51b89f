"""Saving in the middle of a training: either side's file, either format, either side goes on."""

import keras
import numpy as np
import pytest
from cases import (
    CLASSES,
    IMAGES,
    ONE_HOT,
    SPARSE,
    X,
    Y,
    cnn,
    compile_with,
    functional,
    mlp,
    policy,
)
from parity import TRAINERS, assert_same, covers, fit, observe

from manual_loop import load_model

FIT = {"batch_size": 8, "shuffle": False}


def straight(Trainer, build, data):
    trainer = Trainer(build())
    trainer.compile(**compile_with(optimizer="adam")())
    fit(trainer, data, epochs=3, **FIT)
    return goes_on(trainer, data)


def broken(Trainer, build, data, path, Other):
    trainer = Trainer(build())
    trainer.compile(**compile_with(optimizer="adam")())
    fit(trainer, data, epochs=3, **FIT)
    trainer.save(path)
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(99)  # nothing may hang on the process that saved
    return goes_on(Other(load_model(path)), data)


def goes_on(trainer, data):
    seen = fit(trainer, data, epochs=6, initial_epoch=3, **FIT)
    return {  # in order, since after loading the variables bear other names
        "calls": seen["calls"],
        "history": seen["history"],
        "weights": list(seen["weights"].values()),
        "optimizer variables": list(seen["optimizer variables"].values()),
    }


@pytest.fixture(scope="module")
def expected():
    """Six epochs straight, by fit."""
    return {build: observe("keras_fit", straight, build, data) for build, data in MODELS.items()}


MODELS = {mlp: CLASSES, cnn: {"x": IMAGES, "y": Y}}


@covers("save: .h5", "save: .keras", "manual_loop.load_model")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("then", TRAINERS)
@pytest.mark.parametrize("first", TRAINERS)
def test_three_epochs_and_three_more_are_six(expected, first, then, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    build, data = (mlp, CLASSES) if then == first else (cnn, MODELS[cnn])
    seen = observe(first, broken, build, data, path, TRAINERS[then])
    for each in (seen, expected[build]):
        for what in ("warnings", "stdout", "next random numbers"):
            each.pop(what, None)
    assert_same(expected[build], seen)


def ema(**arguments):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    return keras.optimizers.Adam(rate, use_ema=True, clipnorm=0.5)


COMPILED = {
    "names": lambda: {"optimizer": "sgd", "loss": "mse", "metrics": ["mae", "acc"]},
    "objects": lambda: {
        "optimizer": ema(),
        "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2),
        "metrics": [keras.metrics.F1Score(name="f1")],
        "weighted_metrics": [keras.metrics.CategoricalAccuracy(name="hits")],
    },
    "dicts": lambda: {
        "optimizer": "adam",
        "loss": {"out": keras.losses.CategoricalCrossentropy()},
        "loss_weights": {"out": 0.5},
        "metrics": {"out": ["acc", keras.metrics.AUC(name="auc")]},
    },
    "half precision": lambda: {"optimizer": "adam", "loss": "categorical_crossentropy"},
}


@covers("save: .h5", "save: .keras", "manual_loop.load_model")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("compiled", COMPILED)
def test_all_that_was_compiled_comes_back(compiled, suffix, tmp_path):
    data = {"x": X, "y": ONE_HOT}

    def script(Trainer, save):
        trainer = Trainer(functional())
        trainer.compile(**COMPILED[compiled](), run_eagerly=True)
        fit(trainer, data, epochs=2, **FIT)
        if save:
            path = tmp_path / f"model{suffix}"
            trainer.save(path)
            trainer = Trainer(load_model(path))
        return goes_on(trainer, data)

    # no file holds the policy of the model itself: it is set where the file is read, too
    with policy("mixed_float16" if compiled == "half precision" else "float32"):
        straight, broken = (observe("manual_loop", script, save) for save in (False, True))
    for what in ("calls", "history", "weights", "optimizer variables"):
        assert_same(straight[what], broken[what])


@covers("save: .h5", "save: .keras")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_keras_itself_loads_the_loops_file_and_goes_on(suffix, tmp_path):
    def script(Trainer):
        trainer = Trainer(functional())
        trainer.compile(keras.optimizers.SGD(0.1), SPARSE, metrics=["acc"])
        fit(trainer, CLASSES, epochs=2, **FIT)
        path = tmp_path / f"{Trainer.__module__}{suffix}"
        trainer.save(path)
        model = keras.models.load_model(path)
        history = model.fit(**CLASSES, epochs=2, verbose=0, **FIT)
        return {"history": history.history, "weights": model.get_weights()}

    assert_same(*(observe(side, script) for side in TRAINERS))


@covers("save: while training goes on")
@pytest.mark.parametrize("side", TRAINERS)
def test_saving_leaves_the_trainer_as_it_is(side, tmp_path):
    def script(Trainer, save):
        trainer = Trainer(mlp())
        trainer.compile(**compile_with(optimizer="adam")())
        first = fit(trainer, CLASSES, epochs=1, **FIT)
        if save:
            for name in ("a.h5", "b.keras", "c.h5", "d.keras"):
                trainer.save(tmp_path / name)
        return {"first": first, "second": fit(trainer, CLASSES, epochs=1, **FIT)}

    seen = [observe(side, script, save) for save in (False, True)]
    for each in seen:
        each["warnings"] = []
    assert_same(*seen)
    for name in ("c.h5", "d.keras"):
        loaded = load_model(tmp_path / name)
        assert loaded.optimizer.name == "adam"
        assert loaded.get_compile_config()["metrics"] == ["acc"]


@covers("save: weights alone")
def test_weights_saved_on_one_side_are_those_of_the_other(tmp_path):
    def script(Trainer):
        trainer = Trainer(mlp())
        trainer.compile(**compile_with(optimizer="adam")())
        fit(trainer, CLASSES, **FIT)
        path = tmp_path / f"{Trainer.__module__}.weights.h5"
        trainer.model.save_weights(path)
        fresh = mlp()
        fresh.load_weights(path)
        return {"weights": fresh.get_weights(), "differ": [np.any(w) for w in fresh.get_weights()]}

    assert_same(*(observe(side, script) for side in TRAINERS))
