"""Samples with weights, for example the number of times that a row was seen."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris

COMPILE = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}
FIT = {"epochs": 3, "batch_size": 30}


def data():
    x, y = load_iris(return_X_y=True)
    counts = np.random.default_rng(8).integers(1, 6, size=len(x)).astype("float32")
    return {"x": x.astype("float32"), "y": y, "sample_weight": counts}


def build():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(3, activation="softmax")])


def weighted_loss(y_true, y_pred, weights):
    per_sample = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
    return tf.reduce_mean(per_sample * weights)


def train(model, x, y, sample_weight, epochs, batch_size):
    sgd = keras.optimizers.SGD()
    running = keras.metrics.Mean()

    @tf.function
    def update(xs, ys, ws):
        with tf.GradientTape() as tape:
            probs = model(xs, training=True)
            loss = weighted_loss(ys, probs, ws)
        grads = tape.gradient(loss, model.trainable_weights)
        sgd.apply_gradients(zip(grads, model.trainable_weights))
        return loss

    rows = tf.data.Dataset.from_tensor_slices((x, y, sample_weight))
    rows = rows.shuffle(buffer_size=len(x)).batch(batch_size)
    losses = []
    for _ in range(epochs):
        running.reset_state()
        for xs, ys, ws in rows:
            running(update(xs, ys, ws), sample_weight=len(xs))
        losses.append(float(running.result()))
    return {"loss": losses}
