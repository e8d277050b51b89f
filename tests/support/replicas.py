"""Training on several logical CPUs: a CPU is divided once, at the start of a process.

    python tests/support/replicas.py FILE CASE,CASE,... CASE ...

runs the functions of these names and writes what they return to FILE, as JSON: name -> result, or
`{"error": ...}`. Other files go into the working directory. Each argument has a process of its own,
forked once TensorFlow is imported: cases with two replicas and cases with four cannot share one,
and what follows a failure might fail for that alone.
"""

import contextlib
import functools
import gc
import io
import json
import logging
import multiprocessing
import sys
import time
from pathlib import Path

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
from overrides import MODELS
from parity import TRAINERS, first_difference, fit, new_session, observe, values, watch

import manual_loop
from fit_unfolded import cli
from fit_unfolded.bench import measure
from fit_unfolded.common.device import divide_cpu
from manual_loop.distribution.replicas import mirrored_strategy

CPUS = 4
EVEN = 16  # samples that any number of replicas can share
WEIGHTS = np.linspace(0.5, 2, SAMPLES).astype("float32")
DATA = {"x": X[:EVEN], "y": Y[:EVEN]}
WEIGHTED = {"x": X, "y": Y, "sample_weight": WEIGHTS, "validation_data": (X[:13], Y[:13])}
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
    """With a regulariser and random numbers, too."""
    return keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(4, activation="relu", kernel_regularizer="l2"),
            layers.Dropout(0.3),
            layers.BatchNormalization(**how),
            layers.Dense(3, activation="softmax"),
        ]
    )


synchronized = functools.partial(normalised, synchronized=True)


def mixed():
    with policy("mixed_float16"):
        return plain()


def bfloat16():
    with policy("mixed_bfloat16"):
        return plain()


def as_dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y))


def as_generator(samples):
    return ((X[at : at + 8], Y[at : at + 8]) for at in range(0, samples, 8))


# Both sides, bit by bit ---------------------------------------------------------------------


def two_replicas():
    """The last batches, of 22 and 13 in eights, leave both replicas short."""
    compile = compile_with(optimizer="adam", weighted_metrics=["acc"])
    return compare(2, mlp, compile, WEIGHTED, epochs=2, batch_size=8)


def four_replicas():
    """The last batch of 22 in twenties leaves two of four replicas empty."""
    return compare(4, synchronized, compile_with(), {"x": X, "y": Y}, epochs=2, batch_size=20)


class Overflow(keras.callbacks.Callback):
    """From the second epoch on, no gradient is finite, on any replica."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.optimizer.dynamic_scale.assign(2.0**40)


def half_precision():
    """How it differs; the scale at the end, and how many updates there were.

    At first nothing overflows on either side: see `fit_with_an_overflow_on_one_replica`.
    """

    def compile():
        inner = keras.optimizers.Adam()
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        return compile_with(optimizer=optimizer)()

    arguments = {"callbacks": lambda: [Overflow()], "epochs": 2, "batch_size": 8}
    seen = [observe(side, train, 2, mixed, compile, DATA, **arguments) for side in TRAINERS]
    variables = seen[1]["optimizer variables"]
    scale, updates = variables["loss_scale_optimizer/dynamic_scale"], variables["adam/iteration"]
    return [first_difference(*seen), float(scale), int(updates)]


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
    """Shuffled anew for each epoch; with callbacks that change the optimizer and the course."""

    def data():
        batches = as_dataset().shuffle(SAMPLES).batch(8)
        return {"x": batches.repeat(), "validation_data": batches}

    def callbacks():
        return [
            keras.callbacks.EarlyStopping(monitor="acc", patience=0),
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
        ]

    arguments = {"callbacks": callbacks, "epochs": 4, "steps_per_epoch": 2, "validation_steps": 1}
    return compare(2, plain, compile_with(), data, **arguments)


def bfloat16_of_a_pydataset():
    return compare(2, bfloat16, compile_with(), lambda: {"x": Batches(X, Y)}, epochs=2)


def eager():
    return compare(2, plain, compile_with(run_eagerly=True), DATA, batch_size=8)


def evaluate_first():
    """A model that is neither trained nor built."""

    def build():
        return keras.Sequential([layers.Dense(4), layers.Dense(3, activation="softmax")])

    def evaluate(trainer, **how):
        return {"evaluate": trainer.evaluate(**how, verbose=0)}

    return compare(2, build, compile_with(), **DATA, batch_size=8, then=evaluate)


def overridden_steps():
    """By name: how models with steps of their own differ."""
    found = {}
    for name in ("VAE", "GAN", "super().train_step", "compute_loss"):
        build, compile, data = MODELS[name]
        data = {k: v[:EVEN] for k, v in data.items() if k != "validation_data"}
        found[name] = compare(2, build, compile, data, epochs=2, batch_size=8)
    return {name: difference for name, difference in found.items() if difference} or None


def on_batch():
    """Every replica is given the whole batch, on both sides."""

    def use(trainer, **batch):
        logs = [trainer.train_on_batch(**batch), trainer.test_on_batch(**batch)]
        return {"logs": logs, "predict": trainer.predict_on_batch(batch["x"])}

    return compare(2, plain, compile_with(), x=X[:8], y=Y[:8], then=use)


# The loop alone -----------------------------------------------------------------------------


def against_one_device(replicas, build):
    """The largest difference. No Dropout, whose masks are others."""
    data = {"epochs": 3, "batch_size": 8}
    adam = compile_with(optimizer="adam")
    return furthest(*(loop(n, build, adam, DATA, **data) for n in (replicas, 1)))


def with_averages(**how):
    first, last = plain().layers
    return keras.Sequential([keras.Input([8]), first, layers.BatchNormalization(**how), last])


def two_against_one_device():
    return against_one_device(2, functools.partial(with_averages, synchronized=True))


def four_against_one_device():
    return against_one_device(4, plain)


@functools.cache
def in_order():
    return loop(2, plain, compile_with(), DATA, batch_size=8, shuffle=False)


def learned(seen):
    return {name: seen[name] for name in ("history", "weights", "optimizer variables")}


def blocks():
    """One batch a call or two: how it differs. No batch of 22 in nines can be halved."""
    seen = [
        loop(2, plain, compile_with(steps_per_execution=n), {"x": X, "y": Y}, batch_size=9)
        for n in (1, 2)
    ]
    return first_difference(*map(learned, seen)) or is_finite(seen[0])


def blocks_of_overridden_steps():
    """One batch a call or two: how it differs."""
    build, compile, data = MODELS["super().train_step"]
    data = {k: v[:EVEN] for k, v in data.items()}
    seen = [
        loop(2, build, functools.partial(compile, steps_per_execution=n), data, batch_size=8)
        for n in (1, 2)
    ]
    return first_difference(*map(learned, seen))


def generator():
    seen = loop(2, plain, compile_with(), {"x": as_generator(EVEN)})
    return first_difference(*map(learned, (in_order(), seen)))


def unknown_length():
    """Batches of one known size, how many is not known: see `execution.stream_function`."""
    batches = as_dataset().batch(8, drop_remainder=True).filter(lambda *batch: True)
    seen = loop(2, plain, compile_with(), {"x": batches})
    return first_difference(*map(learned, (in_order(), seen)))


def sparse():
    """Sparse and dense: the largest difference."""
    data = {**DATA, "x": tf.sparse.from_dense(X[:EVEN])}
    seen = loop(2, plain, compile_with(), data, batch_size=8, shuffle=False)
    return furthest(seen, in_order())


def xla():
    """With XLA and without: the largest difference."""
    with_xla, without = (
        loop(2, plain, compile_with(jit_compile=jit), data, batch_size=8)
        for jit, data in ((True, {**DATA, "validation_data": (X[:EVEN], Y[:EVEN])}), (False, DATA))
    )
    return furthest(with_xla, without)


def empty_replica():
    """Four replicas, and two samples in the last batch: for `evaluate`, too."""
    data = {"x": X, "y": Y, "validation_data": (X, Y)}
    return is_finite(loop(4, with_averages, compile_with(), data, batch_size=20))


def overflow_on_one_replica():
    """One sample is too large for half precision: the second replica's gradients are not finite."""
    return is_finite_in_weights(loop(2, mixed, compile_with(), OVERFLOW, **IN_ORDER))


def saved():
    """How a model read from a file differs, its optimizer included."""
    with scope(2):
        trainer = manual_loop.Trainer(normalised())
        trainer.compile(**compile_with(optimizer="adam")())
    trainer.fit(**DATA, batch_size=8, verbose=0)
    trainer.save("model.keras")
    with scope(2):
        again = manual_loop.load_model("model.keras")
    return first_difference(
        *(
            list(values(m.variables + m.optimizer.variables).values())
            for m in (trainer.model, again)
        )
    )


def command_line():
    """`compare --replicas 2`: its exit status and its page."""
    sys.argv = ["fit-unfolded", "compare", "digits-mlp", "--epochs", "1", "--batch-size", "512"]
    sys.argv += ["--device", "cpu", "--replicas", "2"]
    measure.measure = functools.partial(measure.measure, turns=1, epochs_per_turn=2)
    page, status = io.StringIO(), None
    with contextlib.redirect_stdout(page):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    return [status, page.getvalue()]


# Wrong calls --------------------------------------------------------------------------------


def too_many_replicas():
    mirrored_strategy(CPUS + 1)


def too_small_a_batch():
    loop(2, plain, compile_with(), DATA, batch_size=1)


def too_small_a_batch_in_a_generator():
    loop(2, plain, compile_with(), {"x": ((X[:1], Y[:1]) for _ in range(2))})


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


def xla_for_an_overridden_step():
    build, compile, data = MODELS["super().train_step"]
    loop(2, build, functools.partial(compile, jit_compile=True), data, batch_size=8)


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
    seen = fit_alone(2, plain, compile_with(), {"x": as_generator(SAMPLES)})
    return len([call for call in seen["calls"] if call[0] == "on_train_batch_end"]) == 3


def fit_with_sparse_data():
    data = {**DATA, "x": tf.sparse.from_dense(X[:EVEN])}
    return is_finite(fit_alone(2, plain, compile_with(), data, batch_size=8))


# What Linux alone can do, and what takes an import of TensorFlow for each group.
START = "fork" if sys.platform == "linux" else "spawn"


def run(name):
    try:
        return globals()[name]()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def run_all(file, names):
    divide_cpu(CPUS)
    results = {}
    for name in names:
        started = time.process_time()
        results[name] = run(name)
        print(f"{time.process_time() - started:5.1f} s", name, str(results[name])[:300], flush=True)
    file.write_text(json.dumps(results))


def main(file, *groups):
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    gc.freeze()  # collections in the forked processes need not look at TensorFlow itself
    results = {}
    for group in groups:
        process = multiprocessing.get_context(START).Process(
            target=run_all, args=(Path(f"{file}.part"), group.split(","))
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{group}: ended with {process.exitcode}")
        results |= json.loads(Path(f"{file}.part").read_text())
    Path(file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
