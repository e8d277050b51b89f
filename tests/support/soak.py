"""Trains for a long time in one process, and looks whether it drifts from fit, or grows.

    python tests/support/soak.py MINUTES [--seed 0] [--write]

Two processes go through the same rounds side by side, one with `keras_fit.Trainer`, one with
`manual_loop.Trainer`. A round is one of `ACTIONS`, with random arguments and new data: a fit, an
evaluation, an interrupt, another compile. They come as cards from a shuffled deck: each once for
each model, before any comes again. After a round all that it returned and all variables must be
equal in both processes, to the last bit. What each process holds then is measured, and must level
off; the process of fit tells what Keras and TensorFlow hold themselves. With --write, the figures
go into docs/reliability.md. Linux only: it reads /proc.
"""

import argparse
import collections
import contextlib
import ctypes
import gc
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from scipy import stats  # noqa: E402
from tensorflow.python.eager import context  # noqa: E402

import keras_fit  # noqa: E402
import manual_loop  # noqa: E402
from fit_unfolded.comparison.record import Recorder  # noqa: E402
from manual_loop.saving.backup import Backup  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
TRAINERS = {"fit": keras_fit.Trainer, "loop": manual_loop.Trainer}
layers = keras.layers


# What is trained --------------------------------------------------------------------------------

ROWS = 256
BATCH_SIZES = (32, 48)  # without a partial batch, and with one


def mlp():
    """A regularizer, random numbers, moving averages; single steps of it are joined."""
    return keras.Sequential(
        [
            keras.Input([512]),
            layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def cnn():
    """A convolution: single steps of it are not joined."""
    return keras.Sequential(
        [
            keras.Input([16, 16, 2]),
            layers.Conv2D(2, 3, strides=3),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )


MODELS = (mlp, cnn)


class Session:
    """A model, the trainer that it has now, and a folder for files.

    Args:
        Trainer: of one of the sides.
        build: of `MODELS`.
        folder: a `pathlib.Path`.
    """

    def __init__(self, Trainer, build, folder):
        self.Trainer = Trainer
        self.folder = folder
        self.has_convolution = build is cnn
        self.trainer = Trainer(build())
        self.compile()

    def compile(self, optimizer="adam", **how):
        """Compile, and make the variables of the optimizer."""
        model = self.trainer.model
        self.trainer.compile(optimizer, "sparse_categorical_crossentropy", metrics=["acc"], **how)
        model.optimizer.build(model.trainable_variables)

    def variables(self):
        """Those of the model and of its optimizer."""
        return [*self.trainer.model.variables, *self.trainer.model.optimizer.variables]

    def data(self):
        """New rows and labels: half a megabyte, so that data that stay are noticed."""
        shape = self.trainer.model.input_shape[1:]
        return np.random.normal(size=(ROWS, *shape)).astype("float32"), new_labels(ROWS)

    def fit(self, *data, **arguments):
        """The history."""
        return self.trainer.fit(*data, verbose=0, **arguments).history


def new_labels(rows):
    return np.random.randint(0, 3, (rows, 1))


# A round: `(session, chance) -> what is to be seen of it` -----------------------------------------


def fit_arrays(session, chance):
    return session.fit(
        *session.data(),
        batch_size=chance.choice(BATCH_SIZES),
        epochs=chance.choice([1, 2, 3]),
        validation_split=chance.choice([0.0, 0.25]),
        shuffle=chance.choice([True, False, "batch"]),
    )


def fit_with_weights(session, chance):
    weights = chance.choice(
        [{"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}}, {"sample_weight": np.random.uniform(size=ROWS)}]
    )
    return session.fit(*session.data(), batch_size=32, **weights)


def fit_with_a_callback_on_batches(session, chance):
    recorder = Recorder()
    size = chance.choice(BATCH_SIZES)
    history = session.fit(*session.data(), batch_size=size, epochs=2, callbacks=[recorder])
    return history, [list(call) for call in recorder.calls]


def fit_with_callbacks(session, chance):
    """Early stopping, another learning rate, files."""
    log = session.folder / "log.csv"
    callbacks = [
        keras.callbacks.EarlyStopping(patience=0, restore_best_weights=chance.random() < 0.5),
        keras.callbacks.ReduceLROnPlateau(patience=0, factor=0.7),
        keras.callbacks.ModelCheckpoint(session.folder / "best.keras", save_best_only=True),
        keras.callbacks.CSVLogger(log),
    ]
    test = session.data()
    how = {"epochs": 5, "batch_size": 32, "validation_data": test, "callbacks": callbacks}
    return session.fit(*session.data(), **how), log.read_text()


def fit_dataset(session, chance):
    rows = tf.data.Dataset.from_tensor_slices(session.data())
    batches = rows.shuffle(ROWS, seed=chance.randrange(99)).batch(chance.choice(BATCH_SIZES))
    return session.fit(batches, epochs=2, validation_data=rows.batch(32))


def fit_pydataset(session, chance):
    batches = Batches(*session.data(), workers=chance.choice([1, 2]))
    return session.fit(batches, epochs=2, shuffle=chance.random() < 0.5)


def fit_generator(session, chance):
    batches = iter(Batches(*session.data(), workers=1))
    return session.fit((batch for batch in batches), epochs=2, steps_per_epoch=3)


class Batches(keras.utils.PyDataset):
    """Eight batches of 32 rows."""

    def __init__(self, x, y, workers):
        super().__init__(workers=workers)
        self.x, self.y = x, y

    def __len__(self):
        return ROWS // 32

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError  # ends the iterator that Python makes of this method
        rows = slice(index * 32, (index + 1) * 32)
        return self.x[rows], self.y[rows]


def evaluate(session, chance):
    data = chance.choice([session.data(), (Batches(*session.data(), workers=1),)])
    return session.trainer.evaluate(*data, verbose=0)


def predict(session, chance):
    x, _ = session.data()
    x = chance.choice([x, tf.data.Dataset.from_tensor_slices(x).batch(48)])
    return session.trainer.predict(x, verbose=0)


def on_batches(session, chance):
    x, y = session.data()
    rows = slice(chance.choice([8, 16]))
    trainer = session.trainer
    return (
        trainer.train_on_batch(x[rows], y[rows]),
        trainer.test_on_batch(x[rows], y[rows]),
        trainer.predict_on_batch(x[rows]),
    )


class Raise(keras.callbacks.Callback):
    """Raises an error at the end of a batch, or of an epoch."""

    def __init__(self, error, epoch):
        super().__init__()
        self.error = error
        self.at = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at:
            raise self.error


class RaiseAtBatch(Raise):
    """In the middle of the epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at and batch >= 3:
            raise self.error

    def on_epoch_end(self, epoch, logs=None):
        pass


def fit_until_an_error(session, chance):
    """A callback raises; what a fit in between has learned stays."""
    error = chance.choice([KeyboardInterrupt, RuntimeError])
    callbacks = [chance.choice([Raise, RaiseAtBatch])(error, chance.choice([0, 1]))]
    data = chance.choice([session.data(), (Batches(*session.data(), workers=2),)])
    with contextlib.suppress(error):
        session.fit(*data, epochs=3, callbacks=callbacks)
        raise AssertionError("the error of the callback did not come out of fit")


def fit_until_a_signal(session, chance):
    """Ctrl-C at a random moment. How far it came nobody knows: the variables are set back."""
    x, y = session.data()
    how = {"batch_size": chance.choice(BATCH_SIZES)}
    session.fit(x, y, **how)  # traced now: an interrupted trace may break TensorFlow itself
    before = [variable.numpy() for variable in session.variables()]
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.3))
        session.fit(x, y, epochs=200, **how)
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for variable, value in zip(session.variables(), before, strict=True):
        variable.assign(value)


def fit_from_a_backup(session, chance):
    """Interrupted, and started again."""
    x, y = session.data()
    seen = []
    for error in (RaiseAtBatch(RuntimeError, chance.choice([1, 2])), None):
        backup = Backup(session.folder / "backup.npz")
        callbacks = [error, backup] if error else [backup]
        with contextlib.suppress(RuntimeError):
            seen.append(session.fit(x, y, epochs=3, batch_size=32, callbacks=callbacks))
    return seen


def compile_again(session, chance):
    optimizer = chance.choice(["adam", "sgd", "rmsprop"])
    ways = [{}, {"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}]
    if session.has_convolution:  # XLA takes long to compile it
        ways.pop()
    session.compile(optimizer, **chance.choice(ways))


def new_trainer(session, chance):
    session.trainer = session.Trainer(session.trainer.model)


def save_and_load(session, chance):
    path = session.folder / chance.choice(["model.keras", "model.h5"])
    session.trainer.save(path)
    session.trainer = session.Trainer(keras.models.load_model(path))


ACTIONS = (
    fit_arrays,
    fit_with_weights,
    fit_with_a_callback_on_batches,
    fit_with_callbacks,
    fit_dataset,
    fit_pydataset,
    fit_generator,
    evaluate,
    predict,
    on_batches,
    fit_until_an_error,
    fit_until_a_signal,
    fit_from_a_backup,
    compile_again,
    new_trainer,
    save_and_load,
)
DECK = [(action, model) for model in range(len(MODELS)) for action in ACTIONS]


def card(number, seed):
    """The action of this round, the number of its model, and the `random.Random` of both sides."""
    deck, place = divmod(number, len(DECK))
    order = random.Random(f"deck {deck} {seed}").sample(DECK, len(DECK))
    return *order[place], random.Random(f"round {number} {seed}")


def play(sessions, number, seed):
    """Play a round: dict of what is to be seen after it."""
    action, model, chance = card(number, seed)
    keras.utils.set_random_seed(number)
    seen = {"what it returned": action(sessions[model], chance)}
    for session in sessions:
        for variable in session.variables():
            seen[variable.path] = variable.numpy()
    return seen


def fingerprint(value):
    """A short text that differs where two values do, in a single bit."""
    text = json.dumps(value, default=lambda array: np.asarray(array).tobytes().hex())
    return hashlib.sha256(text.encode()).hexdigest()


# What a process holds -----------------------------------------------------------------------------

# For each measure, how many more there may be after 1,000 rounds. A round brings 0.5 MB of data,
# and a trace that is held a graph and some functions: what every card of the deck left once, let
# alone every round, is above these.
LIMITS = {
    "memory, MB": 10,
    "threads": 5,
    "open files": 5,
    "graphs": 20,
    "functions in the runtime": 60,
}


def measure():
    """dict: each of `LIMITS` -> how much of it this process holds, garbage collected."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # memory that is free goes back, by glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    graph = tf.__internal__.FuncGraph
    return {
        "memory, MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": len(os.listdir("/proc/self/task")),
        "open files": len(os.listdir("/proc/self/fd")),
        "graphs": sum(type(found) is graph for found in gc.get_objects()),
        "functions in the runtime": len(context.context().list_function_names()),
    }


Growth = collections.namedtuple("Growth", ["slope", "low", "high"])


def growth(values):
    """How fast one measure grows, in 1,000 rounds, with its 95 % interval.

    Of the last two thirds: in the first, each kind of graph is traced for the first time. The
    average of a deck is one point, since its cards hold different things for a while. The line is
    Theil's and Sen's, the median of the slopes between all pairs of points: a single jump, as that
    of an allocator which takes more from the system, does not tilt it.

    Args:
        values: one for each round.
    """
    decks = len(values) // len(DECK)
    points = np.reshape(values[: decks * len(DECK)], [decks, -1]).mean(1)[decks // 3 :]
    found = stats.theilslopes(points, np.arange(len(points)) * len(DECK) / 1000)
    return Growth(found.slope, found.low_slope, found.high_slope)


def verdict(found, limit):
    """"level", "grows", or "undecided" where the rounds were too few to tell."""
    if found.high <= limit:
        return "level"
    return "grows" if found.low > limit else "undecided"


# Both processes -----------------------------------------------------------------------------------


def work(side, seed, pipe):
    """Play each round whose number comes through the pipe, until None comes."""
    with tempfile.TemporaryDirectory() as root:
        keras.utils.set_random_seed(seed)
        sessions = []
        for build in MODELS:
            folder = Path(root) / build.__name__
            folder.mkdir()
            sessions.append(Session(TRAINERS[side], build, folder))
        gc.collect()
        gc.freeze()  # what TensorFlow and Keras have imported: each collection is quicker
        while (number := pipe.recv()) is not None:
            seen = play(sessions, number, seed)
            pipe.send(({name: fingerprint(value) for name, value in seen.items()}, measure()))
            del seen


def soak(minutes, seed, report=print):
    """Play decks until the time is over.

    Returns:
        list of `{side: measure()}`, one for each round.

    Raises:
        AssertionError: the sides differ after a round.
        EOFError: a process has failed.
    """
    processes, pipes, rounds = [], {}, []
    spawn = multiprocessing.get_context("spawn")
    for side in TRAINERS:
        pipes[side], end = spawn.Pipe()
        processes.append(spawn.Process(target=work, args=(side, seed, end), daemon=True))
        processes[-1].start()
        end.close()
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline or len(rounds) % len(DECK):
        number = len(rounds)
        for pipe in pipes.values():
            pipe.send(number)
        seen, held = zip(*[pipe.recv() for pipe in pipes.values()], strict=True)
        a, b = seen
        differing = [name for name in a | b if a.get(name) != b.get(name)]
        action, model, _ = card(number, seed)
        name = f"{action.__name__} of {MODELS[model].__name__}"
        assert not differing, f"round {number}, {name}: the sides differ in {differing}"
        rounds.append(dict(zip(pipes, held, strict=True)))
        report(number, name, *[list(measured.values()) for measured in held])
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    return rounds


def judge(rounds):
    """dict: measure -> `(growth of fit, growth of the loop, verdict)`."""
    found = {}
    for name, limit in LIMITS.items():
        fit, loop = (growth([each[side][name] for each in rounds]) for side in TRAINERS)
        found[name] = fit, loop, verdict(loop, limit)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    def report(number, name, fit, loop):
        print(f"{number}: {name}: fit {fit}, loop {loop}", flush=True)

    rounds = soak(options.minutes, options.seed, report)
    found = judge(rounds)
    for name, (fit, loop, outcome) in found.items():
        print(f"{name}: {outcome}; fit {fit}, loop {loop}")
    return int(any(outcome != "level" for *_, outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
