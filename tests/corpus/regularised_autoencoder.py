"""An autoencoder with a sparse code: an activity regularizer, and the input as target."""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

COMPILE = {"optimizer": "adamax", "loss": "mse"}
FIT = {"epochs": 2, "batch_size": 40}


def data():
    pixels = load_digits().data[:130].astype("float32") / 16
    return {"x": pixels, "y": pixels}


def build():
    encoder = [
        keras.Input((64,)),
        keras.layers.Dense(12, activation="relu", activity_regularizer="l1"),
    ]
    decoder = [keras.layers.Dense(64, activation="sigmoid", kernel_regularizer="l2")]
    return keras.Sequential(encoder + decoder)


def train(model, x, epochs, batch_size):
    optimizer = keras.optimizers.Adamax()
    optimizer.build(model.trainable_variables)

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32)])
    def train_step(images):
        with tf.GradientTape() as tape:
            reconstruction = model(images, training=True)
            mse = tf.reduce_mean((images - reconstruction) ** 2)
            penalty = tf.add_n(model.losses)
            loss = mse + penalty
        g = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(g, model.trainable_variables))
        return loss

    images = tf.data.Dataset.from_tensor_slices(x).shuffle(1000).batch(batch_size)
    curve = []
    for epoch in range(epochs):
        total, count = 0.0, 0
        for batch in images:
            size = int(batch.shape[0])
            total += size * float(train_step(batch))
            count += size
        curve.append(total / count)
    return {"loss": curve}
