"""A repeated dataset without an end, and a fixed number of steps in each epoch."""

import itertools

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "rmsprop", "loss": "mean_absolute_error", "metrics": ["mse"]}
FIT = {"epochs": 3, "steps_per_epoch": 4}


def data():
    rng = np.random.default_rng(77)
    angle = rng.uniform(-3, 3, size=(72, 1)).astype("float32")
    radius = rng.uniform(0.5, 2, size=(72, 1)).astype("float32")
    features = np.hstack([angle, radius])
    target = radius * np.sin(angle)
    ds = tf.data.Dataset.from_tensor_slices((features, target)).batch(12).repeat()
    return {"x": ds}


def build():
    polar = keras.Input([2])
    h = keras.layers.Dense(24, activation="elu")(polar)
    return keras.Model(polar, keras.layers.Dense(1)(h))


def train(model, x, epochs, steps_per_epoch):
    optimizer = keras.optimizers.RMSprop()
    stream = iter(x)
    mean_loss, mse = keras.metrics.Mean("loss"), keras.metrics.MeanSquaredError("mse")

    def step(features, target):
        with tf.GradientTape() as tape:
            guess = model(features, training=True)
            loss = tf.math.reduce_mean(tf.math.abs(guess - target))
        grads = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients([(g, w) for g, w in zip(grads, model.trainable_weights)])
        mse.update_state(target, guess)
        return loss

    graph_step = tf.function(step)
    hist = {"loss": [], "mse": []}
    for epoch in range(epochs):
        for features, target in itertools.islice(stream, steps_per_epoch):
            mean_loss(graph_step(features, target))
        hist["loss"].append(float(mean_loss.result()))
        hist["mse"].append(float(mse.result()))
        for m in (mean_loss, mse):
            m.reset_state()
    return hist
