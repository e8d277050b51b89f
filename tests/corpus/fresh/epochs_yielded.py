"""A generator yields the logs of each epoch; class weights are mapped into the dataset."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {
    "optimizer": "adamw",
    "loss": "sparse_categorical_crossentropy",
    "weighted_metrics": ["sparse_categorical_accuracy"],
}
FIT = {"epochs": 3, "batch_size": 18}


def data():
    rng = np.random.default_rng(2024)
    y = np.sort(rng.choice(3, size=108, p=[0.7, 0.2, 0.1]))
    x = rng.normal(size=(108, 7)) + y[:, None] * np.linspace(-1, 1, 7)
    return {"x": x.astype("float32"), "y": y, "class_weight": {0: 0.5, 1: 1.5, 2: 3.0}}


def build():
    l1 = keras.regularizers.L1(1e-3)
    return keras.Sequential(
        [
            keras.Input([7]),
            keras.layers.Dense(15, activation="relu", kernel_regularizer=l1),
            keras.layers.Dense(3, activation="softmax", kernel_regularizer=l1),
        ]
    )


def weighted_rows(x, y, class_weight):
    keys = list(class_weight)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(keys, tf.int64), tf.constant([class_weight[k] for k in keys])
        ),
        default_value=1.0,
    )
    rows = tf.data.Dataset.from_tensor_slices((x, y.astype("int64")))
    return rows.map(lambda row, label: (row, label, table.lookup(label)))


def run_epochs(model, dataset):
    optimizer = keras.optimizers.AdamW()
    scce = keras.losses.SparseCategoricalCrossentropy()
    mean = keras.metrics.Mean()
    accuracy = keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def step(rows, labels, weights):
        with tf.GradientTape() as tape:
            probs = model(rows, training=True)
            loss = scce(labels, probs, weights)
            loss = loss + sum(model.losses)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        mean.update_state(loss, sample_weight=tf.shape(rows)[0])
        accuracy.update_state(labels, probs, sample_weight=weights)

    while True:
        for batch in dataset:
            step(*batch)
        yield {
            "loss": float(mean.result()),
            "sparse_categorical_accuracy": float(accuracy.result()),
        }
        mean.reset_state()
        accuracy.reset_state()


def train(model, x, y, class_weight, epochs, batch_size):
    dataset = weighted_rows(x, y, class_weight)
    dataset = dataset.shuffle(len(x)).batch(batch_size)
    logs = [log for _, log in zip(range(epochs), run_epochs(model, dataset))]
    return {name: [log[name] for log in logs] for name in logs[0]}
