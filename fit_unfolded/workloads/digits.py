"""1,797 real 8x8 images of digits, a small convolutional network."""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fit_unfolded.workloads import Data

FIT = {"epochs": 10, "validation_split": 0.1, "batch_size": 32}


def make_data(seed):
    """x `[samples, 8, 8, 1]` float32 in [0, 1], y `[samples]` int64; a fifth is the test set."""
    images, labels = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    x, x_test, y, y_test = train_test_split(
        x, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    return Data(x, y, x_test, y_test)


def build():
    """One convolution with BatchNorm, a hidden layer with an L2 regulariser and Dropout."""
    return keras.Sequential(
        [
            keras.layers.Input([8, 8, 1]),
            keras.layers.Conv2D(16, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(
                64, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4)
            ),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def compile_arguments():
    """Integer labels need the sparse loss."""
    return {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
