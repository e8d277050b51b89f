"""Every argument of `fit`, `evaluate` and `predict`, on one compiled pair."""

import inspect

import keras
import numpy as np
import pytest
from cases import CLASSES, SHORT, SPARSE, X, Y, compile_with, mlp
from parity import Pair, assert_parity, calls, covers, fit, use, values

from fit_unfolded.comparison.record import Recorder

COUNT = np.arange(22.0)
OTHERS = {"validation_data": (X[:10], Y[:10])}


@pytest.fixture(scope="module")
def pair():
    return Pair(mlp, compile_with(optimizer="sgd", weighted_metrics=[SPARSE]))


@pytest.fixture(scope="module")
def block_pair():
    return Pair(mlp, compile_with(optimizer="sgd", steps_per_execution=2))


FITS = [
    ("batch_size", {"batch_size": 7}),
    ("batch_size", {"batch_size": 22}),
    ("batch_size", {"batch_size": 1000}),
    ("batch_size", {"batch_size": None}),
    ("batch_size", {"batch_size": 0}),  # 32, as None
    ("batch_size", {"batch_size": np.int64(7)}),
    ("epochs", {"epochs": 0}),
    ("epochs", {"epochs": 1}),
    ("epochs", {"epochs": 4}),
    ("initial_epoch", {"initial_epoch": 2, "epochs": 4}),
    ("initial_epoch", {"initial_epoch": 3, "epochs": 3}),
    ("initial_epoch", {"initial_epoch": 5, "epochs": 3}),
    ("shuffle", {"shuffle": False}),
    ("shuffle", {"shuffle": "batch"}),
    ("shuffle", {"shuffle": "batch", "batch_size": 7}),
    ("shuffle", {"shuffle": 1}),
    ("validation_split", {"validation_split": 0.1}),
    ("validation_split", {"validation_split": 0.95}),
    ("validation_split", {"validation_split": 0.5, **OTHERS}),
    ("validation_data", OTHERS),
    ("validation_data", {"validation_data": [X[:10], Y[:10]]}),
    ("validation_data", {"validation_data": (X[:10], Y[:10], COUNT[:10])}),
    ("validation_batch_size", {"validation_batch_size": 3, **OTHERS}),
    ("validation_steps", {"validation_steps": 2, "validation_batch_size": 3, **OTHERS}),
    ("validation_steps", {"validation_steps": 9, "validation_batch_size": 3, **OTHERS}),
    ("validation_freq", {"validation_freq": 2, "epochs": 5, **OTHERS}),
    ("validation_freq", {"validation_freq": [1, 4], "epochs": 5, **OTHERS}),
    ("validation_freq", {"validation_freq": 3, "epochs": 2, **OTHERS}),
    ("steps_per_epoch", {"steps_per_epoch": 2, "epochs": 4}),
    ("steps_per_epoch", {"steps_per_epoch": 3, "epochs": 3}),
    ("steps_per_epoch", {"steps_per_epoch": 4, "epochs": 3}),  # out of data: warns
    ("steps_per_epoch", {"steps_per_epoch": 4, "epochs": 3, "batch_size": None}),
    ("class_weight", {"class_weight": {0: 2.0, 1: 0.5, 2: 1.5}}),
    ("class_weight", {"class_weight": {1: 3}}),
    ("class_weight", {"class_weight": {0: 2.0}, **OTHERS}),
    ("sample_weight", {"sample_weight": COUNT}),
    ("sample_weight", {"sample_weight": COUNT, "validation_split": 0.3}),
    ("sample_weight", {"sample_weight": np.zeros(22)}),
    ("verbose", {"verbose": 0, **OTHERS}),
    ("verbose", {"verbose": 1, **OTHERS}),
    ("verbose", {"verbose": 2, **OTHERS}),
    ("verbose", {"verbose": "auto"}),
    ("verbose", {"verbose": 1, "steps_per_epoch": 4, "epochs": 3}),
]


def short(arguments):
    return ", ".join(
        f"{k}={v}" if isinstance(v, int | float | str | list | None) else k
        for k, v in arguments.items()
    )


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(a, id=short(a), marks=covers(f"fit: {name}")) for name, a in FITS],
)
def test_fit(pair, arguments):
    pair.assert_parity(CLASSES, script=fit, **{"epochs": 2, "batch_size": 8, **arguments})


@covers("compile: steps_per_execution")
@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 8},
        {"batch_size": 4, "shuffle": "batch"},
        {"batch_size": 5, "validation_batch_size": 3, **OTHERS},
        {"batch_size": 4, "steps_per_epoch": 3, "epochs": 4},
        {"batch_size": 4, "steps_per_epoch": 7},
        {"batch_size": 4, "verbose": 1, **OTHERS},
        {"batch_size": 4, "validation_steps": 3, "validation_batch_size": 2, **OTHERS},
    ],
    ids=str,
)
def test_fit_in_blocks(block_pair, arguments):
    block_pair.assert_parity(CLASSES, script=fit, **{"epochs": 2, **arguments})


@covers("fit: epochs")
def test_a_second_fit_goes_on_where_the_first_stopped():
    def script(Trainer):
        trainer = Trainer(mlp())
        compile = compile_with(optimizer="adam")
        trainer.compile(**compile())
        first = use(trainer, CLASSES, **SHORT)
        second = use(trainer, CLASSES, initial_epoch=2, **{**SHORT, "epochs": 4})
        trainer.compile(**compile())  # and after compile, the optimizer from its start
        return {"first": first, "second": second, "third": use(trainer, CLASSES, **SHORT)}

    seen = assert_parity(script=script)
    assert seen["second"]["epochs"] == [2, 3]


@covers("fit: callbacks", "callback: CallbackList")
@pytest.mark.parametrize("kind", ["callback", "list", "tuple", "CallbackList", "None"])
def test_callbacks_in_any_container(pair, kind):
    def script(trainer):
        recorder = Recorder()
        callbacks = {
            "callback": recorder,
            "list": [recorder],
            "tuple": (recorder, recorder),
            "CallbackList": keras.callbacks.CallbackList(
                [recorder], add_history=True, model=trainer.model, epochs=2, steps=3
            ),
            "None": None,
        }[kind]
        arguments = {"verbose": 0, "callbacks": callbacks}
        history = trainer.fit(X, Y, batch_size=8, epochs=2, **arguments)
        evaluated = trainer.evaluate(X, Y, **arguments)
        predicted = trainer.predict(X, **arguments)
        return {
            "calls": calls(recorder),
            "history": history.history,
            "evaluate": evaluated,
            "predict": predicted,
            "weights": values(trainer.model.variables),
        }

    pair.assert_parity(script=script)


EVALUATIONS = [
    ("batch_size", {"batch_size": 5}),
    ("batch_size", {"batch_size": None}),
    ("steps", {"steps": 2, "batch_size": 5}),
    ("steps", {"steps": 9, "batch_size": 5}),
    ("steps", {"steps": 3}),
    ("sample_weight", {"sample_weight": COUNT}),
    ("verbose", {"verbose": 1, "batch_size": 5}),
    ("verbose", {"verbose": 2}),
    ("verbose", {"verbose": "auto"}),
    ("return_dict", {"return_dict": True}),
    ("callbacks", {"callbacks": Recorder}),
]


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(a, id=str(a), marks=covers(f"evaluate: {name}")) for name, a in EVALUATIONS],
)
@covers("evaluate: x", "evaluate: y")
def test_evaluate(pair, arguments):
    def script(trainer):
        recorder = Recorder()
        given = {"verbose": 0, **arguments, "callbacks": [recorder]}
        result = trainer.evaluate(X, Y, **given)
        return {"result": result, "calls": calls(recorder)}

    pair.assert_parity(script=script)


PREDICTIONS = [
    ("batch_size", {"batch_size": 5}),
    ("batch_size", {"batch_size": None}),
    ("steps", {"steps": 2, "batch_size": 5}),
    ("steps", {"steps": 9, "batch_size": 5}),
    ("verbose", {"verbose": 1, "batch_size": 5}),
    ("verbose", {"verbose": 2}),
    ("callbacks", {}),
]


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(a, id=str(a), marks=covers(f"predict: {name}")) for name, a in PREDICTIONS],
)
@covers("predict: x")
@pytest.mark.parametrize("block", [False, True])
def test_predict(pair, block_pair, arguments, block):
    def script(trainer):
        recorder = Recorder()
        given = {"verbose": 0, **arguments, "callbacks": [recorder]}
        result = trainer.predict(X, **given)
        return {"result": result, "calls": calls(recorder)}

    (block_pair if block else pair).assert_parity(script=script)


@covers("predict: before compile")
def test_predict_needs_no_compile():
    assert_parity(script=lambda Trainer: {"predict": Trainer(mlp()).predict(X, verbose=0)})


@covers("parameters, their order and their defaults", promise="those of `keras.Model`")
@pytest.mark.parametrize("method", ["compile", "fit", "evaluate", "predict"])
def test_parameters_order_and_defaults_are_those_of_keras(method):
    import keras_fit
    import manual_loop

    def parameters(cls):
        found = inspect.signature(getattr(cls, method)).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is not p.VAR_KEYWORD]

    assert parameters(manual_loop.Trainer) == parameters(keras.Model)
    assert parameters(keras_fit.Trainer) == parameters(keras.Model)
