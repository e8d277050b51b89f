"""`compile` and `fit` on one page: the lesson's example.

`python -m keras_fit.one_page` prints the same lines as `python -m manual_loop.one_page`, which
writes out what `compile` and `fit` do here.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no log lines from TensorFlow's C++ code, ...
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ... nor those from before it reads that level
try:
    import keras
    import numpy as np
finally:
    os.dup2(stderr, 2)

keras.utils.set_random_seed(0)

# The data: 100 samples of 128 features, each with the number of its class as label.
x = np.ones([100, 128], "float32")
y = np.ones([100, 1], "float32")

# The model: 128 inputs, 3 classes.
model = keras.Sequential(
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
