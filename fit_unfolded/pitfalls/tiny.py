"""Data and models that several experiments share: small, and trained in a second."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.workloads import Data

CLASSES = 3
SPARSE = "sparse_categorical_crossentropy"


def blobs(samples: int = 44, spread: float = 1.0, shift: float = 0.0) -> Data:
    """Three clouds of points in eight dimensions.

    Args:
        samples: to train on; a quarter as many to test.
        spread: of the points around the centre of their cloud, whose distances are about 4.
        shift: added to all features.

    Returns:
        x `[samples, 8]` float32, y `[samples]` int64.
    """
    rng = np.random.default_rng(0)
    total = samples + samples // 4
    y = rng.integers(0, CLASSES, total)
    centres = rng.normal(size=[CLASSES, 8])
    x = shift + centres[y] + spread * rng.normal(size=[total, 8])
    x = x.astype("float32")
    return Data(x[:samples], y[:samples], x[samples:], y[samples:])


def line(samples: int = 40) -> Data:
    """A straight line with noise: x `[samples, 4]`, y `[samples]`, both float32."""
    rng = np.random.default_rng(0)
    total = samples + samples // 4
    x = rng.normal(size=[total, 4]).astype("float32")
    y = (x @ [1.0, -2.0, 0.5, 3.0] + 0.1 * rng.normal(size=total)).astype("float32")
    return Data(x[:samples], y[:samples], x[samples:], y[samples:])


def classifier(*hidden: Any, activation: str | None = "softmax") -> keras.Model:
    """Eight inputs, the hidden layers, three classes."""
    output = keras.layers.Dense(CLASSES, activation=activation)
    return keras.Sequential([keras.Input([8]), *hidden, output])


def eager(optimizer: Any, loss: Any = SPARSE, **more: Any) -> dict[str, Any]:
    """Arguments of `compile` for a run without a graph: exact, and nothing to trace."""
    return {"optimizer": optimizer, "loss": loss, "run_eagerly": True, **more}


# Cases of several pitfalls, one object each: fit and the right loop train them once for all.


@functools.cache
def plain_case() -> Case:
    """Four batches of twelve an epoch, momentum, an accuracy, and rows held back."""
    return Case(
        data=blobs(60, spread=2.0),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.05, momentum=0.9), metrics=["acc"]),
        fit={"epochs": 4, "batch_size": 12, "validation_split": 0.2},
    )


@functools.cache
def regularized_case() -> Case:
    """A strong L2 regularizer."""
    return Case(
        data=blobs(),
        build=lambda: classifier(
            keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.05))
        ),
        compile=lambda: eager("adam"),
        fit={"epochs": 5, "batch_size": 11},
    )


@functools.cache
def class_weight_case() -> Case:
    """The third class counts five times; a part of the data is held back."""
    return Case(
        data=blobs(),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.05)),
        fit={
            "epochs": 5,
            "batch_size": 11,
            "class_weight": {0: 1.0, 1: 1.0, 2: 5.0},
            "validation_split": 0.25,
        },
    )


@functools.cache
def clipped_case() -> Case:
    """Gradients that are longer than they may be, most of them, all together."""
    return Case(
        data=blobs(48, spread=2.0),
        build=lambda: classifier(keras.layers.Dense(8, activation="relu")),
        compile=lambda: eager(keras.optimizers.SGD(0.3, global_clipnorm=0.3)),
        fit={"epochs": 4, "batch_size": 12},
    )


@functools.cache
def uneven_case() -> Case:
    """Batches of 12, 12 and 11 samples; of 20 samples to test, 8 fill no batch."""
    return Case(
        data=blobs(80, spread=2.0),
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.1)),
        fit={"epochs": 4, "batch_size": 12, "validation_split": 0.56},
    )


@functools.cache
def float16_case() -> Case:
    """Layers that compute in float16; plain SGD shows the size of the gradients as it is."""

    def build() -> keras.Model:
        with dtype_policy("mixed_float16"):
            return classifier(keras.layers.Dense(8, activation="relu"))

    return Case(
        data=blobs(),
        build=build,
        compile=lambda: eager(keras.optimizers.SGD(0.1)),
        fit={"epochs": 5, "batch_size": 11},
    )


@functools.cache
def traced_case() -> Case:
    """A graph, and a layer that counts how often it is traced."""
    return Case(
        data=blobs(33),
        build=lambda: classifier(Traced()),
        compile=lambda: {"optimizer": "sgd", "loss": SPARSE},
        fit={"epochs": 4, "batch_size": 11},
    )


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """The policy of the layers and models that are made in this block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Traced(keras.layers.Layer):
    """Passes its input on and counts how often Python runs its `call` in training.

    In a graph that is once for each trace; run eagerly, once for each batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def call(self, x, training=False):
        """Counts, also while a graph is traced."""
        self.runs += bool(training)
        return x
