"""A training that is resumed from a backup ends as one that nothing disturbed, to the last bit."""

import contextlib
import datetime
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, SPARSE, X, Y, mlp, plain
from parity import covers, first_difference, fit, values, variables

import keras_fit
import manual_loop
from manual_loop.saving import backup_file, training_state
from manual_loop.saving.backup import Backup

callbacks = keras.callbacks
EPOCHS = 4
BATCHES = 6  # of 4 samples, the last one short


class Batches(keras.utils.PyDataset):
    """Changes its own order in each epoch, and keeps it."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.rows = np.arange(len(X))

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        rows = self.rows[4 * index : 4 * index + 4]
        return X[rows], Y[rows]

    def on_epoch_begin(self):
        self.rows = np.random.permutation(self.rows)

    def get_state(self):
        return self.rows

    def set_state(self, state):
        self.rows = state


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(22, seed=3).batch(4)


def generator():
    for _ in range(EPOCHS):
        for at in range(0, len(X), 4):
            yield X[at : at + 4], Y[at : at + 4]


DATA = {
    "arrays": lambda: CLASSES | {"batch_size": 4},
    "shuffled within batches": lambda: CLASSES | {"batch_size": 4, "shuffle": "batch"},
    "tf.data": lambda: {"x": dataset()},
    "tf.data of unknown length": lambda: {"x": dataset().filter(lambda *_: True)},
    "tf.data, epochs that are parts": lambda: {"x": dataset().repeat(), "steps_per_epoch": 5},
    "tf.data with Python": lambda: {
        "x": dataset().map(lambda x, y: (tf.numpy_function(np.abs, [x], tf.float32), y))
        .map(lambda x, y: (tf.ensure_shape(x, [None, 8]), tf.ensure_shape(y, [None, 1])))
    },
    "PyDataset": lambda: {"x": Batches()},
    "PyDataset with workers": lambda: {"x": Batches(workers=2)},
    "generator": lambda: {"x": generator(), "steps_per_epoch": BATCHES},
}
FOUND = {"tf.data with Python": "skipped", "generator": "skipped", "tf.data": "tf.data restored"}


class Crash(callbacks.Callback):
    """Ends the training before a batch; a file that says how far it came is left as it is."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise RuntimeError("crash")


class Counter(callbacks.Callback):
    """Counts epochs, and leaves the count in a variable of the model."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        logs["count"] = self.count

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def usual(folder):
    return [
        Counter(),
        callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0, factor=0.5),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        callbacks.CSVLogger(folder / "log.csv"),
    ]


def new(Trainer, build=mlp, **compile):
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    trainer = Trainer(build())
    trainer.compile(**{"optimizer": "adam", "loss": SPARSE, "metrics": ["acc"]} | compile)
    trainer.optimizer.build(trainer.model.trainable_variables)
    trainer.start = values(variables(trainer))
    return trainer


@pytest.fixture(scope="module")
def trainer():
    return new(manual_loop.Trainer)


def start(trainer):
    """As in a new process: other random numbers have been drawn, and other weights are there."""
    for variable in variables(trainer):
        variable.assign(trainer.start[variable.path])
    keras.utils.set_random_seed(0)


def run(trainer, data, folder, *more, **arguments):
    folder.mkdir(exist_ok=True)
    start(trainer)
    arguments = {"epochs": EPOCHS, **data} | arguments
    if "y" not in data and not isinstance(data["x"], keras.utils.PyDataset):
        arguments["shuffle"] = False
    given = {name: arguments.pop(name) for name in ("x", "y") if name in arguments}
    those = [*usual(folder), *more]
    try:
        seen = fit(trainer, given, lambda: those, **arguments)
    finally:
        those[4].csv_file.close()  # which a crash leaves open
    seen["next numbers"] = [random.random(), np.random.random(), tf.random.uniform([]).numpy()]
    seen["log"] = (folder / "log.csv").read_text()
    return seen


def crash(trainer, data, folder, at, backup, **arguments):
    with pytest.raises(RuntimeError, match="crash"):
        run(trainer, data, folder, backup, Crash(*at), **arguments)
    for variable in variables(trainer):
        variable.assign(variable + 1)
    random.seed(7), np.random.seed(7), tf.random.set_seed(7)


def assert_resumed(whole, resumed, steps):
    """All that was to be seen of the last steps, and all that is left in the end."""
    where = [i for i, call in enumerate(whole["calls"]) if call[0] == "on_train_batch_begin"][steps]
    begun = [i for i, call in enumerate(resumed["calls"]) if call[0] == "on_train_batch_begin"][0]
    left = {**whole, "calls": whole["calls"][where:]}
    assert first_difference(left, {**resumed, "calls": resumed["calls"][begun:]}) is None


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("at", [(0, 1), (2, 3)], ids=["first epoch", "third epoch"])
def test_from_any_batch(kind, at, trainer, tmp_path):
    data, path = DATA[kind], tmp_path / "backup.npz"
    whole = run(trainer, data(), tmp_path / "whole")
    again = {"generator": "restarts"} if kind == "generator" else {}
    crash(trainer, data(), tmp_path / "parts", at, Backup(path, every=1, **again))
    backup = Backup(path, every=1, **again)
    resumed = run(trainer, data(), tmp_path / "parts", backup)
    assert FOUND.get(kind, "") in backup.resumed
    steps = whole["calls"][0][1]["steps"] or BATCHES
    assert_resumed(whole, resumed, at[0] * steps + at[1])
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == []
