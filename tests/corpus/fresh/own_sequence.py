"""Batches from an indexable object that shuffles itself at the end of an epoch; a 1D convnet."""

import math

import keras
import numpy as np
import tensorflow as tf


def compile():
    return {
        "optimizer": keras.optimizers.Adam(5e-3),
        "loss": "binary_crossentropy",
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 3, "batch_size": 14}


def data():
    gen = np.random.default_rng(301)
    phase = gen.uniform(0, 6, size=(100, 1))
    fast = gen.integers(0, 2, size=(100, 1))
    wave = np.sin(np.arange(16) * (0.5 + 0.7 * fast) + phase)
    x = wave + 0.3 * gen.normal(size=wave.shape)
    return {"x": x[..., None].astype("float32"), "y": fast.astype("float32")}


def build():
    return keras.Sequential(
        [
            keras.Input([16, 1]),
            keras.layers.Conv1D(6, 5, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


class WaveSequence:
    """len(seq) batches; seq[i] is one of them."""

    def __init__(self, waves, labels, batch_size):
        self.waves, self.labels = waves, labels
        self.batch_size = batch_size
        self.on_epoch_end()

    def __len__(self):
        return math.ceil(len(self.waves) / self.batch_size)

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(i)
        ids = self.ids[i * self.batch_size : (i + 1) * self.batch_size]
        return self.waves[ids], self.labels[ids]

    def on_epoch_end(self):
        self.ids = np.random.permutation(len(self.waves))


def train(model, x, y, epochs, batch_size):
    seq = WaveSequence(x, y, batch_size)
    opt = keras.optimizers.Adam(5e-3)
    bce = keras.losses.BinaryCrossentropy()
    tracked = {"loss": keras.metrics.Mean(), "accuracy": keras.metrics.BinaryAccuracy()}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 16, 1], tf.float32),
            tf.TensorSpec([None, 1], tf.float32),
        ]
    )
    def learn(waves, labels):
        with tf.GradientTape() as g:
            p = model(waves, training=True)
            value = bce(labels, p)
        opt.apply(g.gradient(value, model.trainable_variables), model.trainable_variables)
        tracked["loss"].update_state(value, sample_weight=tf.shape(waves)[0])
        tracked["accuracy"].update_state(labels, p)

    history = {name: [] for name in tracked}
    for _ in range(epochs):
        for waves, labels in seq:
            learn(waves, labels)
        seq.on_epoch_end()
        for name, metric in tracked.items():
            history[name].append(metric.result().numpy().item())
            metric.reset_state()
    return history
