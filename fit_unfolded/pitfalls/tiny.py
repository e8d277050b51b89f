"""Data and models that several experiments share: small, and trained in a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

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
