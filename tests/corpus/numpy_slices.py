import keras
import numpy as np
import tensorflow as tf


def compile():
    return {"optimizer": keras.optimizers.Adam(0.05), "loss": "mse"}


FIT = dict(epochs=3, batch_size=12)


def data():
    r = np.random.default_rng(11)
    X = r.normal(size=(100, 5)).astype("float32")
    Y = (X @ np.array([1.0, -2.0, 0.5, 0.0, 3.0]) + 0.1 * r.normal(size=100)).astype("float32")
    return dict(x=X, y=Y)


def build():
    m = keras.Sequential()
    m.add(keras.Input((5,)))
    m.add(keras.layers.Dense(8, activation="tanh"))
    m.add(keras.layers.Dense(1))
    return m


def train(model, x, y, epochs, batch_size):
    opt = keras.optimizers.Adam(0.05)
    N = len(x)
    losses = []
    for ep in range(epochs):
        idx = np.random.permutation(N)
        x_shuf = x[idx]
        y_shuf = y[idx]
        total = 0.0
        for start in range(0, N, batch_size):
            xb = x_shuf[start : start + batch_size]
            yb = y_shuf[start : start + batch_size]
            with tf.GradientTape() as tape:
                pred = model(xb, training=True)
                err = yb - tf.squeeze(pred, axis=-1)
                loss = tf.reduce_mean(tf.square(err))
            g = tape.gradient(loss, model.trainable_variables)
            opt.apply_gradients(zip(g, model.trainable_variables))
            total += float(loss) * len(xb)
        losses.append(total / N)
    return {"loss": losses}
