"""Imbalanced yes or no, label smoothing and several metrics in a list."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

SMOOTHING = 0.2


def compile():
    return {
        "optimizer": keras.optimizers.Adam(0.004, beta_1=0.8),
        "loss": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=SMOOTHING),
        "metrics": [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="acc"),
            keras.metrics.Recall(thresholds=0.0, name="recall"),
        ],
    }


FIT = {"epochs": 3, "batch_size": 50, "shuffle": False}


def data():
    x, y = load_breast_cancer(return_X_y=True)
    x = np.log1p(x)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return {"x": x[:180].astype("float32"), "y": y[:180].astype("float32").reshape(-1, 1)}


def build():
    i = x = keras.Input((30,))
    for units in (8, 4):
        x = keras.layers.Dense(units, activation="leaky_relu")(x)
    return keras.Model(i, keras.layers.Dense(1)(x))


def train(model, x, y, epochs, batch_size):
    adam = keras.optimizers.Adam(learning_rate=0.004, beta_1=0.8)
    loss_mean = keras.metrics.Mean(name="loss")
    metrics = [
        keras.metrics.BinaryAccuracy(threshold=0.0, name="acc"),
        keras.metrics.Recall(thresholds=0.0, name="recall"),
    ]

    def smooth_bce(target, logit):
        smooth = target * (1.0 - SMOOTHING) + 0.5 * SMOOTHING
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(smooth, logit))

    @tf.function(reduce_retracing=True)
    def batch_update(feature, target):
        with tf.GradientTape() as tape:
            logit = model(feature, training=True)
            loss = smooth_bce(target, logit)
        grad = tape.gradient(loss, model.trainable_variables)
        adam.apply_gradients(zip(grad, model.trainable_variables))
        loss_mean.update_state(loss, sample_weight=tf.shape(target)[0])
        for metric in metrics:
            metric.update_state(target, logit)

    log = {"loss": [], "acc": [], "recall": []}
    for e in range(epochs):
        for metric in [loss_mean, *metrics]:
            metric.reset_state()
        for k in range(0, x.shape[0], batch_size):
            batch_update(tf.constant(x[k : k + batch_size]), tf.constant(y[k : k + batch_size]))
        for metric in [loss_mean, *metrics]:
            log[metric.name].append(float(metric.result()))
    return log
