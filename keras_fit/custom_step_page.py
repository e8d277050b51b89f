"""A model with its own `train_step` and `test_step`, trained by `fit`, on one page.

`fit` makes the batches, the epochs and the validation; what happens to a batch is written out here.
`python -m keras_fit.custom_step_page` prints the same lines as `python -m keras_fit.one_page`.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no log lines from TensorFlow's C++ code, ...
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ... nor those from before it reads that level
try:
    import keras
    import numpy as np
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)

keras.utils.set_random_seed(0)

# The data: 100 samples of 128 features, each with the number of its class as label.
x = np.ones([100, 128], "float32")
y = np.ones([100, 1], "float32")


class CustomStep(keras.Sequential):
    """The steps of `keras.Model`, written out. Each returns the logs of the epoch so far."""

    def train_step(self, data):
        """Forward, loss, backward, update, metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            scaled_loss = self.optimizer.scale_loss(loss)  # the same, unless in mixed_float16
        gradients = tape.gradient(scaled_loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.update_metrics(x, y, y_pred, sample_weight, loss)

    def test_step(self, data):
        """Forward, loss, metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.update_metrics(x, y, y_pred, sample_weight, loss)

    def update_metrics(self, x, y, y_pred, sample_weight, loss):
        """The mean loss comes first in `self.metrics`; then the metrics of `compile`."""
        batch_size = tf.shape(keras.tree.flatten(x)[0])[0]  # a mean over samples, not batches
        self.metrics[0].update_state(loss, sample_weight=batch_size)
        return self.compute_metrics(x, y, y_pred, sample_weight)


# The model: 128 inputs, 3 classes.
model = CustomStep(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])
history = model.fit(x, y, epochs=100, validation_split=0.3, batch_size=16, verbose=0).history

names = "loss", "acc", "val_loss", "val_acc"
for epoch, values in enumerate(zip(*(history[name] for name in names), strict=True), start=1):
    pairs = zip(names, values, strict=True)
    print(f"epoch {epoch:3}  " + "  ".join(f"{name} {value:.6f}" for name, value in pairs))
