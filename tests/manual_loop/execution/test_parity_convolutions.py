"""Convolutions with several steps per call: as fit with the same number, to the last bit.

With small batches, BatchNormalization magnifies the last bits of a convolution. TensorFlow
optimizes the ops of a loop differently from those outside, so fit with `steps_per_execution=2` and
with 1 may end up far apart; the loop follows each of them.
"""

import keras
import numpy as np
import pytest
from parity import assert_parity, covers, fit

RANDOM = np.random.default_rng(0)
DATA = {
    "x": RANDOM.normal(size=(12, 32, 32, 3)).astype("float32"),
    "y": RANDOM.integers(0, 3, 12),
}


def block(x, filters, stride):
    """An inverted residual block with squeeze and excitation, as in EfficientNet."""
    layers = keras.layers
    h = layers.Conv2D(2 * filters, 1, use_bias=False)(x)
    h = layers.Activation("swish")(layers.BatchNormalization()(h))
    h = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(h)
    h = layers.Activation("swish")(layers.BatchNormalization()(h))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(h)
    h = layers.Multiply()([h, layers.Conv2D(2 * filters, 1, activation="sigmoid")(squeezed)])
    return layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(h))


def efficient():
    x = inputs = keras.Input([32, 32, 3])
    for filters in (4, 8, 8):
        x = block(x, filters, 2)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def residual():
    layers = keras.layers
    inputs = keras.Input([32, 32, 3])
    x = layers.Conv2D(8, 3, 2, padding="same")(inputs)
    h = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, h]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def separable():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([32, 32, 3]),
            layers.SeparableConv2D(6, 3, 2),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(4, 3, 2),
            layers.LayerNormalization(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


ARCHITECTURES = [efficient, residual, separable]


@covers("compile: steps_per_execution", "model: convolutions, BatchNormalization, Dropout")
@pytest.mark.parametrize("build", ARCHITECTURES, ids=lambda build: build.__name__)
def test_several_steps_per_call_around_convolutions(build):
    def script(Trainer):
        trainer = Trainer(build())
        trainer.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=2)
        return fit(trainer, DATA, batch_size=4, shuffle=False)

    assert_parity(script=script)
