"""The images of digits, one hidden layer, logits, SGD with momentum."""

import keras

from fit_unfolded.workloads.digits import make_data

__all__ = ["FIT", "build", "compile_arguments", "make_data"]

FIT = {"epochs": 10, "validation_split": 0.1, "batch_size": 32}


def build():
    """64 pixels, a hidden layer of 128, 10 classes as logits."""
    return keras.Sequential(
        [
            keras.layers.Input([8, 8, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def compile_arguments():
    """The loss applies the softmax."""
    return {
        "optimizer": keras.optimizers.SGD(learning_rate=0.1, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
