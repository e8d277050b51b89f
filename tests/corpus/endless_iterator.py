"""Training by steps: an endless, shuffled dataset, and a count of steps for each epoch."""

import math

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"]}
FIT = {"epochs": 3, "batch_size": 20}


def data():
    rng = np.random.default_rng(50)
    y = rng.integers(0, 2, size=90)
    x = rng.normal(size=(90, 6)).astype("float32") + y[:, None].astype("float32")
    return {"x": x, "y": y}


def build():
    model = keras.Sequential(name="logistic")
    model.add(keras.Input([6]))
    model.add(keras.layers.Dense(4, activation="relu"))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    return model


def train(model, x, y, epochs, batch_size):
    steps_per_epoch = math.ceil(len(x) / batch_size)
    total_steps = epochs * steps_per_epoch
    dataset = tf.data.Dataset.from_tensor_slices((x, y.reshape(-1, 1)))
    dataset = dataset.shuffle(len(x)).batch(batch_size).repeat()
    iterator = iter(dataset)

    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    bce = keras.losses.BinaryCrossentropy()
    loss_metric = keras.metrics.Mean()
    accuracy_metric = keras.metrics.BinaryAccuracy()

    @tf.function
    def train_step(iterator):
        inputs, labels = next(iterator)
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = bce(labels, outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        loss_metric.update_state(loss, sample_weight=tf.shape(inputs)[0])
        accuracy_metric.update_state(labels, outputs)

    history = {"loss": [], "accuracy": []}
    step = 0
    while step < total_steps:
        train_step(iterator)
        step += 1
        if step % steps_per_epoch == 0:
            history["loss"].append(float(loss_metric.result()))
            history["accuracy"].append(float(accuracy_metric.result()))
            loss_metric.reset_state()
            accuracy_metric.reset_state()
    return history
