"""Everything that changes travels in one tuple, in the functional manner."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer


class TrainState(NamedTuple):
    model: Any
    tx: Any
    loss_sum: tf.Tensor
    hits: tf.Tensor
    count: tf.Tensor


def make_tx():
    return keras.optimizers.AdamW(learning_rate=2e-3, weight_decay=0.05)


def compile():
    return {
        "optimizer": make_tx(),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["sparse_categorical_accuracy"],
    }


FIT = {"epochs": 3, "batch_size": 25, "shuffle": False}


def data():
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return {"x": x[:110].astype("float32"), "y": y[:110].astype("int32")}


def build():
    inputs = keras.Input([30])
    h = keras.layers.Dense(10, activation="silu")(inputs)
    h = keras.layers.LayerNormalization()(h)
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def loss_fn(model, batch):
    x, y = batch
    logits = model(x, training=True)
    per_row = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    return tf.reduce_mean(per_row), logits


def value_and_grad(fn):
    def wrapped(model, batch):
        params = model.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([p.value for p in params])
            value, aux = fn(model, batch)
        return (value, aux), tape.gradient(value, params)

    return wrapped


def fresh_state(model, tx):
    zero = tf.constant(0.0)
    return TrainState(model, tx, zero, zero, zero)


def train(model, x, y, epochs, batch_size):
    grad_fn = value_and_grad(loss_fn)
    tx = make_tx()
    tx.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def compute(xb, yb):
        (value, logits), grads = grad_fn(model, (xb, yb))
        tx.apply(grads, model.trainable_variables)
        n = tf.cast(tf.shape(xb)[0], tf.float32)
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == yb, tf.float32))
        return value * n, hits, n

    def update(state, xb, yb):
        total, hits, n = compute(tf.constant(xb), tf.constant(yb))
        return state._replace(
            loss_sum=state.loss_sum + total, hits=state.hits + hits, count=state.count + n
        )

    splits = np.arange(batch_size, len(x), batch_size)
    epochs_log = []
    for _ in range(epochs):
        state = fresh_state(model, tx)
        for xb, yb in zip(np.split(x, splits), np.split(y, splits)):
            state = update(state, xb, yb)
        epochs_log.append((float(state.loss_sum / state.count), float(state.hits / state.count)))
    losses, accuracies = zip(*epochs_log)
    return {"loss": list(losses), "sparse_categorical_accuracy": list(accuracies)}
