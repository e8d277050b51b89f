"""Tiny models and data that many tests train."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
random = np.random.default_rng(0)

SAMPLES = 22
X = random.normal(size=(SAMPLES, 8)).astype("float32")
SIDE = random.normal(size=(SAMPLES, 4)).astype("float32")
Y = random.integers(0, 3, (SAMPLES, 1))
ONE_HOT = np.eye(3, dtype="float32")[Y[:, 0]]
VALUE = random.normal(size=(SAMPLES, 1)).astype("float32")
IMAGES = random.normal(size=(SAMPLES, 6, 6, 1)).astype("float32")
SEQUENCES = random.normal(size=(SAMPLES, 5, 4)).astype("float32")
SEQUENCES[:, 3:] = 0  # what `Masking` leaves out
CLASSES = {"x": X, "y": Y}

SPARSE = "sparse_categorical_crossentropy"
SHORT = {
    "epochs": 2,
    "batch_size": 8,
    "validation_split": 0.3,
}  # 2 + 1 batches, the last ones short


def plain(outputs=3, activation="softmax"):
    """The quickest to trace that can still learn."""
    return keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(4, activation="relu"),
            layers.Dense(outputs, activation=activation),
        ]
    )


def functional(outputs=3):
    """As `plain`; its one output has a name, `out`."""
    inputs = keras.Input([8])
    hidden = layers.Dense(4, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(outputs, activation="softmax", name="out")(hidden))


def mlp():
    """With a regulariser, random numbers and moving averages."""
    return keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(6, activation="relu", kernel_regularizer="l2"),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def cnn():
    """The digits' model in small."""
    return keras.Sequential(
        [
            keras.Input([6, 6, 1]),
            layers.Conv2D(3, 3, kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def rnn():
    """Classes of masked sequences."""
    return keras.Sequential(
        [
            keras.Input([5, 4]),
            layers.Masking(),
            layers.LSTM(3, recurrent_dropout=0.2),
            layers.Dense(3, activation="softmax"),
        ]
    )


def lstm():
    """The smallest recurrent one."""
    return keras.Sequential(
        [keras.Input([5, 4]), layers.LSTM(3), layers.Dense(3, activation="softmax")]
    )


def two_outputs():
    """Outputs `klass` and `value` as a list."""
    x = keras.Input([8], name="x")
    h = layers.Dense(4, activation="relu")(x)
    klass = layers.Dense(3, activation="softmax", name="klass")(h)
    value = layers.Dense(1, name="value", activity_regularizer="l2")(h)
    return keras.Model(x, [klass, value])


def two_named():
    """Inputs `x` and `side`, outputs `klass` and `value`, as dicts."""
    x, side = keras.Input([8], name="x"), keras.Input([4], name="side")
    h = layers.Concatenate()([layers.Dense(4, activation="relu")(x), side])
    klass = layers.Dense(3, activation="softmax", name="klass")(h)
    value = layers.Dense(1, name="value")(h)
    return keras.Model({"x": x, "side": side}, {"klass": klass, "value": value})


def compile_with(**arguments):
    """The usual `compile` arguments with some replaced: those that are the quickest to trace."""
    return lambda: {"optimizer": "sgd", "loss": SPARSE, "metrics": ["acc"], **arguments}


class Stack(keras.Model):
    """A subclassed model of layers in a row; its `call` names `training`."""

    def __init__(self, stack):
        super().__init__()
        self.stack = stack

    def call(self, x, training=False):
        for layer in self.stack:
            takes = "training" in layer.call_signature_parameters
            x = layer(x, training=training) if takes else layer(x)
        return x


class Stop(keras.callbacks.Callback):
    """Stops the training at the end of a batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.batch:
            self.model.stop_training = True


@contextlib.contextmanager
def policy(name):
    """A dtype policy for the models built meanwhile."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def rows(structure, part):
    """A slice of every array in a structure."""
    return keras.tree.map_structure(lambda array: array[part], structure)


def batch_slices(batch=8):
    return [slice(start, start + batch) for start in range(0, SAMPLES, batch)]


class Batches(keras.utils.PyDataset):
    """`x` and `y` in batches of 8."""

    def __init__(self, x, y, **arguments):
        super().__init__(**arguments)
        self.batches = [(rows(x, part), rows(y, part)) for part in batch_slices()]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def as_arrays(x, y):
    return {"x": x, "y": y}


def as_tensors(x, y):
    return {"x": tf.constant(x), "y": keras.tree.map_structure(tf.constant, y)}


def as_dataset(x, y):
    y = tuple(y) if isinstance(y, list) else y
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(8)}


def as_unknown(x, y):
    return {"x": as_dataset(x, y)["x"].filter(lambda *batch: True)}


def as_generator(x, y):
    return {"x": ((rows(x, part), rows(y, part)) for part in batch_slices())}


def as_pydataset(x, y):
    return {"x": Batches(x, y)}


def whole(data):
    """As `validation_data` takes it: a tuple, or what holds the batches."""
    return (data["x"], data["y"]) if "y" in data else data["x"]
