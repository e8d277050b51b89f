"""The lesson's model on learnable data, with one-hot labels."""

import keras
import numpy as np

from fit_unfolded.workloads import Data
from fit_unfolded.workloads.lesson import build

__all__ = ["FIT", "build", "compile_arguments", "make_data"]

FIT = {"epochs": 100, "validation_split": 0.3, "batch_size": 16}


def make_data(seed):
    """Noise around three centers: x `[100, 128]`, y one-hot `[100, 3]`, and a test set of 50."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=[3, 128])
    labels = rng.integers(3, size=150)
    x = (centers[labels] + rng.normal(scale=2.0, size=[150, 128])).astype("float32")
    y = keras.utils.to_categorical(labels, 3)
    return Data(x[:100], y[:100], x[100:], y[100:])


def compile_arguments():
    """One-hot labels need the loss without "sparse"."""
    return {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": ["acc"]}
