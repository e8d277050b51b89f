"""An optimizer that averages the weights; the averages are used at the end."""

import keras
import numpy as np
import tensorflow as tf


def make_optimizer():
    return keras.optimizers.AdamW(0.02, weight_decay=0.01, use_ema=True, ema_momentum=0.8)


def compile():
    return {"optimizer": make_optimizer(), "loss": "hinge"}


FIT = {"epochs": 2, "batch_size": 32, "shuffle": False}


def data():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(96, 5)).astype("float32")
    return {"x": x, "y": np.sign(x[:, :1] + x[:, 1:2]).astype("float32")}


def build():
    return keras.Sequential([keras.Input([5]), keras.layers.Dense(1, activation="tanh")])


def train(model, x, y, epochs, batch_size):
    optimizer = make_optimizer()
    hinge = keras.losses.Hinge()

    def loss_and_grads(inputs, targets):
        with tf.GradientTape() as tape:
            loss = hinge(targets, model(inputs, training=True))
        return loss, tape.gradient(loss, model.trainable_variables)

    for epoch in range(epochs):
        for i in range(len(x) // batch_size):
            part = slice(i * batch_size, (i + 1) * batch_size)
            loss, grads = loss_and_grads(x[part], y[part])
            optimizer.apply(grads, model.trainable_variables)
        print("epoch", epoch, "last loss", loss.numpy())
    optimizer.finalize_variable_values(model.trainable_variables)
