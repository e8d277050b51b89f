"""The loop over the batches of an epoch is itself a part of the graph."""

import keras
import tensorflow as tf
from sklearn.datasets import load_wine

COMPILE = {"optimizer": "adam", "loss": "categorical_crossentropy"}
FIT = {"epochs": 3, "batch_size": 30, "shuffle": False}


def data():
    x, y = load_wine(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return {"x": x[::2].astype("float32"), "y": keras.utils.to_categorical(y[::2])}


def build():
    inputs = keras.Input((13,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    return keras.Model(inputs, outputs, name="softmax_regression")


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    cce = keras.losses.CategoricalCrossentropy(reduction="sum_over_batch_size")
    ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)

    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = cce(targets, model(inputs, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    @tf.function
    def run_epoch():
        total = tf.constant(0.0)
        count = tf.constant(0.0)
        for inputs, targets in ds:
            n = tf.cast(tf.shape(inputs)[0], tf.float32)
            total += step(inputs, targets) * n
            count += n
        return total / count

    losses = []
    for epoch in range(epochs):
        losses.append(float(run_epoch()))
    return {"loss": losses}
