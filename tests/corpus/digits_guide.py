"""Handwritten digits, in the style of the guide on custom training loops."""

import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow import keras

COMPILE = {
    "optimizer": "adam",
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "metrics": ["accuracy"],
}
FIT = {"epochs": 2, "batch_size": 32, "shuffle": False}


def data():
    digits = load_digits()
    x = (digits.data / 16.0).astype("float32")
    y = digits.target
    return {"x": x[:150], "y": y[:150], "validation_data": (x[150:200], y[150:200])}


def build():
    inputs = keras.Input(shape=(64,), name="digits")
    x = keras.layers.Dense(32, activation="relu", name="dense_1")(inputs)
    x = keras.layers.Dropout(0.3)(x)
    outputs = keras.layers.Dense(10, name="predictions")(x)
    return keras.Model(inputs=inputs, outputs=outputs)


def train(model, x, y, validation_data, epochs, batch_size):
    # Instantiate an optimizer.
    optimizer = keras.optimizers.Adam()
    # Instantiate a loss function.
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # Prepare the metrics.
    train_loss = keras.metrics.Mean()
    train_acc_metric = keras.metrics.SparseCategoricalAccuracy()
    val_loss = keras.metrics.Mean()
    val_acc_metric = keras.metrics.SparseCategoricalAccuracy()

    train_dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    val_dataset = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss_value = loss_fn(y, logits)
        grads = tape.gradient(loss_value, model.trainable_weights)
        optimizer.apply_gradients(zip(grads, model.trainable_weights))
        train_acc_metric.update_state(y, logits)
        return loss_value

    @tf.function
    def test_step(x, y):
        val_logits = model(x, training=False)
        val_acc_metric.update_state(y, val_logits)
        val_loss.update_state(loss_fn(y, val_logits), sample_weight=len(y))

    history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    for epoch in range(epochs):
        # Iterate over the batches of the dataset.
        for step, (x_batch_train, y_batch_train) in enumerate(train_dataset):
            loss_value = train_step(x_batch_train, y_batch_train)
            train_loss.update_state(loss_value, sample_weight=len(x_batch_train))

        # Display metrics at the end of each epoch.
        history["loss"].append(float(train_loss.result()))
        history["accuracy"].append(float(train_acc_metric.result()))
        # Reset training metrics at the end of each epoch
        train_loss.reset_state()
        train_acc_metric.reset_state()

        # Run a validation loop at the end of each epoch.
        for x_batch_val, y_batch_val in val_dataset:
            test_step(x_batch_val, y_batch_val)
        history["val_loss"].append(float(val_loss.result()))
        history["val_accuracy"].append(float(val_acc_metric.result()))
        val_loss.reset_state()
        val_acc_metric.reset_state()
    return history
