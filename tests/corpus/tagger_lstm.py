"""Tags for the words of padded sentences: an embedding with a mask, and an LSTM."""

import keras
import numpy as np
import tensorflow as tf

VOCABULARY, TAGS, LENGTH = 20, 4, 9

COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
FIT = {"epochs": 2, "batch_size": 16, "shuffle": False}


def data():
    rng = np.random.default_rng(1)
    words = rng.integers(1, VOCABULARY, size=(56, LENGTH))
    lengths = rng.integers(2, LENGTH + 1, size=56)
    words[np.arange(LENGTH) >= lengths[:, None]] = 0
    return {"x": words, "y": words % TAGS}


def build():
    tokens = keras.Input((LENGTH,), dtype="int64")
    h = keras.layers.Embedding(VOCABULARY, 6, mask_zero=True)(tokens)
    h = keras.layers.LSTM(8, return_sequences=True)(h)
    return keras.Model(tokens, keras.layers.Dense(TAGS, activation="softmax")(h))


def sequence_loss(tokens, tags, probabilities):
    """Mean over the words, without the padding."""
    loss = keras.losses.sparse_categorical_crossentropy(tags, probabilities)
    mask = tf.cast(tokens != 0, loss.dtype)
    return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.Adam()
    n = x.shape[0]

    @tf.function
    def train_step(tokens, tags):
        with tf.GradientTape() as tape:
            probabilities = model(tokens, training=True)
            loss = sequence_loss(tokens, tags, probabilities)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    epoch_losses = []
    for epoch in range(epochs):
        weighted = []
        for b in range(0, n, batch_size):
            tokens = tf.convert_to_tensor(x[b : b + batch_size])
            tags = tf.convert_to_tensor(y[b : b + batch_size])
            weighted.append(train_step(tokens, tags) * tokens.shape[0])
        epoch_losses.append(float(tf.add_n(weighted) / n))
    return {"loss": epoch_losses}
