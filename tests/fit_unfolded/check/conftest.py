"""Small training loops in several styles, as files."""

import pytest

HEAD = '''"""A loop of one's own."""

import keras
import numpy as np
import tensorflow as tf


def build():
    return keras.Sequential(
        [
            keras.Input([4]),
            keras.layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(3, "softmax"),
        ]
    )


def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 43)
    x = (rng.normal(size=[3, 4])[y] + rng.normal(size=[43, 4])).astype("float32")
    return {"x": x[:33], "y": y[:33], "validation_data": (x[33:], y[33:])}


def compile():
    return {
        "optimizer": keras.optimizers.SGD(0.05, 0.9),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 2, "batch_size": 20}
'''

# One long function, tf.data, metric objects.
SCRIPT = """

def train(model, x, y, validation_data, epochs, batch_size):
    opt = keras.optimizers.SGD(0.05, 0.9)
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    mean, acc = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch_size)
    tests = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)
    history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    for epoch in range(epochs):
        mean.reset_state()
        acc.reset_state()
        for xb, yb in batches:
            with tf.GradientTape() as tape:
                out = model(xb, training=True)
                loss = loss_fn(yb, out) + tf.add_n(model.losses)
            grads = tape.gradient(loss, model.trainable_variables)
            opt.apply_gradients(zip(grads, model.trainable_variables))
            mean.update_state(loss, sample_weight=len(xb))
            acc.update_state(yb, out)
        history["loss"].append(mean.result().numpy())
        history["accuracy"].append(acc.result().numpy())
        mean.reset_state()
        acc.reset_state()
        for xb, yb in tests:
            out = model(xb, training=False)
            mean.update_state(loss_fn(yb, out) + tf.add_n(model.losses), sample_weight=len(xb))
            acc.update_state(yb, out)
        history["val_loss"].append(mean.result().numpy())
        history["val_accuracy"].append(acc.result().numpy())
    return history
"""

# A class, NumPy slices, a functional loss.
CLASS = """

class Learner:
    def __init__(self, model, rate):
        self.model = model
        self.optimizer = keras.optimizers.SGD(rate, momentum=0.9)

    def step(self, x, y):
        with tf.GradientTape() as tape:
            probabilities = self.model(x, training=True)
            terms = keras.losses.sparse_categorical_crossentropy(y, probabilities)
            loss = tf.reduce_mean(terms) + sum(self.model.losses)
        gradients = tape.gradient(loss, self.model.trainable_weights)
        self.optimizer.apply(gradients, self.model.trainable_weights)
        return float(loss)

    def run(self, x, y, epochs, batch_size):
        rng = np.random.default_rng(7)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for start in range(0, len(x), batch_size):
                rows = order[start : start + batch_size]
                self.step(x[rows], y[rows])


def train(model, x, y, epochs, batch_size):
    Learner(model, 0.05).run(x, y, epochs, batch_size)
"""

# A closure under tf.function; the epochs' means by hand.
CLOSURE = """

def make_step(model, optimizer, loss_of):
    @tf.function
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            predictions = model(inputs, training=True)
            total = loss_of(labels, predictions)
            for extra in model.losses:
                total += extra
        weights = model.trainable_weights
        slopes = tape.gradient(total, weights)
        optimizer.apply_gradients(list(zip(slopes, weights)))
        return total

    return step


def train(model, x, y, epochs=1, batch_size=32):
    step = make_step(
        model, keras.optimizers.SGD(0.05, 0.9), keras.losses.SparseCategoricalCrossentropy()
    )
    losses = []
    for epoch in range(epochs):
        order = np.random.permutation(len(y))
        total = 0.0
        for part in np.split(order, range(batch_size, len(y), batch_size)):
            total += float(step(tf.constant(x[part]), tf.constant(y[part]))) * len(part)
        losses.append(total / len(y))
    return {"loss": losses}
"""

# Everything by hand: cross entropy from logarithms, a generator of batches.
BY_HAND = """

def batches(x, y, size):
    order = np.arange(len(x))
    np.random.shuffle(order)
    for start in range(0, len(x), size):
        yield x[order[start : start + size]], y[order[start : start + size]]


def cross_entropy(labels, probabilities):
    picked = tf.gather(probabilities, labels, batch_dims=1)
    return -tf.reduce_mean(tf.math.log(picked))


def train(model, **given):
    optimizer = keras.optimizers.SGD(0.05, 0.9)
    for _ in range(given["epochs"]):
        for x, y in batches(given["x"], given["y"], given["batch_size"]):
            with tf.GradientTape() as tape:
                loss = cross_entropy(y, model(x, training=True)) + tf.add_n(model.losses)
            optimizer.apply_gradients(
                (g, w) for g, w in zip(tape.gradient(loss, model.trainable_weights),
                                       model.trainable_weights)
            )
"""

STYLES = {"script": SCRIPT, "class": CLASS, "closure": CLOSURE, "by_hand": BY_HAND}


@pytest.fixture
def write(tmp_path):
    """Writes a loop to a file: a style, and replacements in the whole file."""

    def make(style, *replacements):
        text = HEAD + STYLES.get(style, style)
        for right, wrong in replacements:
            assert text.count(right) >= 1, right
            text = text.replace(right, wrong)
        path = tmp_path / "loop.py"
        path.write_text(text)
        return path

    return make
