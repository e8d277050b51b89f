"""Trains for a long time in one process, and looks whether it drifts from fit, or grows.

    python tests/support/soak.py MINUTES [--seed 0] [--write]

Two processes go through the same rounds side by side, one with `keras_fit.Trainer`, one with
`manual_loop.Trainer`. A round is one of `ACTIONS`, with random arguments and new data: a fit, an
evaluation, an interrupt, another compile. They come as cards from a shuffled deck: each once for
each model, before any comes again. After a round all that it returned and all variables must be
equal in both processes, to the last bit. What each process holds then is measured.

A third of the time no round makes new graphs, and what the loop holds must level off. Then rounds
compile and load models too. TensorFlow keeps something of every trained graph for good: here the
loop must not grow faster than fit. Exit status 1 if it does, or if the rounds were too few to tell.
With --write, the figures go into docs/reliability.md. Linux only: it reads /proc.
"""

import argparse
import collections
import contextlib
import ctypes
import gc
import hashlib
import json
import logging
import math
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
        [
            {"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}},
            {"sample_weight": np.random.uniform(size=ROWS)},
        ]
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


ON_THE_SAME_GRAPHS = (
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
    new_trainer,
)
WITH_NEW_GRAPHS = (*ON_THE_SAME_GRAPHS, compile_again, save_and_load)


class Deck:
    """The cards of one part of a soak.

    Args:
        name: in words.
        actions: of this module.

    Attributes:
        cards: list of `(action, number of its model)`.
    """

    def __init__(self, name, actions):
        self.name = name
        self.cards = [(action, model) for model in range(len(MODELS)) for action in actions]

    def card(self, number, seed):
        """The action of a round, its model, and the `random.Random` of both sides."""
        times, place = divmod(number, len(self.cards))
        order = random.Random(f"{self.name} {times} {seed}").sample(self.cards, len(self.cards))
        return *order[place], random.Random(f"{self.name}, round {number} {seed}")


SAME = Deck("on the same graphs", ON_THE_SAME_GRAPHS)
NEW = Deck("with new graphs", WITH_NEW_GRAPHS)
DECKS = {deck.name: deck for deck in (SAME, NEW)}


def play(sessions, deck, number, seed):
    """Play a round: dict of what is to be seen after it."""
    action, model, chance = deck.card(number, seed)
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

# How many more of each there may be after 1,000 rounds. If one card of a deck keeps its data
# (0.5 MB), a thread or a graph, that is 15 to 18 MB, or 31 to 36 of them.
LIMITS = {
    "memory, MB": 10,
    "threads": 15,
    "open files": 15,
    "graphs": 15,
    "functions in the runtime": 15,
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


POINTS = 6  # fewer say nothing of growth

Growth = collections.namedtuple("Growth", ["slope", "low", "high"])


def growth(values, deck):
    """How fast one measure grows, in 1,000 rounds, with its 95 % interval.

    Of the last two thirds: in the first, each kind of graph is traced for the first time. The
    average over a deck is one point, since its cards hold different things for a while. The line is
    Theil's and Sen's, the median of the slopes between all pairs of points: a single jump, as that
    of an allocator which takes more from the system, does not tilt it.

    Args:
        values: one for each round.
        deck: a `Deck`.
    """
    size = len(deck.cards)
    times = len(values) // size
    points = np.reshape(values[: times * size], [times, size]).mean(1)[times // 3 :]
    if len(points) < POINTS:
        return Growth(math.nan, -math.inf, math.inf)
    found = stats.theilslopes(points, np.arange(len(points)) * size / 1000)
    return Growth(float(found.slope), float(found.low_slope), float(found.high_slope))


def verdict(found, limit):
    """ "level", "grows", or "undecided" where the rounds were too few to tell."""
    if found.high <= limit:
        return "level"
    return "grows" if found.low > limit else "undecided"


def judge(rounds, deck):
    """What became of each of `LIMITS`.

    Args:
        rounds: list of `{side: measure()}`, of one deck.
        deck: a `Deck`.

    Returns:
        dict: measure -> `(growth of fit, of the loop, of the loop less fit, verdict)`.
    """
    found = {}
    for name, limit in LIMITS.items():
        fit, loop = (np.array([held[side][name] for held in rounds]) for side in TRAINERS)
        growths = [growth(values, deck) for values in (fit, loop, loop - fit)]
        found[name] = *growths, verdict(growths[1 if deck is SAME else 2], limit)
    return found


# Both processes -----------------------------------------------------------------------------------


def work(side, seed, pipe):
    """Play each round whose deck and number come through the pipe, until None comes."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # each compile traces anew
    with tempfile.TemporaryDirectory() as root:
        keras.utils.set_random_seed(seed)
        sessions = []
        for build in MODELS:
            folder = Path(root) / build.__name__
            folder.mkdir()
            sessions.append(Session(TRAINERS[side], build, folder))
        gc.collect()
        gc.freeze()  # what TensorFlow and Keras have imported: each collection is quicker
        while (card := pipe.recv()) is not None:
            deck, number = card
            seen = play(sessions, DECKS[deck], number, seed)
            pipe.send(({name: fingerprint(value) for name, value in seen.items()}, measure()))
            del seen


def start(seed):
    """Start both processes: dict: side -> the pipe to it. They end with this one."""
    pipes = {}
    spawn = multiprocessing.get_context("spawn")
    for side in TRAINERS:
        pipes[side], end = spawn.Pipe()
        spawn.Process(target=work, args=(side, seed, end), daemon=True).start()
        end.close()
    return pipes


def soak(pipes, deck, minutes, seed):
    """Play a deck again and again until the time is over.

    Returns:
        list of `{side: measure()}`, one for each round.

    Raises:
        AssertionError: the sides differ after a round.
        EOFError: a process has failed.
    """
    deadline, rounds = time.monotonic() + 60 * minutes, []
    while time.monotonic() < deadline or len(rounds) % len(deck.cards):
        number = len(rounds)
        for pipe in pipes.values():
            pipe.send((deck.name, number))
        (fit, held_by_fit), (loop, held_by_loop) = (pipe.recv() for pipe in pipes.values())
        action, model, _ = deck.card(number, seed)
        name = f"{deck.name}, {number}: {action.__name__} of {MODELS[model].__name__}"
        differing = [name for name in fit | loop if fit.get(name) != loop.get(name)]
        assert not differing, f"{name}: the sides differ in {differing}"
        print(f"{name}: {[*held_by_fit.values()]} {[*held_by_loop.values()]}", flush=True)
        rounds.append({"fit": held_by_fit, "loop": held_by_loop})
    return rounds


def text_of(found):
    """A growth as the page has it."""
    return f"{found.slope:.1f} [{found.low:.1f}, {found.high:.1f}]"


def page_of(options, results):
    """The part of docs/reliability.md between the marks.

    Args:
        options: of the command line.
        results: list of `(deck, rounds, judge(rounds, deck))`.
    """
    command = f"soak.py {options.minutes:g}" + f" --seed {options.seed}" * (options.seed > 0)
    counts = " and ".join(f"{len(rounds):,} {deck.name}" for deck, rounds, _ in results)
    lines = [
        f"`tests/support/{command}`: {counts}; after each, the loop and fit were equal.",
        "",
        "| rounds | growth in 1,000 rounds, of | fit | loop | loop less fit | limit | |",
        "| :-- | :-- | --: | --: | --: | --: | :-- |",
    ]
    for deck, _, found in results:
        for name, (*growths, outcome) in found.items():
            cells = [deck.name, name, *map(text_of, growths), str(LIMITS[name]), outcome]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    pipes = start(options.seed)
    results = []
    for deck, part in ((SAME, 1 / 3), (NEW, 2 / 3)):
        rounds = soak(pipes, deck, options.minutes * part, options.seed)
        results.append((deck, rounds, judge(rounds, deck)))
    page = page_of(options, results)
    print(page)
    if options.write:
        text = PAGE.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(f"{text[:begin]}\n{page}\n{text[end:]}")
    return int(any(outcome != "level" for *_, found in results for *_, outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
