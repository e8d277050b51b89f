"""`compile` and `fit` on one page: the lesson's example with nothing hidden and nothing imported
from this project. The numbers are those of

    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])
    model.fit(x, y, epochs=100, validation_split=0.3, batch_size=16)

from the same seed, to the last bit. Run it with `python -m manual_loop.one_page`.
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

# compile: names become objects. "acc" is this class because the labels are class numbers.
optimizer = keras.optimizers.Adam()
loss_fn = keras.losses.SparseCategoricalCrossentropy()
mean_loss = keras.metrics.Mean()
accuracy = keras.metrics.SparseCategoricalAccuracy()

# A batch may be smaller than the others, so its size is left open: one graph serves them all.
BATCH = [tf.TensorSpec([None, 128], tf.float32), tf.TensorSpec([None, 1], tf.float32)]


@tf.function(input_signature=BATCH)
def train_step(x, y):
    """Forward, loss, backward, update, metrics."""
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = loss_fn(y, y_pred)
    gradients = tape.gradient(loss, model.trainable_weights)
    optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])  # a mean over samples
    accuracy.update_state(y, y_pred)


@tf.function(input_signature=BATCH)
def test_step(x, y):
    """Forward, loss, metrics."""
    y_pred = model(x, training=False)
    mean_loss.update_state(loss_fn(y, y_pred), sample_weight=tf.shape(x)[0])
    accuracy.update_state(y, y_pred)


def shuffled(n):
    """A permutation of n rows: under the seed, the one that fit draws in each of its epochs."""
    return tf.function(tf.random.shuffle)(tf.range(n, dtype=tf.int64))


def run(step, x, y, order):
    """One pass over the data: the mean loss and the accuracy."""
    mean_loss.reset_state()
    accuracy.reset_state()
    for start in range(0, len(x), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        step(tf.gather(x, rows), tf.gather(y, rows))
    return float(mean_loss.result()), float(accuracy.result())


history: dict[str, list[float]] = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
for epoch in range(EPOCHS):
    train_loss, train_acc = run(train_step, x_train, y_train, shuffled(len(x_train)))
    val_loss, val_acc = run(test_step, x_val, y_val, tf.range(len(x_val)))
    values = train_loss, train_acc, val_loss, val_acc
    for name, value in zip(history, values, strict=True):
        history[name].append(value)
    print(f"epoch {epoch + 1:3}  " + "  ".join(f"{k} {v[-1]:.6f}" for k, v in history.items()))
