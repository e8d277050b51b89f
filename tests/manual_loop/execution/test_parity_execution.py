"""How a step is run: eager, graph, XLA; one batch a call or several."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, IMAGES, SEQUENCES, SHORT, X, Y, cnn, compile_with, lstm, mlp, plain, rnn
from parity import assert_parity, covers, fit, train

import manual_loop
from manual_loop.execution import xla_stages

# XLA compiles anew for each size of a batch: these are all of one size.
WHOLE = {"epochs": 2, "batch_size": 11}
TEST = {"x": X, "y": Y, "batch_size": 11}


@covers("compile: run_eagerly", "compile: steps_per_execution")
@pytest.mark.parametrize(
    "how",
    [
        {"optimizer": "adam"},
        {"run_eagerly": True},
        {"optimizer": "adam", "steps_per_execution": 2},
        {"steps_per_execution": 50},
        {"steps_per_execution": 2, "run_eagerly": True},
    ],
    ids=str,
)
def test_each_way_to_run_a_step(how):
    assert_parity(mlp, compile_with(**how), CLASSES, epochs=2, batch_size=4, validation_split=0.3)


@covers("compile: jit_compile", "compile: steps_per_execution")
@pytest.mark.parametrize("block", [1, 2])
def test_xla(block):
    how = {"optimizer": "adam", "jit_compile": True, "steps_per_execution": block}
    assert_parity(mlp, compile_with(**how), CLASSES, TEST, **WHOLE)


def stream():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4, drop_remainder=True)


STREAMS = {
    "known size": lambda: {"x": stream()},
    "endless": lambda: {"x": stream().repeat()},
    "unknown size": lambda: {"x": stream().filter(lambda x, y: True)},
}


@covers("compile: jit_compile", "compile: steps_per_execution", "data: tf.data.Dataset")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("stage", ["one batch", "the block"])
def test_streams_with_xla_in_blocks(monkeypatch, kind, stage):
    monkeypatch.setattr(xla_stages, "STAGE_BYTES", 1 if stage == "one batch" else 2**20)
    how = {"optimizer": "sgd", "jit_compile": True, "steps_per_execution": 3}
    arguments = {"epochs": 2, "steps_per_epoch": 4} if kind == "endless" else {"epochs": 2}
    assert_parity(plain, compile_with(**how), STREAMS[kind], then=fit, **arguments)


@covers("compile: jit_compile", "compile: steps_per_execution")
def test_arrays_with_xla_in_blocks(monkeypatch):
    monkeypatch.setattr(xla_stages, "STAGE_BYTES", 500)  # three batches
    how = {"optimizer": "sgd", "jit_compile": True, "steps_per_execution": 4}
    assert_parity(plain, compile_with(**how), CLASSES, then=fit, epochs=2, batch_size=4)


def dropped_out():
    """Its step has other last bits where XLA compiles a loop over one batch."""
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@covers("compile: jit_compile", "compile: steps_per_execution")
def test_xla_in_blocks_where_there_is_one_batch():
    random = np.random.default_rng(0)
    y = random.integers(3, size=360)
    x = (random.normal(size=[3, 8])[y] + random.normal(size=[360, 8])).astype("float32")
    compile = compile_with(jit_compile=True, steps_per_execution=10)
    data = {"x": x[:32], "y": y[:32]}
    assert_parity(dropped_out, compile, data, then=fit, batch_size=32, shuffle=False)


@covers("compile: jit_compile")
@pytest.mark.parametrize(
    "how",
    [
        {"jit_compile": "auto"},  # off without a GPU
        {"jit_compile": "auto", "run_eagerly": True},
        {"jit_compile": True, "run_eagerly": True},  # warns, and eager wins
    ],
    ids=str,
)
def test_xla_is_on_where_fit_has_it_on(how):
    def script(Trainer):
        seen = train(Trainer, model, compile_with(**how), CLASSES, then=fit, batch_size=11)
        return {**seen, "jit_compile": built[-1].jit_compile, "eager": built[-1].run_eagerly}

    def model():
        built.append(plain())
        return built[-1]

    built = []
    seen = assert_parity(script=script)
    assert not seen["jit_compile"]


@covers("model: convolutions, BatchNormalization, Dropout")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=str)
def test_convolutions(how):
    compile = compile_with(optimizer="sgd", **how)
    assert_parity(cnn, compile, {"x": IMAGES, "y": Y}, **SHORT)


@covers("compile: jit_compile", "model: convolutions, BatchNormalization, Dropout")
@pytest.mark.parametrize("block", [1, 2])
def test_convolutions_with_xla(block):
    how = {"jit_compile": True, "metrics": None, "steps_per_execution": block}
    assert_parity(cnn, compile_with(**how), {"x": IMAGES, "y": Y}, then=fit, **WHOLE)


@covers("model: recurrent and masked layers")
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
def test_recurrent_layers(how):
    compile = compile_with(optimizer="sgd", **how)
    assert_parity(rnn, compile, {"x": SEQUENCES, "y": Y}, **SHORT)


@covers("compile: jit_compile", "model: recurrent and masked layers")
def test_recurrent_layers_with_xla():
    how = {"jit_compile": True, "steps_per_execution": 2, "metrics": None}
    assert_parity(lstm, compile_with(**how), {"x": SEQUENCES, "y": Y}, then=fit, **WHOLE)


def test_functions_run_eagerly():
    def script(Trainer):
        warnings.filterwarnings("ignore", "Even though the `tf.config")  # one for each tf.data map
        warnings.filterwarnings("ignore", "__array__ implementation")  # of NumPy, as everywhere
        compile = compile_with(optimizer="sgd", steps_per_execution=2)
        return train(Trainer, plain, compile, CLASSES, **SHORT)

    tf.config.run_functions_eagerly(True)
    try:
        assert_parity(script=script)
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def limits():
    keras.config.set_max_epochs(1)
    keras.config.set_max_steps_per_epoch(2)
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


@covers("fit: a limit of epochs and steps (keras.config)")
@pytest.mark.parametrize("given", [{"epochs": 3}, {"steps_per_epoch": 2}, {"steps_per_epoch": 3}])
def test_limits_for_debugging(limits, given):
    eager = compile_with(run_eagerly=True)
    seen = assert_parity(plain, eager, CLASSES, **given, batch_size=4)
    assert len(seen["epochs"]) == 1


@covers("fit: where the warning of a limit points", promise="to the line of the call")
def test_where_a_warning_comes_from(limits):
    trainer = manual_loop.Trainer(plain())
    trainer.compile(**compile_with(run_eagerly=True)())
    with pytest.warns(UserWarning, match="Limiting|ran out") as caught:
        trainer.fit(X, Y, batch_size=22, epochs=2, verbose=0)
    found = [(str(warning.message)[:8], warning.filename) for warning in caught]
    here, there = __file__, manual_loop.trainer.__file__
    assert found == [("Limiting", here), ("Limiting", here), ("Your inp", there)]
