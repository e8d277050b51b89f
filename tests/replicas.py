"""Training on several logical CPUs, in a process of its own: a CPU is divided once, at the start.

    python tests/replicas.py FILE CASE ...

runs the functions of these names and writes what they return to FILE, as JSON: name -> result, or
`{"error": ...}`. Cases with two replicas and cases with four need a process each.
"""

import contextlib
import functools
import json
import logging
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from cases import (
    SAMPLES,
    SPARSE,
    VALUE,
    Batches,
    X,
    Y,
    compile_with,
    layers,
    mlp,
    plain,
    policy,
    two_outputs,
)
from parity import TRAINERS, first_difference, fit, new_session, observe, use, watch

import manual_loop
from manual_loop.distribution import mirrored_strategy

CPUS = 4
EVEN = 16  # samples that any number of replicas can share
WEIGHTS = np.linspace(0.5, 2, SAMPLES).astype("float32")
DATA = {"x": X[:EVEN], "y": Y[:EVEN]}
WEIGHTED = {"x": X, "y": Y, "sample_weight": WEIGHTS, "validation_data": (X[:EVEN], Y[:EVEN])}
WEIGHTED_TEST = {**DATA, "sample_weight": WEIGHTS[:EVEN], "batch_size": 8}
OVERFLOW = {"x": X[:EVEN] * np.where(np.arange(EVEN) == EVEN - 1, 1e6, 1)[:, None], "y": Y[:EVEN]}
IN_ORDER = {"batch_size": EVEN, "shuffle": False}


def scope(replicas):
    return contextlib.nullcontext() if replicas == 1 else mirrored_strategy(replicas).scope()


def train(Trainer, replicas, build, compile, *args, then=fit, **arguments):
    """As `parity.train`, on several replicas; 1 for no strategy at all."""
    with scope(replicas):
        trainer = Trainer(build())
        trainer.compile(**compile())
    return then(trainer, *args, **arguments)


def compare(replicas, build, compile, *args, **arguments):
    """How the two sides differ first, in words; None if they do not."""
    seen = [observe(s, train, replicas, build, compile, *args, **arguments) for s in TRAINERS]
    return first_difference(*seen)


def loop(replicas, build, compile, *args, **arguments):
    """What is seen of the loop alone."""
    new_session()
    return watch(train, manual_loop.Trainer, replicas, build, compile, *args, **arguments)


def furthest(seen, other):
    """The largest difference of two trainings: of losses and metrics, and of weights."""
    pairs = [(seen["history"][name], other["history"][name]) for name in other["history"]]
    pairs += zip(seen["weights"].values(), other["weights"].values(), strict=True)
    return max(float(np.max(np.abs(np.subtract(*pair)), initial=0)) for pair in pairs)


def is_finite(seen):
    return all(np.isfinite(v).all() for v in [*seen["weights"].values(), *seen["history"].values()])


def is_finite_in_weights(seen):
    return all(np.isfinite(values).all() for values in seen["weights"].values())


def normalised(**how):
    return keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(4, activation="relu"),
            layers.BatchNormalization(**how),
            layers.Dense(3, activation="softmax"),
        ]
    )


def mixed():
    with policy("mixed_float16"):
        return plain()


def as_dataset(batch=8):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(batch)


def as_generator(batch=8):
    return ((X[at : at + batch], Y[at : at + batch]) for at in range(0, SAMPLES, batch))


# Both sides, bit by bit ---------------------------------------------------------------------


def two_replicas():
    """The last batch of 22 in eights leaves both replicas short."""
    return compare(
        2,
        mlp,
        compile_with(weighted_metrics=["acc"]),
        WEIGHTED,
        WEIGHTED_TEST,
        then=use,
        epochs=2,
        batch_size=8,
    )


def four_replicas():
    """The last batch of 22 in twenties leaves two of four replicas empty."""
    data = {"x": X, "y": Y, "sample_weight": WEIGHTS}
    return compare(4, plain, compile_with(), data, epochs=2, batch_size=20)


def synchronized():
    return compare(
        2, functools.partial(normalised, synchronized=True), compile_with(), DATA, batch_size=8
    )


def half_precision():
    """From a scale at which nothing overflows: see `fit_with_an_overflow_on_one_replica`."""

    def compile():
        inner = keras.optimizers.Adam()
        return {
            "optimizer": keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0),
            "loss": SPARSE,
            "metrics": ["acc"],
        }

    return compare(2, mixed, compile, DATA, batch_size=8)


def several_outputs():
    def compile():
        return {
            "optimizer": keras.optimizers.AdamW(0.01, use_ema=True, clipnorm=1.0),
            "loss": [SPARSE, "mse"],
            "loss_weights": [1.0, 0.5],
            "metrics": [["acc"], ["mae"]],
        }

    data = {"x": X[:EVEN], "y": [Y[:EVEN], VALUE[:EVEN]]}
    return compare(2, two_outputs, compile, data, epochs=2, batch_size=8)


def dataset():
    """With callbacks that look at a metric, and change the optimizer and the course of training."""

    def endless():
        return {"x": as_dataset().repeat()}

    def callbacks():
        return [
            keras.callbacks.EarlyStopping(monitor="acc", patience=0),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
        ]

    arguments = {"callbacks": callbacks, "epochs": 4, "steps_per_epoch": 2}
    return compare(2, plain, compile_with(), endless, **arguments)


def pydataset():
    """In order: to build the model, fit draws an order of which it takes one batch."""
    return compare(2, plain, compile_with(), lambda: {"x": Batches(X, Y)}, shuffle=False)


def eager():
    return compare(2, plain, compile_with(run_eagerly=True), DATA, batch_size=8)


# The loop alone -----------------------------------------------------------------------------


def one_device():
    """Replicas against one device: the largest difference."""
    build = functools.partial(normalised, synchronized=True)
    return furthest(*(loop(n, build, compile_with(), DATA, epochs=3, batch_size=8) for n in (2, 1)))


def one_device_for_four():
    return furthest(*(loop(n, plain, compile_with(), DATA, epochs=3, batch_size=8) for n in (4, 1)))


def blocks():
    """One batch a call or three: how it differs. The last block and the last batch are partial."""
    seen = [
        loop(2, plain, compile_with(steps_per_execution=n), {"x": X, "y": Y}, batch_size=6)
        for n in (1, 3)
    ]
    keep = ("history", "weights", "optimizer variables")
    return first_difference(*({key: each[key] for key in keep} for each in seen))


def xla():
    """With XLA and without: the largest difference. Not of Dropout, whose masks are others."""
    with_xla = loop(2, normalised, compile_with(jit_compile=True), DATA, then=use, batch_size=8)
    return furthest(with_xla, loop(2, normalised, compile_with(), DATA, batch_size=8))


def uneven_first_batch():
    return is_finite(loop(2, plain, compile_with(), {"x": X, "y": Y}, batch_size=11))


def empty_replica():
    """Four replicas, and two samples in the last batch; then all of it again."""
    data = {"x": X, "y": Y, "validation_data": (X, Y)}
    return is_finite(loop(4, normalised, compile_with(), data, epochs=2, batch_size=20))


def overflow_on_one_replica():
    """One sample is too large for half precision: the second replica's gradients are not finite."""
    return is_finite_in_weights(loop(2, mixed, compile_with(), OVERFLOW, **IN_ORDER))


def generator():
    """A generator against a dataset of the same batches."""
    seen = [
        loop(2, plain, compile_with(), {"x": make()}, epochs=1)
        for make in (as_generator, as_dataset)
    ]
    return first_difference(*({"weights": each["weights"]} for each in seen))


# Wrong calls --------------------------------------------------------------------------------


def too_many_replicas():
    mirrored_strategy(CPUS + 1)


def too_small_a_batch():
    loop(2, plain, compile_with(), DATA, batch_size=1)


def too_small_a_batch_in_a_generator():
    loop(2, plain, compile_with(), {"x": as_generator(1)})


def model_from_outside():
    model = plain()
    with scope(2):
        trainer = manual_loop.Trainer(model)
        trainer.compile(**compile_with()())
        trainer.fit(**DATA, batch_size=8, verbose=0)


def model_and_compile_from_outside():
    """Compiled outside, trained inside."""
    trainer = manual_loop.Trainer(plain())
    trainer.compile(**compile_with()())
    with scope(2):
        trainer.fit(**DATA, batch_size=8, verbose=0)


def optimizer_from_outside():
    optimizer = keras.optimizers.Adam()
    loop(2, plain, compile_with(optimizer=optimizer), DATA, batch_size=8)


def metric_from_outside():
    metric = keras.metrics.SparseCategoricalAccuracy()
    loop(2, plain, compile_with(metrics=[metric]), DATA, batch_size=8)


# What fit of Keras 3.15.1 cannot do -----------------------------------------------------------


def fit_alone(replicas, build, compile, *args, **arguments):
    new_session()
    return watch(train, TRAINERS["keras_fit"], replicas, build, compile, *args, **arguments)


def fit_in_blocks():
    return is_finite(fit_alone(2, plain, compile_with(steps_per_execution=2), DATA, batch_size=8))


def fit_with_xla():
    return is_finite(fit_alone(2, plain, compile_with(jit_compile=True), DATA, batch_size=8))


def fit_with_an_uneven_first_batch():
    return is_finite(fit_alone(2, plain, compile_with(), {"x": X, "y": Y}, batch_size=11))


def fit_with_an_empty_replica():
    data = {"x": X, "y": Y}
    return is_finite(fit_alone(4, normalised, compile_with(), data, epochs=2, batch_size=20))


def fit_with_an_overflow_on_one_replica():
    return is_finite_in_weights(fit_alone(2, mixed, compile_with(), OVERFLOW, **IN_ORDER))


def fit_with_a_generator():
    """Whether it trains on every batch of it."""
    seen = fit_alone(2, plain, compile_with(), {"x": as_generator()}, epochs=1)
    return len([call for call in seen["calls"] if call[0] == "on_train_batch_end"]) == 3


def run(name):
    try:
        return globals()[name]()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(file, *names):
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * CPUS
    tf.config.set_logical_device_configuration(cpu, parts)
    results = {}
    for name in names:
        started = time.process_time()
        results[name] = run(name)
        print(f"{time.process_time() - started:5.1f} s", name, str(results[name])[:300], flush=True)
    with open(file, "w") as out:
        json.dump(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
