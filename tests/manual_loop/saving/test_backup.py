"""A training that is resumed from a backup ends as one that nothing disturbed, to the last bit."""

import datetime
import random
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, SPARSE, X, Y, mlp, plain
from parity import covers, first_difference, fit, values, variables

import keras_fit
import manual_loop
from manual_loop.data.epoch_iterator import EpochIterator
from manual_loop.distribution.single_device import SingleDevice
from manual_loop.execution import steps_tuner
from manual_loop.execution.bound_step import JoinedSteps
from manual_loop.saving import backup_file, resume
from manual_loop.saving.backup import Backup
from manual_loop.saving.training_state import get_variables

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
        "x": dataset()
        .map(lambda x, y: (tf.numpy_function(np.abs, [x], tf.float32), y))
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
    data = data()
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


def crash(trainer, data, folder, at, backup):
    with pytest.raises(RuntimeError, match="crash"):
        run(trainer, data, folder, Crash(*at), backup)
    for variable in variables(trainer):
        variable.assign(variable + 1)
    random.seed(7), np.random.seed(7), tf.random.set_seed(7)


def assert_resumed(whole, resumed, at):
    """All that was to be seen from a batch on, and all that is left in the end."""
    calls, (epoch, batch) = whole["calls"], at
    begun = calls.index(("on_epoch_begin", epoch, {}))
    joint = calls.index(("on_train_batch_begin", batch, {}), begun)
    first = [call[0] for call in resumed["calls"]].index("on_train_batch_begin")
    left, again = {**whole, "calls": calls[joint:]}, {**resumed, "calls": resumed["calls"][first:]}
    assert first_difference(left, again) is None


LATE = [(kind, (2, 3)) for kind in DATA]
EARLY = [(kind, (0, 1)) for kind in ("arrays", "tf.data of unknown length", "PyDataset")]


@covers("callback: Backup", promise="0 ULP against an undisturbed training")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(("kind", "at"), LATE + EARLY)
def test_from_any_batch(kind, at, trainer, tmp_path):
    data, path = DATA[kind], tmp_path / "backup.npz"
    whole = run(trainer, data, tmp_path / "whole")
    again = {"generator": "restarts"} if kind == "generator" else {}
    crash(trainer, data, tmp_path / "parts", at, Backup(path, every=1, **again))
    backup = Backup(path, every=1, **again)
    resumed = run(trainer, data, tmp_path / "parts", backup)
    assert FOUND.get(kind, "") in backup.resumed
    assert_resumed(whole, resumed, at)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == []


@pytest.mark.parametrize("part", ["random", "callbacks", "data", "variables"])
def test_that_this_can_fail(part, trainer, tmp_path, monkeypatch):
    """Each part of a backup is needed: without it, the end is another."""
    data = DATA["PyDataset" if part == "random" else "arrays"]
    whole = run(trainer, data, tmp_path / "whole")
    crash(trainer, data, tmp_path / "parts", (2, 3), Backup(tmp_path / "b.npz", every=1))
    restore = Backup.restore

    def without(self, state, callbacks):
        start = self.state(callbacks, epoch=state["epoch"], step=state["step"])
        restore(self, state | {part: start[part]}, callbacks)

    monkeypatch.setattr(Backup, "restore", without)
    if part == "data":
        from manual_loop.data.epoch_iterator import EpochIterator

        monkeypatch.setattr(EpochIterator, "set_state", lambda *_: "not at all")
    resumed = run(trainer, data, tmp_path / "parts", Backup(tmp_path / "b.npz", every=1))
    with pytest.raises((AssertionError, ValueError)):
        assert_resumed(whole, resumed, (2, 3))


def test_joined_steps_end_where_a_backup_is_due(tmp_path, monkeypatch):
    """Nobody hears batches here, so the loop joins steps, in calls as long as it likes."""
    monkeypatch.setattr(steps_tuner, "CALLS", 2)  # single steps at first
    monkeypatch.setattr(steps_tuner, "SECONDS", 1e3)
    written, sizes = [], []
    write, choose = backup_file.write, JoinedSteps.choose_steps

    def noted(self, iterator, left):
        sizes.append(choose(self, iterator, left))
        return sizes[-1]

    def write_noted(path, state):
        written.append((state["epoch"], state["step"]))
        write(path, state)

    monkeypatch.setattr(backup_file, "write", write_noted)
    monkeypatch.setattr(JoinedSteps, "choose_steps", noted)
    trainer = new(manual_loop.Trainer, plain)
    seen = [
        (start(trainer), trainer.fit(X, Y, batch_size=1, epochs=5, verbose=0, callbacks=these))[1]
        for these in ([], [Backup(tmp_path / "b.npz", every=8)])
    ]
    assert written[-5:] == [(3, 6), (3, 14), (4, 0), (4, 8), (4, 16)]
    assert max(sizes) == 21
    assert seen[0].history == seen[1].history


def test_fit_goes_on_after_an_epoch(tmp_path):
    """Keras's fit, by its public hooks alone: the interrupted epoch is trained again as a whole."""
    trainer = new(keras_fit.Trainer)
    data, path = DATA["arrays"], tmp_path / "backup.npz"
    whole = run(trainer, data, tmp_path / "whole")
    for at in [(1, 2), (3, 4)]:
        crash(trainer, data, tmp_path / "parts", at, Backup(path))
    resumed = run(trainer, data, tmp_path / "parts", Backup(path))
    assert_resumed(whole, resumed, (3, 0))


def test_what_fit_refuses(tmp_path):
    path = tmp_path / "backup.npz"
    trainer = new(keras_fit.Trainer, plain)
    how = {"epochs": 1, "verbose": 0}
    with pytest.raises(ValueError, match="must be the last of the callbacks"):
        trainer.fit(X, Y, callbacks=[Backup(path), callbacks.History()], **how)
    with pytest.warns(UserWarning, match="at the ends of epochs"):
        trainer.fit(X, Y, callbacks=[Backup(path, every=2)], **how)


@pytest.fixture(scope="module")
def backups(trainer, tmp_path_factory):
    """The content of the newest file and of the one before, as a crash left them."""
    folder = tmp_path_factory.mktemp("backups")
    path = folder / "backup.npz"
    crash(trainer, DATA["arrays"], folder, (2, 3), Backup(path, every=1))
    return path.read_bytes(), backup_file.previous_of(path).read_bytes()


DAMAGES = {
    "empty": lambda content: b"",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut by one byte": lambda content: content[:-1],
    "another file": lambda content: b"PK" + bytes(100),
    "a bit is flipped": lambda content: content[:999] + bytes([content[999] ^ 1]) + content[1000:],
    "the checksum is flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup(damage, backups, tmp_path):
    newest, previous = backups
    path = tmp_path / "backup.npz"
    path.write_bytes(DAMAGES[damage](newest))
    with pytest.raises(ValueError, match="Remove it to train from the start"):
        backup_file.read(path)
    backup_file.previous_of(path).write_bytes(previous)
    with pytest.warns(UserWarning, match=r"resumes from the previous backup, .*previous\.npz"):
        state = backup_file.read(path)
    assert (state["epoch"], state["step"]) == (2, 2)


def test_the_previous_backup_ends_in_the_same_place(trainer, backups, tmp_path):
    path = tmp_path / "backup.npz"
    path.mkdir()  # cannot be read
    backup_file.previous_of(path).write_bytes(backups[1])
    whole = run(trainer, DATA["arrays"], tmp_path / "whole")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(OSError, match="backup"):
        run(trainer, DATA["arrays"], tmp_path / "parts", Backup(path, every=1))
    path.rmdir()
    resumed = run(trainer, DATA["arrays"], tmp_path / "parts", Backup(path, every=1))
    assert_resumed(whole, resumed, (2, 2))


def test_a_write_that_fails_leaves_the_files_as_they_are(backups, tmp_path, monkeypatch):
    path = tmp_path / "backup.npz"
    path.write_bytes(backups[0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        backup_file.write(path, {"epoch": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["backup.npz"]
    assert path.read_bytes() == backups[0]


def test_what_a_backup_can_hold():
    state = {"a": (1, None, "x", float("nan")), 2: [np.arange(3, dtype="int8"), np.float32(0.1)]}
    state["b"] = tf.constant([1, 2], tf.bfloat16).numpy()
    again = backup_file.from_bytes(backup_file.to_bytes(state))
    assert first_difference(state.pop("a"), again.pop("a")) is None
    assert again["b"].dtype == state["b"].dtype
    assert again[2][1].dtype == "float32"
    assert first_difference(again.pop(2)[0], state.pop(2)[0]) is None
    assert repr(again) == repr(state)
    with pytest.raises(TypeError, match="A backup holds"):
        backup_file.to_bytes({"a": object()})
    with pytest.raises(TypeError, match="A backup holds"):
        backup_file.to_bytes({"a": np.array([object()])})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "backup.h5"}, r"`path` must end in \.npz"),
        ({"every": 0}, "`every` must be"),
        ({"every": True}, "`every` must be"),
        ({"every": 1.5}, "`every` must be"),
        ({"every": datetime.timedelta()}, "`every` must be"),
        ({"generator": "anywhere"}, "`generator` must be"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Backup(**{"path": "backup.npz", **arguments})


def test_what_cannot_be_resumed(trainer, backups, tmp_path):
    path = tmp_path / "backup.npz"
    path.write_bytes(backups[0])
    how = {"epochs": EPOCHS, "verbose": 0}

    def refused(words, x, callbacks, y=None, trainer=trainer, **more):
        with pytest.raises(ValueError, match=words):
            trainer.fit(x, y, callbacks=callbacks, **how, **more)
        for logger in callbacks:
            if getattr(logger, "csv_file", None):
                logger.csv_file.close()

    refused("only you know which batch", generator(), [Backup(path)], shuffle=False)
    refused("one `Backup` at most", X, [Backup(path), Backup(path)], Y)
    refused("fetches batches beyond", Batches(workers=2), [Backup(path)], steps_per_epoch=2)
    refused("was written with the callbacks", X, [Backup(path)], Y, batch_size=4)
    refused(
        "another model", X, [*usual(tmp_path), Backup(path)], Y, new(manual_loop.Trainer, plain)
    )


def test_every_so_many_seconds(trainer, tmp_path, monkeypatch):
    """A clock that goes on by a second each time that it is read."""
    written, clock = [], iter(range(1000))

    def write(path, state):
        written.append((state["epoch"], state["step"]))

    monkeypatch.setattr(resume, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(backup_file, "write", write)
    backup = Backup(tmp_path / "backup.npz", every=datetime.timedelta(seconds=4))
    run(trainer, DATA["arrays"], tmp_path / "run", backup, epochs=2)
    assert (0, 4) in written
    assert len(written) >= 2


@pytest.mark.parametrize("jit_compile", [False, True])
def test_later_steps_do_not_change_what_is_being_written(jit_compile):
    trainer = manual_loop.Trainer(plain())
    trainer.compile("adam", SPARSE, jit_compile=jit_compile)
    how = {"batch_size": 11, "verbose": 0}
    trainer.fit(X, Y, **how)
    before = [variable.numpy() for variable in variables(trainer)]
    taken = get_variables(variables(trainer))
    trainer.fit(X, Y, epochs=2, **how)
    for (path, tensor), value, now in zip(taken, before, variables(trainer), strict=True):
        np.testing.assert_array_equal(tensor, value, path)
        assert not np.array_equal(value, now.numpy()) or path.endswith("learning_rate"), path


@pytest.mark.parametrize("at", [(0, 2), (0, 4), (1, 1), (2, 3)])
def test_a_dataset_that_was_read_ahead_to_its_end(at):
    """Its iterator's checkpoint does not hold how many orders the shuffle has drawn."""

    def batches():
        tf.random.set_seed(1)
        rows = tf.data.Dataset.range(20).shuffle(20).batch(4).prefetch(9)
        return EpochIterator(rows, steps_per_execution=1, distribution=SingleDevice())

    def epoch(batches, steps=None):
        found = []
        for *_, iterator in batches.calls(lambda *_: 1):
            found.append(next(iterator).numpy().tolist())
            if len(found) == steps:
                break
        return found

    whole, stopped, resumed = batches(), batches(), batches()
    expected = [epoch(whole) for _ in range(4)]
    seen = [epoch(stopped) for _ in range(at[0])]
    begun = epoch(stopped, at[1])
    time.sleep(0.1)  # until all is read
    resumed.set_state(stopped.get_state(at[1]))
    seen.append(begun + epoch(resumed))
    while len(seen) < len(expected):
        seen.append(epoch(resumed))
    assert seen == expected
