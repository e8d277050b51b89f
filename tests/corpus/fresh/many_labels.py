"""Several labels may hold at once: logits, a sigmoid cross entropy, and precision."""

import keras
import numpy as np
import tensorflow as tf

N_LABELS = 5


def compile():
    return {
        "optimizer": keras.optimizers.Ftrl(0.3),
        "loss": keras.losses.BinaryCrossentropy(from_logits=True),
        "metrics": [keras.metrics.Precision(thresholds=0.0, name="precision")],
    }


FIT = {"epochs": 3, "batch_size": 20, "shuffle": False}


def data():
    rng = np.random.default_rng(1234)
    topics = (rng.random((85, N_LABELS)) < 0.35).astype("float32")
    words = topics @ rng.normal(size=(N_LABELS, 11)) + 0.4 * rng.normal(size=(85, 11))
    x, y = words.astype("float32"), topics
    return {"x": x[:65], "y": y[:65], "validation_data": (x[65:], y[65:])}


class Tagger(keras.Model):
    def __init__(self, units=9):
        super().__init__()
        self.stack = [keras.layers.Dense(units, "tanh"), keras.layers.Dense(N_LABELS)]

    def call(self, words):
        for layer in self.stack:
            words = layer(words)
        return words


def build():
    model = Tagger()
    model(np.zeros((2, 11), "float32"))
    return model


def train(model, x, y, validation_data, epochs, batch_size):
    optimizer = keras.optimizers.Ftrl(0.3)
    precision = keras.metrics.Precision(thresholds=0.0)

    def criterion(true, logits):
        elementwise = tf.nn.sigmoid_cross_entropy_with_logits(labels=true, logits=logits)
        return tf.reduce_mean(elementwise)

    @tf.function
    def train_batch(words, true):
        with tf.GradientTape() as tape:
            logits = model(words, training=True)
            loss = criterion(true, logits)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        precision.update_state(true, logits)
        return loss

    @tf.function
    def eval_batch(words, true):
        logits = model(words, training=False)
        precision.update_state(true, logits)
        return criterion(true, logits)

    def run(dataset, fn):
        precision.reset_state()
        total, rows = 0.0, 0
        for words, true in dataset.batch(batch_size):
            total += float(fn(words, true)) * words.shape[0]
            rows += words.shape[0]
        return total / rows, float(precision.result())

    train_rows = tf.data.Dataset.from_tensor_slices((x, y))
    val_rows = tf.data.Dataset.from_tensor_slices(validation_data)
    history = {"loss": [], "precision": [], "val_loss": [], "val_precision": []}
    for _ in range(epochs):
        for prefix, rows, fn in (("", train_rows, train_batch), ("val_", val_rows, eval_batch)):
            loss, score = run(rows, fn)
            history[prefix + "loss"] += [loss]
            history[prefix + "precision"] += [score]
    return history
