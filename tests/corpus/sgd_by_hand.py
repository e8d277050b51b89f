"""No optimizer object: momentum and the step written out, learning rate lowered each epoch."""

import keras
import numpy as np
import tensorflow as tf


def lower(epoch, lr):
    return lr * 0.5 if epoch else lr


def compile():
    return {"optimizer": keras.optimizers.SGD(0.2, momentum=0.9), "loss": "binary_crossentropy"}


FIT = {
    "epochs": 3,
    "batch_size": 20,
    "shuffle": False,
    "callbacks": [keras.callbacks.LearningRateScheduler(lower)],
}


def data():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(80, 2)).astype("float32")
    y = (x[:, :1] * x[:, 1:] > 0).astype("float32")
    return {"x": x, "y": y}


def build():
    return keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


class HandMadeSGD:
    def __init__(self, params, lr, momentum):
        self.params = params
        self.lr = tf.Variable(lr, dtype=tf.float32)
        self.momentum = momentum
        self.velocity = [tf.Variable(tf.zeros_like(p)) for p in params]

    def step(self, grads):
        for p, v, g in zip(self.params, self.velocity, grads):
            v.assign(self.momentum * v - self.lr * g)
            p.assign_add(v)

    def halve(self):
        self.lr.assign(self.lr * 0.5)


def train(model, x, y, epochs, batch_size):
    sgd = HandMadeSGD(model.trainable_variables, lr=0.2, momentum=0.9)
    bce = keras.losses.BinaryCrossentropy()

    @tf.function
    def train_batch(xb, yb):
        with tf.GradientTape() as tape:
            loss = bce(yb, model(xb, training=True))
        sgd.step(tape.gradient(loss, sgd.params))
        return loss

    history = {"loss": []}
    for epoch in range(epochs):
        if epoch > 0:
            sgd.halve()
        total = 0.0
        for xb, yb in tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size):
            total += float(train_batch(xb, yb)) * len(xb)
        history["loss"].append(total / len(x))
    return history
