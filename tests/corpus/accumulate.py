"""Gradients of two small batches are collected before each update."""

import keras
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

ACCUMULATE, CLIP = 2, 0.5


def compile():
    optimizer = keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=ACCUMULATE, global_clipnorm=CLIP
    )
    return {"optimizer": optimizer, "loss": "binary_crossentropy"}


FIT = {"epochs": 2, "batch_size": 16, "shuffle": False}


def data():
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return {"x": x[:128].astype("float32"), "y": y[:128].astype("float32")[:, None]}


def build():
    i = keras.Input((30,))
    o = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dense(8, activation="relu")(i))
    return keras.Model(i, o)


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.Adam(0.01)
    loss_fn = keras.losses.BinaryCrossentropy()
    variables = model.trainable_variables
    buffers = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]

    @tf.function
    def accumulate(xb, yb):
        with tf.GradientTape() as tape:
            loss = loss_fn(yb, model(xb, training=True))
        grads = tape.gradient(loss, variables)
        for buffer, grad in zip(buffers, grads):
            buffer.assign_add(grad)
        return loss

    @tf.function
    def update():
        grads = [buffer / ACCUMULATE for buffer in buffers]
        grads, _ = tf.clip_by_global_norm(grads, CLIP)
        optimizer.apply_gradients(zip(grads, variables))
        for buffer in buffers:
            buffer.assign(tf.zeros_like(buffer))

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    history = {"loss": []}
    for _ in range(epochs):
        mean = tf.keras.metrics.Mean()
        for i, (xb, yb) in enumerate(dataset):
            mean.update_state(accumulate(xb, yb))
            if (i + 1) % ACCUMULATE == 0:
                update()
        history["loss"].append(float(mean.result()))
    return history
