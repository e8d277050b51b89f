"""The learning rate is cut when the validation loss no longer falls."""

import keras
import numpy as np
import tensorflow as tf

FACTOR, PATIENCE, START = 0.3, 1, 0.05


def compile():
    return {"optimizer": keras.optimizers.SGD(START, momentum=0.8), "loss": "mse"}


FIT = {
    "epochs": 7,
    "batch_size": 16,
    "shuffle": False,
    "callbacks": [
        keras.callbacks.ReduceLROnPlateau(factor=FACTOR, patience=PATIENCE, min_delta=0.0)
    ],
}


def data():
    rs = np.random.RandomState(8)
    x = rs.randn(90, 5).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.4 * rs.randn(90)).astype(np.float32)[:, np.newaxis]
    return dict(x=x[:60], y=y[:60], validation_data=(x[60:], y[60:]))


def build():
    net = keras.Sequential(name="net")
    net.add(keras.Input((5,)))
    net.add(keras.layers.Dense(12, activation="softplus"))
    net.add(keras.layers.Dense(1))
    return net


class Plateau:
    def __init__(self, opt):
        self.opt = opt
        self.best = np.inf
        self.bad_epochs = 0

    def step(self, value):
        if value < self.best:
            self.best = value
            self.bad_epochs = 0
            return
        self.bad_epochs += 1
        if self.bad_epochs >= PATIENCE:
            self.opt.learning_rate = float(self.opt.learning_rate) * FACTOR
            self.bad_epochs = 0


def chunks(x, y, size):
    return [(x[k : k + size], y[k : k + size]) for k in range(0, len(x), size)]


def train(model, x, y, validation_data, epochs, batch_size):
    opt = keras.optimizers.SGD(START, momentum=0.8)
    plateau = Plateau(opt)
    train_chunks = chunks(tf.constant(x), tf.constant(y), batch_size)
    val_chunks = chunks(*map(tf.constant, validation_data), batch_size)

    @tf.function(reduce_retracing=True)
    def squared(xc, yc, training):
        return tf.reduce_mean((model(xc, training=training) - yc) ** 2)

    def optimise(xc, yc):
        with tf.GradientTape() as tape:
            value = squared(xc, yc, True)
        opt.apply_gradients(
            zip(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        )
        return value

    def row_mean(values, pieces):
        return float(np.average(values, weights=[len(xc) for xc, _ in pieces]))

    log = {"loss": [], "val_loss": []}
    for _ in range(epochs):
        values = [float(optimise(xc, yc)) for xc, yc in train_chunks]
        log["loss"].append(row_mean(values, train_chunks))
        values = [float(squared(xc, yc, False)) for xc, yc in val_chunks]
        log["val_loss"].append(row_mean(values, val_chunks))
        plateau.step(log["val_loss"][-1])
    return log
