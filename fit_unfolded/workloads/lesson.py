"""The lesson's example, unchanged: 100 rows of ones, 128 inputs, 3 classes."""

import keras
import numpy as np

from fit_unfolded.workloads import Data

FIT = {"epochs": 100, "validation_split": 0.3, "batch_size": 16}


def make_data(seed):
    """x `[100, 128]` and y `[100, 1]` of ones; also the test set, as in the lesson."""
    x = np.ones([100, 128])
    y = np.ones([100, 1])
    return Data(x, y, x, y)


def build():
    """128 inputs, a hidden layer of 64, 3 classes."""
    return keras.Sequential(
        [
            keras.layers.Input([128]),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def compile_arguments():
    """Integer labels need the sparse loss."""
    return {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
