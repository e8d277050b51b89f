"""A loop over `train_on_batch` and `test_on_batch`, on one page.

The epochs, the order of the rows and the batches are written out here; Keras does what happens to a
batch. `python -m keras_fit.on_batch_page` prints the same lines as `python -m keras_fit.one_page`.

One thing differs from `fit`: each call resets the metrics first, so the logs that it returns are
those of one batch (`keras/src/backend/tensorflow/trainer.py`, `train_on_batch`, Keras 3.15). `fit`
shows those of all samples so far. The plain mean of the logs would be wrong, since the last batch
is smaller; a mean weighted by batch sizes would be right up to rounding. To be exact, `run` adds up
what the metrics hold after each call, sums and counts, and puts the totals back to read the result.
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
tf.get_logger().setLevel("ERROR")  # nor the advice against tracing `shuffled` in each epoch

EPOCHS, BATCH_SIZE, VALIDATION_SPLIT = 100, 16, 0.3
keras.utils.set_random_seed(0)

# The data: 100 samples of 128 features, each with the number of its class as label.
x = np.ones([100, 128], "float32")
y = np.ones([100, 1], "float32")

# validation_split: the last rows are held back, before any shuffling.
split = int(len(x) * (1 - VALIDATION_SPLIT))
x_train, y_train, x_val, y_val = x[:split], y[:split], x[split:], y[split:]

# The model: 128 inputs, 3 classes.
model = keras.Sequential(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])


def shuffled(n):
    """A permutation of n rows: under the seed, the one that fit draws in each of its epochs."""
    return tf.function(tf.random.shuffle)(tf.range(n, dtype=tf.int64)).numpy()


def run(on_batch, x, y, order):
    """One pass over the data: the loss and the metrics of all batches together."""
    totals: list[np.ndarray] = []
    for start in range(0, len(x), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        on_batch(x[rows], y[rows])
        states = [v.numpy() for metric in model.metrics for v in metric.variables]
        totals = [a + b for a, b in zip(totals, states, strict=True)] if totals else states
    variables = [v for metric in model.metrics for v in metric.variables]
    for variable, total in zip(variables, totals, strict=True):
        variable.assign(total)
    return {name: float(value) for name, value in model.get_metrics_result().items()}


for epoch in range(EPOCHS):
    logs = run(model.train_on_batch, x_train, y_train, shuffled(len(x_train)))
    val_logs = run(model.test_on_batch, x_val, y_val, np.arange(len(x_val)))
    logs |= {f"val_{name}": value for name, value in val_logs.items()}
    names = "loss", "acc", "val_loss", "val_acc"
    print(f"epoch {epoch + 1:3}  " + "  ".join(f"{name} {logs[name]:.6f}" for name in names))
