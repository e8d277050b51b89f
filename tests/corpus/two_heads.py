"""One trunk, two heads: a class and a size, with loss weights."""

import keras
import numpy as np
import tensorflow as tf

CONFIG = {"lr": 3e-3, "weights": {"kind": 1.0, "size": 0.2}}


def compile():
    return {
        "optimizer": keras.optimizers.Adam(CONFIG["lr"]),
        "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        "loss_weights": CONFIG["weights"],
        "metrics": {"kind": ["accuracy"], "size": ["mae"]},
    }


FIT = {"epochs": 2, "batch_size": 20, "shuffle": False}


def data():
    gen = np.random.default_rng(5)
    x = gen.normal(size=(80, 7)).astype("float32")
    kind = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    size = (3 * x[:, 2] - x[:, 3] + 1).astype("float32")
    return {"x": x, "y": {"kind": kind, "size": size}}


def build():
    inp = keras.Input((7,))
    trunk = keras.layers.Dense(16, activation="relu")(inp)
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(trunk)
    size = keras.layers.Dense(1, name="size")(trunk)
    return keras.Model(inp, {"kind": kind, "size": size})


def train(model, x, y, epochs, batch_size):
    opt = keras.optimizers.Adam(CONFIG["lr"])
    loss_fns = {
        "kind": keras.losses.SparseCategoricalCrossentropy(),
        "size": keras.losses.MeanSquaredError(),
    }
    metrics = {
        "loss": keras.metrics.Mean(),
        "kind_loss": keras.metrics.Mean(),
        "size_loss": keras.metrics.Mean(),
        "kind_accuracy": keras.metrics.SparseCategoricalAccuracy(),
        "size_mae": keras.metrics.MeanAbsoluteError(),
    }

    @tf.function(reduce_retracing=True)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            losses = {name: fn(targets[name], outputs[name]) for name, fn in loss_fns.items()}
            total = sum(CONFIG["weights"][name] * losses[name] for name in losses)
        grads = tape.gradient(total, model.trainable_variables)
        opt.apply_gradients(zip(grads, model.trainable_variables))
        n = tf.shape(inputs)[0]
        metrics["loss"].update_state(total, sample_weight=n)
        for name, value in losses.items():
            metrics[name + "_loss"].update_state(value, sample_weight=n)
        metrics["kind_accuracy"].update_state(targets["kind"], outputs["kind"])
        metrics["size_mae"].update_state(targets["size"][:, None], outputs["size"])

    history = {name: [] for name in metrics}
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    for epoch in range(epochs):
        for metric in metrics.values():
            metric.reset_state()
        for inputs, targets in dataset:
            step(inputs, targets)
        for name, metric in metrics.items():
            history[name].append(float(metric.result()))
    return history
