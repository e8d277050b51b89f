"""A trainer class with fit-like methods; a network with BatchNormalization."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def compile():
    return {
        "optimizer": keras.optimizers.Adam(learning_rate=0.01),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 3, "batch_size": 16, "shuffle": False}


def data():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, size=120)
    centers = rng.normal(scale=2.0, size=(4, 6))
    features = (centers[labels] + rng.normal(size=(120, 6)) + 3.0).astype(np.float32)
    return {
        "x": features[:90],
        "y": labels[:90],
        "validation_data": (features[90:], labels[90:]),
    }


def build():
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(16),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Dense(4, activation="softmax"),
        ]
    )


class Trainer:
    def __init__(self, net, lr=0.01):
        self.net = net
        self.lr = lr
        self.optimizer = keras.optimizers.Adam(learning_rate=lr)
        self.criterion = keras.losses.SparseCategoricalCrossentropy()
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.acc_tracker = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.history = {}

    def compute_loss(self, inputs, targets, training):
        predictions = self.net(inputs, training=training)
        loss = self.criterion(targets, predictions)
        return loss, predictions

    @tf.function(reduce_retracing=True)
    def training_step(self, inputs, targets):
        with tf.GradientTape() as tape:
            loss, predictions = self.compute_loss(inputs, targets, training=True)
        variables = self.net.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.track(loss, inputs, targets, predictions)

    @tf.function(reduce_retracing=True)
    def validation_step(self, inputs, targets):
        loss, predictions = self.compute_loss(inputs, targets, training=False)
        self.track(loss, inputs, targets, predictions)

    def track(self, loss, inputs, targets, predictions):
        self.loss_tracker.update_state(loss, sample_weight=tf.shape(inputs)[0])
        self.acc_tracker.update_state(targets, predictions)

    def log(self, prefix=""):
        for tracker in (self.loss_tracker, self.acc_tracker):
            values = self.history.setdefault(prefix + tracker.name, [])
            values.append(float(tracker.result()))
            tracker.reset_state()

    def run(self, train_data, val_data, epochs):
        self.optimizer.build(self.net.trainable_variables)
        for epoch in range(epochs):
            for inputs, targets in train_data:
                self.training_step(inputs, targets)
            self.log()
            for inputs, targets in val_data:
                self.validation_step(inputs, targets)
            self.log("val_")
        return self.history


def make_dataset(features, labels, batch_size):
    dataset = tf.data.Dataset.from_tensor_slices((features, labels))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def train(model, x, y, validation_data, epochs, batch_size):
    trainer = Trainer(model)
    return trainer.run(
        make_dataset(x, y, batch_size), make_dataset(*validation_data, batch_size), epochs
    )
