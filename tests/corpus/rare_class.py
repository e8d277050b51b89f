"""A rare class that counts four times; validation without class weights."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
FIT = {"epochs": 3, "batch_size": 16, "shuffle": False}


def data():
    rng = np.random.default_rng(21)
    y = (rng.random(130) < 0.2).astype("int64")
    x = rng.normal(size=(130, 4)).astype("float32")
    x[:, 0] += 1.5 * y
    return {
        "x": x[:100],
        "y": y[:100],
        "class_weight": {0: 1.0, 1: 4.0},
        "validation_data": (x[100:], y[100:]),
    }


def build():
    layers = keras.layers
    net = [layers.Input((4,)), layers.Dense(8, activation="relu")]
    return keras.Sequential(net + [layers.Dense(2, activation="softmax")])


def train(model, x, y, class_weight, validation_data, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    scce = keras.losses.SparseCategoricalCrossentropy()
    table = tf.constant([class_weight[label] for label in sorted(class_weight)])
    weights = table.numpy()[y]

    @tf.function
    def train_step(x, y, w):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = scce(y, y_pred, sample_weight=w)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    @tf.function
    def evaluate(x, y):
        y_pred = model(x, training=False)
        return scce(y, y_pred)

    history = {"loss": [], "val_loss": []}
    train_ds = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(batch_size)
    val_ds = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)
    for epoch in range(epochs):
        mean = keras.metrics.Mean()
        for xb, yb, wb in train_ds:
            mean.update_state(train_step(xb, yb, wb), sample_weight=tf.shape(xb)[0])
        history["loss"].append(mean.result().numpy().item())

        mean = keras.metrics.Mean()
        for xb, yb in val_ds:
            mean.update_state(evaluate(xb, yb), sample_weight=tf.shape(xb)[0])
        history["val_loss"].append(mean.result().numpy().item())
    return history
