"""Three clouds of points, a small network with Dropout.

The commands take this file in place of the name of a workload:

fit-unfolded compare examples/blobs.py
fit-unfolded explain examples/blobs.py
fit-unfolded train examples/blobs.py
fit-unfolded gap examples/blobs.py
fit-unfolded bench examples/blobs.py
fit-unfolded check examples/blobs.py
"""

import keras
import numpy as np
import tensorflow as tf

# What the training is meant to be. Strings are made into new objects for each model; to pass an
# optimizer or a metric object, define compile() instead, which returns this dict.
COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
FIT = {"epochs": 5, "batch_size": 32, "shuffle": False}


def data():
    """Three clouds of points in eight dimensions; the last of the ten batches has 12 rows."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=360)
    x = (rng.normal(size=[3, 8])[y] + rng.normal(size=[360, 8])).astype("float32")
    return {"x": x[:300], "y": y[:300], "validation_data": (x[300:], y[300:])}


def build():
    """Eight inputs, a hidden layer of which Dropout leaves half, three classes."""
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def train(model, x, y, validation_data, epochs, batch_size):
    """The training loop that `check` compares with fit; the other commands do not call it."""
    optimizer = keras.optimizers.Adam()
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    mean_loss = keras.metrics.Mean()
    accuracy = keras.metrics.SparseCategoricalAccuracy()

    @tf.function(reduce_retracing=True)
    def train_step(x, y):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = loss_fn(y, y_pred)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
        accuracy.update_state(y, y_pred)

    @tf.function(reduce_retracing=True)
    def test_step(x, y):
        y_pred = model(x, training=False)
        mean_loss.update_state(loss_fn(y, y_pred), sample_weight=tf.shape(x)[0])
        accuracy.update_state(y, y_pred)

    def reset_metrics():
        mean_loss.reset_state()
        accuracy.reset_state()

    def log_metrics(prefix):
        history[prefix + "loss"].append(float(mean_loss.result()))
        history[prefix + "acc"].append(float(accuracy.result()))

    training = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    validation = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        reset_metrics()
        for batch in training:
            train_step(*batch)
        log_metrics("")

        reset_metrics()
        for batch in validation:
            test_step(*batch)
        log_metrics("val_")
    return history
