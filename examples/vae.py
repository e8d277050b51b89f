"""A variational autoencoder: a model with a `train_step` of its own.

fit-unfolded compare examples/vae.py
fit-unfolded explain examples/vae.py
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

COMPILE = {"optimizer": "adam"}
FIT = {"epochs": 3, "batch_size": 32}


def data():
    """Points on an ellipse in eight dimensions."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 2 * np.pi, 400)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ random.normal(size=(2, 8))
    x = x.astype("float32")
    return {"x": x[:300], "validation_data": (x[300:],)}


class Vae(keras.Model):
    """Its steps need no labels, and no `loss` in `compile`."""

    def __init__(self):
        super().__init__()
        self.encoder = stack(8, 4)
        self.decoder = stack(2, 8)
        self.seed = keras.random.SeedGenerator(0)
        self.total = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        """What fit resets before each epoch."""
        return [self.total]

    def call(self, x):
        """`x` again, from a random code; how far the codes are from standard normal ones."""
        mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        divergence = ops.mean(ops.square(mean) + ops.exp(log_variance) - log_variance - 1) / 2
        return self.decoder(mean + ops.exp(log_variance / 2) * noise), divergence

    def train_step(self, x):
        """Update the weights once."""
        with tf.GradientTape() as tape:
            y, divergence = self(x)
            loss = ops.mean(ops.square(y - x)) + 0.1 * divergence
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.total.update_state(loss)
        return {"loss": self.total.result()}

    def test_step(self, x):
        """The same loss, without an update."""
        y, divergence = self(x)
        self.total.update_state(ops.mean(ops.square(y - x)) + 0.1 * divergence)
        return {"loss": self.total.result()}


def stack(inputs, outputs):
    """One hidden layer between them."""
    return keras.Sequential(
        [keras.Input([inputs]), layers.Dense(16, activation="relu"), layers.Dense(outputs)]
    )


def build():
    """A new model, with its weights."""
    model = Vae()
    model(np.zeros([1, 8], "float32"))
    return model
