"""Plain steps on arrays that lie on the device; Dropout, no metrics."""

import keras
import numpy as np
import tensorflow as tf


def compile():
    return {"optimizer": keras.optimizers.SGD(0.005, nesterov=True, momentum=0.8), "loss": "mse"}


FIT = {"epochs": 2, "batch_size": 8, "shuffle": False}


def data():
    rng = np.random.default_rng(90)
    x = rng.normal(size=(48, 6)).astype("float32")
    return {"x": x, "y": np.maximum(x[:, :2], 0)}


def build():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(20, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2),
        ]
    )


def train(model, x, y, epochs, batch_size):
    x, y = tf.constant(x), tf.constant(y)
    optimizer = keras.optimizers.SGD(0.005, nesterov=True, momentum=0.8)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(first):
        rows = first + tf.range(batch_size)
        with tf.GradientTape() as tape:
            out = model(tf.gather(x, rows), training=True)
            loss = tf.reduce_mean(tf.square(out - tf.gather(y, rows)))
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    for epoch in range(epochs):
        for first in range(0, len(x), batch_size):
            loss = step(tf.constant(first))
        print(f"epoch {epoch + 1}: {loss:.4f}")
