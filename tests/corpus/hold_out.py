"""The last quarter of the rows is held out; the rest is shuffled anew in each epoch."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {
    "optimizer": "nadam",
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
}
FIT = {"epochs": 3, "batch_size": 16, "validation_split": 0.25}


def data():
    rng = np.random.default_rng(14)
    label = np.repeat(rng.integers(0, 3, size=30), 4)
    x = np.repeat(rng.normal(size=(30, 6)), 4, axis=0) + 0.05 * rng.normal(size=(120, 6))
    return {"x": x.astype("float32"), "y": label}


def build():
    inputs = keras.Input([6])
    x = keras.layers.Dense(12, activation="gelu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def split_dataset(x, y, fraction, batch_size):
    n_train = int(len(x) * (1 - fraction))
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    train_rows = rows.take(n_train).shuffle(len(x))
    val_rows = rows.skip(n_train)
    return train_rows.batch(batch_size), val_rows.batch(batch_size)


def train(model, x, y, epochs, batch_size, validation_split):
    train_ds, val_ds = split_dataset(x, y, validation_split, batch_size)
    optimizer = keras.optimizers.Nadam()
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    acc = keras.metrics.SparseCategoricalAccuracy()
    mean = keras.metrics.Mean()

    @tf.function(reduce_retracing=True)
    def step(x, y, training):
        with tf.GradientTape() as tape:
            probs = model(x, training=training)
            loss = loss_fn(y, probs)
        if training:
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables))
        mean.update_state(loss, sample_weight=tf.shape(x)[0])
        acc.update_state(y, probs)

    history = {}
    for epoch in range(epochs):
        for prefix, ds, training in (("", train_ds, True), ("val_", val_ds, False)):
            mean.reset_state()
            acc.reset_state()
            for x_batch, y_batch in ds:
                step(x_batch, y_batch, training)
            history.setdefault(prefix + "loss", []).append(float(mean.result()))
            history.setdefault(prefix + "accuracy", []).append(float(acc.result()))
    return history
