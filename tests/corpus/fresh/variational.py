"""A variational autoencoder whose layer adds the divergence as a loss."""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

LATENT, BETA = 3, 0.01


class Sampling(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(17)

    def call(self, moments):
        mean, log_var = tf.split(moments, 2, axis=-1)
        kl = -0.5 * tf.reduce_sum(1 + log_var - mean**2 - tf.exp(log_var), axis=-1)
        self.add_loss(BETA * tf.reduce_mean(kl))
        noise = keras.random.normal(tf.shape(mean), seed=self.seed_generator)
        return mean + tf.exp(0.5 * log_var) * noise


def compile():
    return {"optimizer": keras.optimizers.Nadam(3e-3), "loss": "binary_crossentropy"}


FIT = {"epochs": 2, "batch_size": 32}


def data():
    images = load_digits().images[:120].reshape(120, 64) / 16
    images = images.astype("float32")
    return {"x": images, "y": images}


def build():
    return keras.Sequential(
        [
            keras.Input([64]),
            keras.layers.Dense(20, activation="relu"),
            keras.layers.Dense(2 * LATENT),
            Sampling(),
            keras.layers.Dense(20, activation="relu"),
            keras.layers.Dense(64, activation="sigmoid"),
        ]
    )


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.Nadam(3e-3)
    images = (
        tf.data.Dataset.from_tensor_slices(x)
        .shuffle(len(x), reshuffle_each_iteration=True)
        .batch(batch_size, num_parallel_calls=1)
        .prefetch(tf.data.AUTOTUNE)
    )
    elbo = keras.metrics.Mean()

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            decoded = model(batch, training=True)
            reconstruction = tf.reduce_mean(keras.losses.binary_crossentropy(batch, decoded))
            divergence = tf.add_n(model.losses)
            loss = reconstruction + divergence
        grads = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(grads, model.trainable_weights))
        elbo.update_state(loss, tf.shape(batch)[0])

    losses = []
    while len(losses) < epochs:
        elbo.reset_state()
        for batch in images:
            train_step(batch)
        losses.append(float(elbo.result()))
    return {"loss": losses}
