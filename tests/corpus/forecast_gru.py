"""Next value of a series from a window of past values, with a GRU."""

import numpy as np
import tensorflow as tf

WINDOW = 8


def compile():
    return {
        "optimizer": tf.keras.optimizers.RMSprop(learning_rate=0.005, clipnorm=1.0),
        "loss": "mae",
        "metrics": ["mse"],
    }


FIT = {"epochs": 2, "batch_size": 16, "shuffle": False, "validation_split": 0.25}


def data():
    time = np.arange(96)
    series = (np.sin(time / 4) + 0.02 * time).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
    return {"x": windows[:, :-1, None].copy(), "y": windows[:, -1:].copy()}


def build():
    return tf.keras.Sequential(
        [
            tf.keras.Input((WINDOW, 1)),
            tf.keras.layers.GRU(6),
            tf.keras.layers.Dense(1),
        ]
    )


def train(model, x, y, epochs, batch_size, validation_split):
    n_train = int(len(x) * (1 - validation_split))
    train_set = tf.data.Dataset.from_tensor_slices((x[:n_train], y[:n_train])).batch(batch_size)
    valid_set = tf.data.Dataset.from_tensor_slices((x[n_train:], y[n_train:])).batch(batch_size)

    optimizer = tf.keras.optimizers.RMSprop(learning_rate=0.005)
    mae = tf.keras.losses.MeanAbsoluteError()
    loss_avg = tf.keras.metrics.Mean()
    mse_avg = tf.keras.metrics.MeanSquaredError()

    @tf.function
    def train_step(window, target):
        with tf.GradientTape() as tape:
            forecast = model(window, training=True)
            loss = mae(target, forecast)
        gradients = tape.gradient(loss, model.trainable_variables)
        gradients = [tf.clip_by_norm(g, 1.0) for g in gradients]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        loss_avg.update_state(loss, tf.shape(window)[0])
        mse_avg.update_state(target, forecast)

    @tf.function
    def valid_step(window, target):
        forecast = model(window, training=False)
        loss_avg.update_state(mae(target, forecast), tf.shape(window)[0])
        mse_avg.update_state(target, forecast)

    def reset():
        loss_avg.reset_state()
        mse_avg.reset_state()

    logs = {"loss": [], "mse": [], "val_loss": [], "val_mse": []}
    for epoch in range(epochs):
        reset()
        for window, target in train_set:
            train_step(window, target)
        logs["loss"].append(float(loss_avg.result()))
        logs["mse"].append(float(mse_avg.result()))
        reset()
        for window, target in valid_set:
            valid_step(window, target)
        logs["val_loss"].append(float(loss_avg.result()))
        logs["val_mse"].append(float(mse_avg.result()))
    return logs
