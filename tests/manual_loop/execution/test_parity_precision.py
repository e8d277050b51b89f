"""Half precision: mixed_float16 with its scaled loss, mixed_bfloat16; float64."""

import warnings

import keras
import pytest
from cases import CLASSES, SHORT, compile_with, mlp, plain, policy
from parity import assert_parity, covers, fit


@covers("compile: auto_scale_loss", "precision: mixed_float16")
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"auto_scale_loss": False},
        {"run_eagerly": True},
        {"steps_per_execution": 2},
        {"optimizer": "new LossScaleOptimizer"},
    ],
    ids=str,
)
def test_mixed_float16(how):
    def compile():
        arguments = compile_with(**how)()
        if "optimizer" in how:  # not wrapped again
            inner = keras.optimizers.Adam()
            arguments["optimizer"] = keras.optimizers.LossScaleOptimizer(inner, 4.0, 2)
        return arguments

    with policy("mixed_float16"):
        seen = assert_parity(mlp, compile, CLASSES, then=None if not how else fit, **SHORT)
    scaled = any("dynamic_scale" in path for path in seen["optimizer variables"])
    assert scaled == ("auto_scale_loss" not in how)


@covers("precision: mixed_float16 with XLA")
@pytest.mark.parametrize("block", [1, 2])
def test_mixed_float16_with_xla(block):
    how = {"jit_compile": True, "steps_per_execution": block}
    with policy("mixed_float16"):
        assert_parity(mlp, compile_with(**how), CLASSES, then=fit, epochs=2, batch_size=11)


@covers("precision: an overflow")
def test_an_overflow_leaves_out_the_step_and_halves_the_scale():
    def compile():
        inner = keras.optimizers.Adam()
        return compile_with(optimizer=keras.optimizers.LossScaleOptimizer(inner, 2.0**40))()

    with policy("mixed_float16"):
        seen = assert_parity(mlp, compile, CLASSES, then=fit, **SHORT)
    variables = seen["optimizer variables"]
    steps = 2 * 2
    assert variables["loss_scale_optimizer/dynamic_scale"] == 2.0 ** (40 - steps)
    assert variables["adam/iteration"] == 0
    assert not any(values.any() for path, values in variables.items() if "momentum" in path)


@covers("precision: mixed_bfloat16")
def test_mixed_bfloat16():
    with policy("mixed_bfloat16"):
        assert_parity(mlp, compile_with(), CLASSES, then=fit, **SHORT)


@covers("precision: a policy of one layer")
def test_one_layer_of_float16():
    def build():
        layers = [keras.Input([8]), keras.layers.Dense(4, dtype="mixed_float16")]
        return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])

    assert_parity(build, compile_with(), CLASSES, then=fit, **SHORT)


@covers("precision: floatx float64")
def test_float64():
    keras.config.set_floatx("float64")
    try:
        with policy("float64"):
            assert_parity(mlp, compile_with(run_eagerly=True), CLASSES, **SHORT)
    finally:
        keras.config.set_floatx("float32")


@covers("precision: floatx bfloat16")
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_bfloat16(run_eagerly):
    """NumPy cannot make an array of a scalar tensor of bfloat16, so fit leaves such logs tensors
    (`keras/src/utils/python_utils.py`, `pythonify_logs`, Keras 3.15).
    """

    def script(Trainer):
        # NumPy's, for each log that is converted; the loop converts none that no callback sees
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        trainer = Trainer(plain())
        trainer.compile(**compile_with(run_eagerly=run_eagerly)())
        logs = trainer.fit(**CLASSES, **SHORT, verbose=0).history
        logs["evaluate"] = trainer.evaluate(**CLASSES, verbose=0)
        return {name: [(type(v).__name__, float(v)) for v in logs[name]] for name in logs}

    keras.config.set_floatx("bfloat16")
    try:
        with policy("bfloat16"):
            seen = assert_parity(script=script)
    finally:
        keras.config.set_floatx("float32")
    assert seen["val_loss"][0][0] == "EagerTensor"
