"""Short texts of unequal length, padded with zeros; the last fifth is for validation."""

import random

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["binary_accuracy"]}
FIT = {"epochs": 3, "batch_size": 16, "validation_split": 0.2}
WORDS, LONGEST = 25, 8


def data():
    rng = np.random.default_rng(63)
    texts = rng.integers(1, WORDS, size=(110, LONGEST))
    texts[np.arange(LONGEST) >= rng.integers(3, LONGEST + 1, size=(110, 1))] = 0
    good = (texts > 16).sum(1) > (texts > 0).sum(1) / 3
    return {"x": texts, "y": good.astype("float32").reshape(-1, 1)}


def build():
    model = keras.Sequential(
        [
            keras.layers.Embedding(WORDS, 6, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.GRU(5)),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.build((None, LONGEST))
    return model


def minibatches(arrays, size, order):
    for at in range(0, len(order), size):
        take = order[at : at + size]
        yield tuple(tf.constant(a[take]) for a in arrays)


def train(model, x, y, validation_split, epochs, batch_size):
    cut = int(len(x) * (1 - validation_split))
    train_arrays, val_arrays = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    opt = keras.optimizers.Adam()
    bce = keras.losses.BinaryCrossentropy()
    meters = {"loss": keras.metrics.Mean(), "binary_accuracy": keras.metrics.BinaryAccuracy()}

    @tf.function(reduce_retracing=True)
    def batch_step(texts, good, learning):
        with tf.GradientTape() as tape:
            p = model(texts, training=learning)
            loss = bce(good, p)
        if learning:
            params = model.trainable_variables
            opt.apply_gradients(zip(tape.gradient(loss, params), params))
        meters["loss"].update_state(loss, sample_weight=tf.shape(texts)[0])
        meters["binary_accuracy"].update_state(good, p)

    history = {}

    def note(prefix):
        for name, meter in meters.items():
            history.setdefault(prefix + name, []).append(float(meter.result()))
            meter.reset_state()

    order = list(range(cut))
    for epoch in range(epochs):
        random.shuffle(order)
        for batch in minibatches(train_arrays, batch_size, order):
            batch_step(*batch, learning=True)
        note("")
        for batch in minibatches(val_arrays, batch_size, list(range(len(x) - cut))):
            batch_step(*batch, learning=False)
        note("val_")
    return history
