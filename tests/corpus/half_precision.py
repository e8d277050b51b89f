"""Mixed precision, with the loss scaled by hand."""

import keras
import numpy as np
import tensorflow as tf

keras.mixed_precision.set_global_policy("mixed_float16")


def compile():
    return {"optimizer": keras.optimizers.SGD(0.1, clipnorm=1.0), "loss": "mse"}


FIT = {"epochs": 2, "batch_size": 16, "shuffle": False}


def data():
    rng = np.random.default_rng(17)
    x = rng.normal(size=(64, 8)).astype("float32")
    return {"x": x, "y": 0.2 * (x[:, :1] - x[:, 1:2])}


def build():
    inputs = keras.Input((8,))
    x = keras.layers.Dense(16, activation="relu")(inputs)
    outputs = keras.layers.Dense(1, dtype="float32")(x)
    return keras.Model(inputs, outputs)


def train(model, x, y, epochs, batch_size):
    inner = keras.optimizers.SGD(0.1, clipnorm=1.0)
    optimizer = keras.mixed_precision.LossScaleOptimizer(inner)
    optimizer.build(model.trainable_variables)
    mse = keras.losses.MeanSquaredError()
    tracker = keras.metrics.Mean()

    @tf.function
    def train_step(features, targets):
        with tf.GradientTape() as tape:
            predictions = model(features, training=True)
            loss = mse(targets, predictions)
            scaled_loss = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        tracker.update_state(loss)

    history = {"loss": []}
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    for epoch in range(epochs):
        tracker.reset_state()
        for features, targets in dataset:
            train_step(features, targets)
        history["loss"].append(float(tracker.result()))
    return history
