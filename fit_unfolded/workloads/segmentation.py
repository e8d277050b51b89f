"""Image labels: which pixels of noisy images of digits are ink."""

import keras
import numpy as np

from fit_unfolded.workloads import Data
from fit_unfolded.workloads.digits import make_data as digit_images

FIT = {"epochs": 5, "validation_split": 0.1, "batch_size": 32}


def make_data(seed):
    """x `[samples, 8, 8, 1]` float32 with noise, y `[samples, 8, 8, 1]` float32: 1 for ink."""
    digits = digit_images(seed)
    rng = np.random.default_rng(seed)

    def noisy(images):
        return images + rng.normal(scale=0.3, size=images.shape).astype("float32")

    def ink(images):
        return (images >= 0.5).astype("float32")

    return Data(noisy(digits.x), ink(digits.x), noisy(digits.x_test), ink(digits.x_test))


def build():
    """Three convolutions that keep width and height; the last outputs the probability of ink."""
    return keras.Sequential(
        [
            keras.layers.Input([8, 8, 1]),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(1, 1, activation="sigmoid"),
        ]
    )


def compile_arguments():
    """A binary label for each pixel."""
    return {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["acc"]}
