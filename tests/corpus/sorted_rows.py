"""Rows sorted by class, so that they have to be shuffled well."""

import keras
import tensorflow as tf
from sklearn.datasets import load_iris


def compile():
    return {"optimizer": keras.optimizers.SGD(0.1, momentum=0.5), "loss": "mse"}


FIT = {"epochs": 3, "batch_size": 15}


def data():
    x, y = load_iris(return_X_y=True)
    return {"x": x.astype("float32"), "y": keras.utils.to_categorical(y)}


def build():
    return keras.Sequential(
        [
            keras.layers.InputLayer(shape=(4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="sigmoid"),
        ]
    )


@tf.function
def train_step(model, optimizer, loss_fn, x, y):
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


def train(model, x, y, epochs, batch_size):
    optimizer = keras.optimizers.SGD(learning_rate=0.1, momentum=0.5)
    optimizer.build(model.trainable_variables)
    loss_fn = keras.losses.MeanSquaredError()
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.shuffle(buffer_size=150)
    dataset = dataset.batch(batch_size)
    loss_history = []
    for epoch in range(epochs):
        mean = keras.metrics.Mean()
        for batch in dataset:
            mean.update_state(train_step(model, optimizer, loss_fn, *batch))
        loss_history.append(float(mean.result()))
    return {"loss": loss_history}
