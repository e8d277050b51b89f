"""The models and data that are timed. Only the initial weights are random."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from fit_unfolded.workloads import digits, lesson


@dataclass(frozen=True)
class Model:
    """A model to train, on learnable synthetic data unless it has its own.

    Attributes:
        build: a new `keras.Model` that ends in a softmax.
        shape: of one sample.
        classes: number of labels.
        vocabulary: samples are integers below this; None for float samples.
        load: `samples -> (x, y)`, instead of synthetic data.
    """

    name: str
    description: str
    build: Callable[[], Any]
    shape: tuple[int, ...]
    classes: int
    batch_size: int
    samples: int
    vocabulary: int | None = None
    load: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def steps(self) -> int:
        """Batches per epoch, a partial one included."""
        return math.ceil(self.samples / self.batch_size)

    def data(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """x `[samples, *shape]`, float32 or int32, and integer y, in memory.

        A fifth of the synthetic labels is shuffled, so that the loss stays large compared with
        rounding.
        """
        if self.load is not None:
            return self.load(self.samples)
        rng = np.random.default_rng(seed)
        kind = rng.integers(self.classes, size=self.samples, dtype=np.int32)
        y = np.where(rng.random(self.samples) < 0.8, kind, rng.permutation(kind))
        if self.vocabulary is not None:  # each class prefers its own words
            words = rng.integers(self.vocabulary // 2, size=[self.samples, *self.shape])
            shift = self.vocabulary // 2 // self.classes
            return (words + kind[:, None] * shift).astype("int32"), y
        centers = rng.normal(size=[self.classes, *self.shape]).astype("float32")
        x = rng.standard_normal(size=[self.samples, *self.shape], dtype="float32")
        return 2 * x + centers[kind], y

    def cut(self, samples: int) -> "Model":
        """The same model with at most `samples` samples."""
        return replace(self, samples=min(samples, self.samples))


def mlp(width: int = 512) -> Any:
    """784 inputs, one hidden layer, 10 classes."""
    return keras.Sequential(
        [
            keras.layers.Input([784]),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def cnn() -> Any:
    """Two convolutions with pooling on 28x28 pixels, 10 classes."""
    return keras.Sequential(
        [
            keras.layers.Input([28, 28, 1]),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class Positions(keras.layers.Layer):
    """Adds a learned vector for each position; input and output `[batch, length, width]`."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x):
        return x + self.table


def transformer(length: int = 32, width: int = 64, blocks: int = 1, heads: int = 4) -> Any:
    """An encoder of one block over 32 tokens, 64 wide, 4 heads; 4 classes from the mean token."""
    layers = keras.layers
    tokens = layers.Input([length], dtype="int32")
    x = Positions()(layers.Embedding(1000, width)(tokens))
    for _ in range(blocks):
        attended = layers.MultiHeadAttention(heads, width // heads)(x, x)
        x = layers.LayerNormalization()(layers.add([x, attended]))
        hidden = layers.Dense(4 * width, activation="gelu")(x)
        x = layers.LayerNormalization()(layers.add([x, layers.Dense(width)(hidden)]))
    pooled = layers.GlobalAveragePooling1D()(x)
    # under mixed precision the softmax stays in float32, as Keras advises
    return keras.Model(tokens, layers.Dense(4, activation="softmax", dtype="float32")(pooled))


def resnet20() -> Any:
    """The residual network of 20 layers for 32x32 pixels in three colors, 10 classes."""
    layers = keras.layers

    def convolution(x: Any, filters: int, size: int, strides: int) -> Any:
        convolve = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)
        return layers.BatchNormalization()(convolve(x))

    image = layers.Input([32, 32, 3])
    x = layers.ReLU()(convolution(image, 16, 3, 1))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if block == 0 and filters > 16 else 1
            shortcut = convolution(x, filters, 1, strides) if strides > 1 else x
            hidden = layers.ReLU()(convolution(x, filters, 3, strides))
            x = layers.ReLU()(layers.add([shortcut, convolution(hidden, filters, 3, 1)]))
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(pooled))


VOCABULARY, LENGTH = 1000, 128


def language_model(width: int = 256, blocks: int = 4, heads: int = 8) -> Any:
    """A causal transformer over 128 tokens: 4 layers, 256 wide, 8 heads; the next token."""
    layers = keras.layers
    tokens = layers.Input([LENGTH], dtype="int32")
    x = Positions()(layers.Embedding(VOCABULARY, width)(tokens))
    for _ in range(blocks):
        attend = layers.MultiHeadAttention(heads, width // heads)
        normal = layers.LayerNormalization()(x)
        x = layers.add([x, attend(normal, normal, use_causal_mask=True)])
        hidden = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.add([x, layers.Dense(width)(hidden)])
    x = layers.LayerNormalization()(x)
    return keras.Model(tokens, layers.Dense(VOCABULARY, activation="softmax", dtype="float32")(x))


def text(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and their successors, both int32 `[samples, 128]`; a line often repeats its first."""
    rng = np.random.default_rng(0)
    words = rng.integers(VOCABULARY, size=[samples, LENGTH + 1], dtype=np.int32)
    words = np.where(rng.random(words.shape) < 0.5, words[:, :1], words)
    return words[:, :-1], words[:, 1:]


def images_of_digits(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of the training set of the workload `digits`."""
    data = digits.make_data(0)
    return data.x[:samples], data.y[:samples].astype("int32")


MODELS = {
    model.name: model
    for model in (
        Model("lesson", "128-64-3", lesson.build, (128,), 3, 16, 4096),
        Model("mlp", "784-512-10", mlp, (784,), 10, 128, 4096),
        Model("cnn", "two convolutions, 28x28", cnn, (28, 28, 1), 10, 128, 1024),
        Model("transformer", "encoder, 64 wide", transformer, (32,), 4, 32, 512, vocabulary=1000),
        Model(
            "digits", "a convolution, 8x8", digits.build, (8, 8, 1), 10, 32, 1437,
            load=images_of_digits,
        ),
    )
}  # fmt: skip

# So large that a step takes a good part of a second on a CPU: few steps in an epoch.
LARGE_MODELS = {
    model.name: model
    for model in (
        Model("resnet20", "ResNet-20, 32x32x3", resnet20, (32, 32, 3), 10, 128, 384),
        Model(
            "language model", "causal, 4 layers, 256 wide, 128 tokens", language_model, (LENGTH,),
            VOCABULARY, 8, 32, load=text,
        ),
    )
}  # fmt: skip


def compile_arguments() -> dict[str, Any]:
    """Adam, integer labels, accuracy; new objects at each call."""
    return {
        "optimizer": keras.optimizers.Adam(1e-3),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": ["acc"],
    }
