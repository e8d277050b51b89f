"""Fine-tuning: the base stays frozen, only the new head is trained."""

import keras
import numpy as np
import tensorflow as tf


def compile():
    return {
        "optimizer": keras.optimizers.Adam(1e-2),
        "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 2, "batch_size": 18, "shuffle": False, "validation_split": 0.2}


def data():
    rng = np.random.default_rng(12)
    k = rng.integers(0, 3, size=100)
    x = rng.normal(size=(100, 10)) + np.eye(3)[k] @ rng.normal(size=(3, 10))
    return {"x": x.astype("float32"), "y": np.eye(3, dtype="float32")[k]}


def build():
    base = keras.Sequential(
        [
            keras.Input([10]),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(6, activation="relu"),
        ],
        name="base",
    )
    base.trainable = False
    inputs = keras.Input([10])
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(base(inputs))
    return keras.Model(inputs, outputs)


def train(model, x, y, epochs, batch_size, validation_split):
    split = int(len(x) * (1 - validation_split))
    x_train, y_train = x[:split], y[:split]
    x_val, y_val = x[split:], y[split:]

    head = model.get_layer("head")
    opt = keras.optimizers.Adam(1e-2)
    cce = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    trained = head.trainable_variables

    @tf.function(reduce_retracing=True)
    def fine_tune(x, y):
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            loss = cce(y, p)
        opt.apply_gradients(zip(tape.gradient(loss, trained), trained))
        return loss, keras.metrics.categorical_accuracy(y, p)

    def evaluate():
        losses, hits = 0.0, 0.0
        for i in range(0, len(x_val), batch_size):
            xb, yb = x_val[i : i + batch_size], y_val[i : i + batch_size]
            p = model(xb, training=False)
            losses += float(cce(yb, p)) * len(xb)
            hits += float(tf.reduce_sum(keras.metrics.categorical_accuracy(yb, p)))
        return losses / len(x_val), hits / len(x_val)

    history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    for epoch in range(epochs):
        losses, hits = [], []
        for i in range(0, len(x_train), batch_size):
            xb = tf.constant(x_train[i : i + batch_size])
            yb = tf.constant(y_train[i : i + batch_size])
            loss, hit = fine_tune(xb, yb)
            losses.append(float(loss) * len(xb))
            hits.extend(hit.numpy())
        val_loss, val_accuracy = evaluate()
        history["loss"].append(sum(losses) / len(x_train))
        history["accuracy"].append(float(np.mean(hits)))
        history["val_loss"].append(val_loss)
        history["val_accuracy"].append(val_accuracy)
    return history
