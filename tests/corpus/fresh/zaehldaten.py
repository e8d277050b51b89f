"""Zähldaten: Poisson-Regression, jede Zeile mit ihrer Beobachtungsdauer gewichtet."""

import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "adagrad", "loss": "poisson"}
FIT = {"epochs": 3, "batch_size": 16, "shuffle": False}


def data():
    zufall = np.random.default_rng(99)
    merkmale = zufall.normal(size=(70, 3)).astype("float32")
    rate = np.exp(0.5 * merkmale[:, :1] - 0.2)
    anzahl = zufall.poisson(rate).astype("float32")
    dauer = zufall.uniform(0.2, 3.0, size=70).astype("float32")
    return {"x": merkmale, "y": anzahl, "sample_weight": dauer}


def build():
    return keras.Sequential(
        [
            keras.Input([3]),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(1, activation="exponential"),
        ]
    )


def train(model, x, y, sample_weight, epochs, batch_size):
    optimierer = keras.optimizers.Adagrad()
    poisson = keras.losses.Poisson()
    mittel = keras.metrics.Mean()
    zeilen = tf.data.Dataset.from_tensor_slices({"x": x, "anzahl": y, "dauer": sample_weight})
    stapel = zeilen.batch(batch_size)

    def verlust(teil, training):
        vorhersage = model(teil["x"], training=training)
        return poisson(teil["anzahl"], vorhersage, sample_weight=teil["dauer"])

    @tf.function(reduce_retracing=True)
    def schritt(teil):
        with tf.GradientTape() as band:
            fehler = verlust(teil, training=True)
        gewichte = model.trainable_variables
        optimierer.apply_gradients(zip(band.gradient(fehler, gewichte), gewichte))
        mittel.update_state(fehler, sample_weight=tf.shape(teil["x"])[0])

    verlauf = []
    for epoche in range(epochs):
        mittel.reset_state()
        for teil in stapel:
            schritt(teil)
        verlauf.append(float(mittel.result()))
        print(f"Epoche {epoche + 1}: {verlauf[-1]:.4f}")
    return {"loss": verlauf}
