"""8x8 images, one-hot labels, gradients clipped by their global norm."""

import keras
import tensorflow as tf
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D
from sklearn.datasets import load_digits


def compile():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.4)
    return {"optimizer": optimizer, "loss": "categorical_crossentropy", "metrics": ["acc"]}


FIT = {"epochs": 2, "batch_size": 24, "shuffle": False}


def data():
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    return {"x": images[:96], "y": keras.utils.to_categorical(digits[:96], 10)}


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Conv2D(6, 3, activation="relu", padding="same"),
            MaxPooling2D(),
            Flatten(),
            Dense(10, activation="softmax"),
        ]
    )


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)
    cce = keras.losses.CategoricalCrossentropy()
    acc = keras.metrics.CategoricalAccuracy()
    avg_loss = keras.metrics.Mean()
    max_norm = 0.4

    @tf.function
    def train_one_batch(images, labels):
        with tf.GradientTape() as t:
            preds = model(images, training=True)
            loss = cce(labels, preds)
        grads = t.gradient(loss, model.trainable_variables)
        grads, norm = tf.clip_by_global_norm(grads, max_norm)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        acc.update_state(labels, preds)
        avg_loss.update_state(loss)

    ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).cache().prefetch(1)
    logs = {"loss": [], "acc": []}
    for epoch in range(1, epochs + 1):
        acc.reset_state()
        avg_loss.reset_state()
        for images, labels in ds:
            train_one_batch(images, labels)
        # all batches have 24 images, so that a plain mean is right
        logs["loss"].append(avg_loss.result().numpy())
        logs["acc"].append(acc.result().numpy())
    return {name: [float(v) for v in values] for name, values in logs.items()}
