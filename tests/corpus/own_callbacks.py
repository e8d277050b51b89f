"""A loop with hooks of its own, in the manner of callbacks."""

import keras
import numpy as np
import tensorflow as tf


def warm_up(epoch):
    return 0.01 * min(1.0, (epoch + 1) / 2)


def compile():
    return {"optimizer": keras.optimizers.Adam(), "loss": "log_cosh", "metrics": ["mse"]}


FIT = {
    "epochs": 3,
    "batch_size": 14,
    "shuffle": False,
    "callbacks": [keras.callbacks.LearningRateScheduler(warm_up)],
}


def data():
    t = np.linspace(0, 6, 84, dtype="float32")[:, None]
    return {"x": np.concatenate([t, t**2 / 6], axis=1), "y": np.cos(t)}


def build():
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(9, activation="tanh"),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(1),
        ]
    )


class Hook:
    def on_epoch_begin(self, loop, epoch): ...
    def on_epoch_end(self, loop, epoch, logs): ...


class Schedule(Hook):
    def on_epoch_begin(self, loop, epoch):
        loop.optimizer.learning_rate = warm_up(epoch)


class Recorder(Hook):
    def __init__(self):
        self.history = {}

    def on_epoch_end(self, loop, epoch, logs):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class Loop:
    def __init__(self, model, hooks):
        self.model = model
        self.hooks = hooks
        self.optimizer = keras.optimizers.Adam()
        self.loss_fn = keras.losses.LogCosh()
        self.metrics = {"loss": keras.metrics.Mean(), "mse": keras.metrics.MeanSquaredError()}
        self.step = tf.function(self._step)

    def _step(self, x, y):
        with tf.GradientTape() as tape:
            y_pred = self.model(x, training=True)
            loss = self.loss_fn(y, y_pred)
        grads = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.model.trainable_variables))
        self.metrics["loss"].update_state(loss)
        self.metrics["mse"].update_state(y, y_pred)

    def call_hooks(self, name, *args):
        for hook in self.hooks:
            getattr(hook, name)(self, *args)

    def run(self, dataset, epochs):
        for epoch in range(epochs):
            self.call_hooks("on_epoch_begin", epoch)
            for metric in self.metrics.values():
                metric.reset_state()
            for x, y in dataset:
                self.step(x, y)
            logs = {name: float(metric.result()) for name, metric in self.metrics.items()}
            self.call_hooks("on_epoch_end", epoch, logs)


def train(model, x, y, epochs, batch_size):
    recorder = Recorder()
    loop = Loop(model, [Schedule(), recorder])
    loop.run(tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size), epochs)
    return recorder.history
