"""A learning rate that decays with every step, set by hand before each update."""

import keras
import numpy as np
import tensorflow as tf

INITIAL, RATE, STEPS = 0.1, 0.8, 2


def compile():
    decay = keras.optimizers.schedules.ExponentialDecay(INITIAL, STEPS, RATE, staircase=True)
    return {"optimizer": keras.optimizers.SGD(decay), "loss": "mse"}


FIT = {"epochs": 3, "batch_size": 15, "shuffle": False}


def data():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, size=(60, 3)).astype("float32")
    return {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True)).astype("float32")}


def build():
    return keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(10, activation="sigmoid"), keras.layers.Dense(1)]
    )


def learning_rate(count):
    return INITIAL * RATE ** (count // STEPS)


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.SGD(learning_rate=INITIAL)
    mse = keras.losses.MeanSquaredError()

    @tf.function
    def one_step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = mse(targets, model(inputs, training=True))
        gradient = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradient, model.trainable_variables))
        return loss

    history = []
    global_step = 0
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    for epoch in range(epochs):
        losses = []
        for inputs, targets in batches:
            optimizer.learning_rate.assign(learning_rate(global_step))
            losses.append(one_step(inputs, targets).numpy())
            global_step += 1
        history.append(float(np.mean(losses)))  # four batches of the same size
    return {"loss": history}
