"""60,000 28x28 images of digits, downloaded or from --data; two convolutions."""

import io
import zipfile

import keras
import numpy as np

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import read_bytes
from fit_unfolded.workloads import Data
from manual_loop.saving.trust import check_arrays

FIT = {"epochs": 2, "validation_split": 0.1, "batch_size": 128}
KEYS = ("x_train", "y_train", "x_test", "y_test")
ADVICE = f"give a .npz file with {', '.join(KEYS)}, or use the offline workload 'digits'"


def make_data(seed):
    """x `[samples, 28, 28, 1]` float32 in [0, 1], y `[samples]` integers 0 to 9.

    Keras downloads the file once, to its own directory, and keeps its checksum.
    """
    try:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # get_file (keras/src/utils/file_utils.py, 3.15.1) raises Exception
        raise InputError(f"mnist cannot be downloaded; with --data, {ADVICE}.") from error
    return Data(_pixels(x), y, _pixels(x_test), y_test)


def read_data(path):
    """As `make_data`, from a file such as Keras's own `mnist.npz`; pixels 0 to 255.

    Raises:
        InputError: for a file that is missing, damaged, lacks an array or holds other shapes.
    """
    content = io.BytesIO(read_bytes(path, "--data", f"a file; {ADVICE}"))
    try:
        with zipfile.ZipFile(content) as archive:
            check_arrays(archive)
        content.seek(0)
        with np.load(content) as arrays:
            found = {key: arrays[key] for key in KEYS if key in arrays}
    except Exception as error:  # zipfile and NumPy raise a dozen types for what somebody has made
        words = str(error).partition("\n")[0]
        raise InputError(f"--data: {path} cannot be read as .npz ({words}); {ADVICE}.") from error
    for key in KEYS:
        if key not in found:
            raise InputError(f"--data: {path} lacks the array {key}; {ADVICE}.")
    x, y, x_test, y_test = found.values()
    for name, images, labels in (("train", x, y), ("test", x_test, y_test)):
        _check(path, name, images, labels)
    return Data(_pixels(x), y, _pixels(x_test), y_test)


def _check(path, name, images, labels):
    def complain(problem):
        raise InputError(f"--data: {path}: {problem}; {ADVICE}.")

    if images.shape[1:] not in ((28, 28), (28, 28, 1)) or not len(images):
        complain(f"x_{name} must be [samples, 28, 28], not {list(images.shape)}")
    if labels.shape != (len(images),):
        complain(f"y_{name} must be [{len(images)}] like x_{name}, not {list(labels.shape)}")
    if images.dtype.kind not in "uif" or labels.dtype.kind not in "ui":
        complain(f"x_{name} must be numbers and y_{name} integers")
    if labels.min() < 0 or labels.max() > 9:
        complain(f"y_{name} must lie in 0 to 9")


def _pixels(images):
    return images.reshape(-1, 28, 28, 1).astype("float32") / 255


def build():
    """Two convolutions with pooling, Dropout, 10 classes."""
    return keras.Sequential(
        [
            keras.layers.Input([28, 28, 1]),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def compile_arguments():
    """Integer labels need the sparse loss."""
    return {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
