"""A subclassed model and a loop without tf.function."""

import keras
import numpy as np
import tensorflow as tf


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(14, activation="relu")
        self.out = keras.layers.Dense(3)

    def call(self, x, training=None):
        return self.out(self.hidden(x))


COMPILE = dict(
    optimizer="sgd",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
FIT = dict(epochs=2, batch_size=10, shuffle=False)


def data():
    rng = np.random.default_rng(31)
    y = rng.integers(0, 3, 55)
    x = rng.normal(size=(55, 5)) + 2 * rng.normal(size=(3, 5))[y]
    return dict(x=x.astype("float32"), y=y)


def build():
    net = Net()
    net(tf.zeros([1, 5]))
    return net


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.SGD()
    history = dict(loss=[], accuracy=[])
    n_batches = int(np.ceil(len(x) / batch_size))

    for epoch in range(epochs):
        epoch_loss = keras.metrics.Mean()
        epoch_accuracy = keras.metrics.SparseCategoricalAccuracy()
        for b in range(n_batches):
            xb = x[b * batch_size : (b + 1) * batch_size]
            yb = y[b * batch_size : (b + 1) * batch_size]

            with tf.GradientTape() as tape:
                logits = model(xb, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=yb, logits=logits)
                loss = tf.reduce_mean(losses)
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables))

            epoch_loss.update_state(losses)
            epoch_accuracy.update_state(yb, logits)
        history["loss"].append(epoch_loss.result().numpy())
        history["accuracy"].append(epoch_accuracy.result().numpy())
    return {k: list(map(float, v)) for k, v in history.items()}
