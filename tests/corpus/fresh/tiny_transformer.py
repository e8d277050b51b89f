"""One block of attention, with Dropout and a learning rate that warms up."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

D_MODEL, WARMUP, VOCAB, LENGTH = 8, 6, 12, 7


class Noam(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1.0
        scale = keras.ops.minimum(step**-0.5, step * WARMUP**-1.5)
        return 0.5 * D_MODEL**-0.5 * scale

    def get_config(self):
        return {}


def compile():
    return {
        "optimizer": keras.optimizers.Adam(Noam(), beta_2=0.98, epsilon=1e-9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 3, "batch_size": 24, "shuffle": False}


def data():
    rng = np.random.default_rng(42)
    tokens = rng.integers(0, VOCAB, size=(96, LENGTH))
    return {"x": tokens, "y": tokens[:, ::-1].max(axis=1) // 3}


def build():
    tokens = keras.Input([LENGTH], dtype="int64")
    h = layers.Embedding(VOCAB, D_MODEL)(tokens)
    a = layers.MultiHeadAttention(num_heads=2, key_dim=4, dropout=0.1)(h, h)
    h = layers.LayerNormalization()(layers.Add()([h, layers.Dropout(0.1)(a)]))
    h = layers.GlobalAveragePooling1D()(h)
    return keras.Model(tokens, layers.Dense(4)(h))


def train(model, x, y, epochs, batch_size):
    rate = Noam()
    adam = keras.optimizers.Adam(float(rate(0)), beta_2=0.98, epsilon=1e-9)
    xent = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    signature = [tf.TensorSpec([None, LENGTH], tf.int64), tf.TensorSpec([None], tf.int64)]

    @tf.function(input_signature=signature)
    def train_step(tokens, labels):
        with tf.GradientTape() as tape:
            logits = model(tokens, training=True)
            losses = xent(labels, logits)
            mean = tf.reduce_mean(losses)
        adam.apply_gradients(
            zip(tape.gradient(mean, model.trainable_variables), model.trainable_variables)
        )
        return losses, keras.metrics.sparse_categorical_accuracy(labels, logits)

    history = {"loss": [], "accuracy": []}
    step = 0
    for epoch in range(epochs):
        rows = []
        for tokens, labels in tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size):
            adam.learning_rate.assign(rate(step))
            rows.append(train_step(tokens, labels))
            step += 1
        for name, columns in zip(history, zip(*rows)):
            history[name].append(float(tf.reduce_mean(tf.concat(columns, 0))))
    return history
