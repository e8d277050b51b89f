"""A model with two inputs, given as a dict of columns."""

import keras
import numpy as np
import tensorflow as tf

SHOPS = 6


def compile():
    return {
        "optimizer": keras.optimizers.Adagrad(0.1),
        "loss": keras.losses.Huber(),
        "metrics": [keras.metrics.MeanAbsoluteError()],
    }


FIT = {"epochs": 3, "batch_size": 25, "shuffle": False}


def columns(rng, rows):
    shop = rng.integers(0, SHOPS, size=rows)
    prices = rng.uniform(0, 3, size=(rows, 2)).astype("float32")
    sales = (prices[:, :1] * shop[:, None] - prices[:, 1:] + 1).astype("float32")
    return {"shop": shop, "prices": prices}, sales


def data():
    rng = np.random.default_rng(40)
    x, y = columns(rng, 80)
    return {"x": x, "y": y, "validation_data": columns(rng, 35)}


def build():
    shop = keras.Input([], dtype="int64", name="shop")
    prices = keras.Input([2], name="prices")
    e = keras.layers.Embedding(SHOPS, 3)(shop)
    h = keras.layers.Concatenate()([e, prices])
    h = keras.layers.Dense(10, activation="swish")(h)
    return keras.Model({"shop": shop, "prices": prices}, keras.layers.Dense(1)(h))


class Progress:
    """Loss and error of one pass over the data."""

    def __init__(self):
        self.loss = keras.metrics.Mean()
        self.mae = keras.metrics.MeanAbsoluteError()

    def add(self, loss, y_true, y_pred):
        self.loss.update_state(loss, sample_weight=tf.shape(y_true)[0])
        self.mae.update_state(y_true, y_pred)

    def finish(self):
        values = float(self.loss.result()), float(self.mae.result())
        self.loss.reset_state()
        self.mae.reset_state()
        return values


def train(model, x, y, validation_data, epochs, batch_size):
    opt = keras.optimizers.Adagrad(0.1)
    huber = keras.losses.Huber()
    fitting, checking = Progress(), Progress()

    @tf.function(reduce_retracing=True)
    def learn(features, target):
        with tf.GradientTape() as tape:
            guess = model(features, training=True)
            loss = huber(target, guess)
        parameters = model.trainable_variables
        opt.apply_gradients(zip(tape.gradient(loss, parameters), parameters))
        fitting.add(loss, target, guess)

    @tf.function(reduce_retracing=True)
    def verify(features, target):
        guess = model(features, training=False)
        checking.add(huber(target, guess), target, guess)

    training_set = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    validation_set = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)
    history = {
        k: [] for k in ("loss", "mean_absolute_error", "val_loss", "val_mean_absolute_error")
    }
    for epoch in range(epochs):
        for features, target in training_set:
            learn(features, target)
        loss, mae = fitting.finish()
        for features, target in validation_set:
            verify(features, target)
        val_loss, val_mae = checking.finish()
        for values, value in zip(history.values(), (loss, mae, val_loss, val_mae)):
            values.append(value)
    return history
