"""Validation costs time, so it runs after every second epoch only."""

from collections import defaultdict

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris

COMPILE = {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": ["acc"]}
FIT = {"epochs": 4, "batch_size": 16, "validation_freq": 2}


def data():
    x, label = load_iris(return_X_y=True)
    order = np.random.default_rng(5).permutation(150)
    x, label = x[order].astype("float32"), np.eye(3, dtype="float32")[label[order]]
    return {"x": x[:100], "y": label[:100], "validation_data": (x[100:], label[100:])}


def build():
    inp = keras.layers.Input((4,))
    out = keras.layers.BatchNormalization()(inp)
    out = keras.layers.Dense(12, "relu")(out)
    out = keras.layers.Dropout(0.25)(out)
    out = keras.layers.Dense(3, "softmax")(out)
    return keras.Model(inp, out)


class Running:
    """Mean loss and accuracy of the rows seen."""

    def __init__(self):
        self.rows = self.loss = self.right = 0

    def add(self, losses, probabilities, labels):
        self.rows += len(labels)
        self.loss += losses.numpy().sum()
        self.right += (probabilities.numpy().argmax(1) == labels.argmax(1)).sum()

    def write(self, history, prefix=""):
        history[prefix + "loss"].append(self.loss / self.rows)
        history[prefix + "acc"].append(self.right / self.rows)


def train(model, x, y, validation_data, validation_freq, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    cce = keras.losses.categorical_crossentropy

    @tf.function(reduce_retracing=True)
    def fit_batch(x, y):
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            losses = cce(y, p)
            loss = tf.reduce_mean(losses)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return losses, p

    @tf.function(reduce_retracing=True)
    def validate_batch(x, y):
        p = model(x, training=False)
        return cce(y, p), p

    history = defaultdict(list)
    val_x, val_y = validation_data
    for epoch in range(1, epochs + 1):
        running = Running()
        order = tf.random.shuffle(tf.range(len(x))).numpy()
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            running.add(*fit_batch(x[rows], y[rows]), y[rows])
        running.write(history)

        if epoch % validation_freq == 0:
            running = Running()
            for start in range(0, len(val_x), batch_size):
                xs, ys = val_x[start : start + batch_size], val_y[start : start + batch_size]
                running.add(*validate_batch(xs, ys), ys)
            running.write(history, "val_")
    return {name: [float(v) for v in values] for name, values in history.items()}
