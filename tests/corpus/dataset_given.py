"""Batches come as a tf.data.Dataset, with sequences of different lengths."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adam", "loss": "mse"}
FIT = {"epochs": 2}
LENGTHS = [3, 5, 4, 6]


def batches():
    rng = np.random.default_rng(80)
    for length in LENGTHS:
        x = rng.normal(size=(10, length, 2)).astype("float32")
        yield x, x.mean(axis=(1, 2), keepdims=False)[:, None]


def data():
    signature = (tf.TensorSpec([None, None, 2]), tf.TensorSpec([None, 1]))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return {"x": dataset.apply(tf.data.experimental.assert_cardinality(len(LENGTHS)))}


def build():
    inputs = keras.Input((None, 2))
    x = keras.layers.Conv1D(5, 2, activation="relu")(inputs)
    x = keras.layers.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def train(model, x, epochs):
    optimizer = keras.optimizers.Adam()
    loss_fn = keras.losses.MeanSquaredError()

    @tf.function(reduce_retracing=True)
    def step(sequences, means):
        with tf.GradientTape() as tape:
            loss = loss_fn(means, model(sequences, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    history = {"loss": []}
    for _ in range(epochs):
        losses = [step(sequences, means) for sequences, means in x]
        history["loss"].append(float(tf.reduce_mean(losses)))
    return history
