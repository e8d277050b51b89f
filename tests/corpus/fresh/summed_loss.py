"""The loss is summed over the batch, and the gradients are clipped together."""

import functools

import keras
import numpy as np
import tensorflow as tf

MAX_NORM = 2.0


def compile():
    return {
        "optimizer": keras.optimizers.SGD(0.02, momentum=0.9, global_clipnorm=MAX_NORM),
        "loss": keras.losses.MeanSquaredError(reduction="sum"),
        "metrics": ["mae"],
    }


FIT = {"epochs": 3, "batch_size": 8, "shuffle": False}


def data():
    rng = np.random.default_rng(55)
    t = np.linspace(-1, 1, 44)[rng.permutation(44)]
    x = np.stack([t, t**2, t**3], axis=1).astype("float32")
    return {"x": x, "y": np.cos(3 * t).astype("float32")[:, None]}


def build():
    inputs = keras.Input([3])
    h = keras.layers.Dense(10, activation="relu")(inputs)
    h = keras.layers.Dense(10, activation="relu")(h)
    return keras.Model(inputs, keras.layers.Dense(1)(h))


def in_graph(fn):
    compiled = tf.function(fn, reduce_retracing=True)

    @functools.wraps(fn)
    def call(*arrays):
        return compiled(*[tf.convert_to_tensor(a) for a in arrays])

    return call


def train(model, x, y, epochs, batch_size):
    sgd = keras.optimizers.SGD(0.02, momentum=0.9)
    params = model.trainable_variables
    abs_error = keras.metrics.MeanAbsoluteError()

    @in_graph
    def one_step(xb, yb):
        with tf.GradientTape() as tape:
            pred = model(xb, training=True)
            loss = tf.reduce_sum(tf.reduce_mean((yb - pred) ** 2, axis=-1))
        grads = tape.gradient(loss, params)
        grads, _ = tf.clip_by_global_norm(grads, MAX_NORM)
        sgd.apply_gradients(zip(grads, params))
        abs_error.update_state(yb, pred)
        return loss

    loss_curve, mae_curve = [], []
    for _ in range(epochs):
        batches = [slice(i, i + batch_size) for i in range(0, len(x), batch_size)]
        # fit shows the mean of the batches' sums, each weighted by its rows
        sums = [(one_step(x[b], y[b]).numpy(), len(x[b])) for b in batches]
        loss_curve.append(float(sum(s * n for s, n in sums) / len(x)))
        mae_curve.append(float(abs_error.result()))
        abs_error.reset_state()
    return {"loss": loss_curve, "mae": mae_curve}
