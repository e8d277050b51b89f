"""Batches from a Python generator, running sums instead of metric objects."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_wine

COMPILE = {
    "optimizer": "adam",
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["sparse_categorical_accuracy"],
}
FIT = {"epochs": 3, "batch_size": 25}


def data():
    wine = load_wine()
    x = (wine.data - wine.data.mean(axis=0)) / wine.data.std(axis=0)
    order = np.random.default_rng(0).permutation(len(x))
    return {"x": x[order].astype("float32"), "y": wine.target[order].astype("int32")}


def build():
    model_input = keras.Input(shape=(13,))
    hidden = keras.layers.Dense(10, activation="elu")(model_input)
    return keras.Model(model_input, keras.layers.Dense(3, activation="softmax")(hidden))


def batch_generator(x, y, batch_size):
    """Yield shuffled batches, once through the data."""
    indices = np.arange(len(x))
    np.random.shuffle(indices)
    for i in range(0, len(x), batch_size):
        chosen = indices[i : i + batch_size]
        yield x[chosen], y[chosen]


def make_step(model, optimizer):
    loss_object = keras.losses.SparseCategoricalCrossentropy()

    @tf.function(
        input_signature=[
            tf.TensorSpec(shape=[None, 13], dtype=tf.float32),
            tf.TensorSpec(shape=[None], dtype=tf.int32),
        ]
    )
    def step(features, target):
        with tf.GradientTape() as tape:
            probabilities = model(features, training=True)
            loss = loss_object(target, probabilities)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        hits = tf.argmax(probabilities, axis=1, output_type=tf.int32) == target
        return loss, tf.reduce_sum(tf.cast(hits, tf.float32))

    return step


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer)
    history = {"loss": [], "sparse_categorical_accuracy": []}
    for _ in range(epochs):
        loss_sum, correct, seen = 0.0, 0.0, 0
        for features, target in batch_generator(x, y, batch_size):
            loss, hits = step(features, target)
            loss_sum += loss.numpy() * len(target)
            correct += hits.numpy()
            seen += len(target)
        history["loss"].append(loss_sum / seen)
        history["sparse_categorical_accuracy"].append(correct / seen)
    return history
