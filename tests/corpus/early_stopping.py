"""Early stopping written out, with the best weights restored at the end."""

import keras
import numpy as np
import tensorflow as tf


def compile():
    return {"optimizer": keras.optimizers.SGD(0.3), "loss": "mse"}


FIT = {
    "epochs": 8,
    "batch_size": 10,
    "shuffle": False,
    "callbacks": [
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    ],
}


def data():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(60, 4)).astype("float32")
    y = (np.abs(x[:, :1]) + rng.normal(scale=0.5, size=(60, 1))).astype("float32")
    return {"x": x[:40], "y": y[:40], "validation_data": (x[40:], y[40:])}


def build():
    return keras.Sequential(
        [keras.Input([4]), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(1)]
    )


def train(model, x, y, validation_data, epochs, batch_size):
    optimizer = keras.optimizers.SGD(0.3)
    mse = keras.losses.MeanSquaredError()
    x_val, y_val = validation_data
    train_batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    val_batches = tf.data.Dataset.from_tensor_slices((x_val, y_val)).batch(batch_size)

    @tf.function
    def train_step(xs, ys):
        with tf.GradientTape() as tape:
            loss = mse(ys, model(xs, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    @tf.function
    def val_step(xs, ys):
        return mse(ys, model(xs, training=False))

    patience, waited = 2, 0
    best, best_weights = float("inf"), None
    history = {"loss": [], "val_loss": []}
    for epoch in range(epochs):
        loss = np.mean([train_step(xs, ys) for xs, ys in train_batches])
        val_loss = np.mean([val_step(xs, ys) for xs, ys in val_batches])
        history["loss"].append(float(loss))
        history["val_loss"].append(float(val_loss))
        if val_loss < best:
            best, waited = val_loss, 0
            best_weights = model.get_weights()
        else:
            waited += 1
            if waited >= patience:
                print(f"early stopping after epoch {epoch + 1}")
                break
    model.set_weights(best_weights)
    return history
