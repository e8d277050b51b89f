"""Training on several workers, real processes on the loopback, each of this script's cases.

    python tests/support/clusters.py FOLDER CASE ...

imports TensorFlow once, and forks the workers of one case after the other. What each worker returns
is written to FOLDER/CASE-WORKER.pickle: a dict, or the exception that ended it; nothing if it was
killed. What it prints goes to FOLDER/CASE-WORKER.log.
"""

import contextlib
import functools
import gc
import os
import pickle
import signal
import sys
import time
import traceback
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from cases import X, Y, compile_with, mlp, plain
from parity import exact, fit

import keras_fit
import manual_loop
from fit_unfolded import cli
from fit_unfolded.common import launch
from fit_unfolded.common.launch import cluster, free_addresses
from manual_loop.distribution.multi_worker import cluster_of, multi_worker_strategy
from manual_loop.distribution.replicas import mirrored_strategy
from manual_loop.saving.backup import Backup

SECONDS = 90  # that a case may take
EVEN = 16
EPOCHS = 3
TRAINED = {"x": X, "y": Y, "validation_data": (X[:EVEN], Y[:EVEN])}
THIRDS = {"x": X[:18], "y": Y[:18]}  # a batch of 6 has as many samples for each of three
HOW = {"epochs": EPOCHS, "batch_size": 8}  # the last batch is partial


def make(Trainer, strategy, build, **compile):
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        trainer = Trainer(build())
        trainer.compile(**compile_with(**{"optimizer": "adam"} | compile)())
    keras.utils.set_random_seed(0)
    return trainer


def train(strategy, build=mlp, data=TRAINED, callbacks=list, Trainer=manual_loop.Trainer, **how):
    """A dict of all that is to be seen of one training, and the trainer."""
    compile = {name: how.pop(name) for name in ("steps_per_execution",) if name in how}
    trainer = make(Trainer, strategy, build, **compile)
    return fit(trainer, data, callbacks, **(HOW | how)), trainer


def use(trainer, x, y):
    return {
        "evaluate": trainer.evaluate(x, y, batch_size=8, verbose=0),
        "predict": exact(trainer.predict(x, batch_size=8, verbose=0)),
    }


def failure(function, *args, **kwargs):
    """The error that ends a call, in words; None if none does."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


# Two and three workers ------------------------------------------------------------------------


def two(strategy, folder):
    """Everything that needs no worker to die: one cluster for all of it."""
    me = cluster_of(strategy)
    own = folder / f"files-{me.place}"
    own.mkdir()

    def writers():
        return [
            Backup(own / "backup.npz"),
            keras.callbacks.ModelCheckpoint(own / "{epoch}.keras"),
            keras.callbacks.CSVLogger(own / "log.csv"),
        ]

    seen, trainer = train(strategy, callbacks=writers)
    found = {"trained": seen | use(trainer, X, Y)}
    found["files"] = sorted(path.name for path in own.iterdir())
    found["in order"] = exact(
        trainer.predict(tf.data.Dataset.from_tensor_slices(X).batch(5), verbose=0)
    )
    found |= differences(strategy, trainer, me.place)
    found["plain"], _ = train(strategy, plain)
    found["blocks"], _ = train(strategy, plain, steps_per_execution=2)
    found["files of data"], found["lines read"], found["files in order"] = from_files(
        strategy, folder
    )
    return found


def differences(strategy, trainer, place):
    """What a worker says that is told other things than the rest; training goes on after it."""
    data = {"x": X, "y": Y, "verbose": 0}
    found = {}
    keras.utils.set_random_seed(place)
    found["seeds"] = failure(trainer.fit, **data)
    keras.utils.set_random_seed(0)
    tf.random.set_seed(None)
    found["no seed"] = failure(trainer.fit, **data)
    keras.utils.set_random_seed(0)
    found["batch sizes"] = failure(trainer.fit, **data, batch_size=8 + place)
    found["epochs"] = failure(trainer.fit, **data, epochs=1 + place)
    found["data"] = failure(trainer.fit, X + place, Y, verbose=0)
    found["methods"] = failure((trainer.fit, trainer.evaluate)[place], **data)
    found["predict"] = failure((trainer.predict, trainer.evaluate)[place], X, verbose=0)
    found["steps"] = failure(trainer.evaluate, **data, steps=1 + place)
    validation = {"validation_data": (X, Y), "validation_batch_size": 8 + place}
    found["validation batches"] = failure(trainer.fit, **data, **validation)
    other = make(manual_loop.Trainer, strategy, plain, optimizer=("adam", "sgd")[place])
    found["optimizers"] = failure(other.fit, **data)
    return found


def three(strategy, folder):
    return {"plain": train(strategy, plain, THIRDS, batch_size=6)[0]}


def from_files(strategy, folder):
    """Two files with half of the samples each: what a worker learns of them, which lines it reads,
    and what it predicts for all of them.
    """
    read = []

    def note(line):
        read.append(line.decode())
        return line

    def parse(line):
        line = tf.ensure_shape(tf.numpy_function(note, [line], tf.string), [])
        numbers = tf.ensure_shape(tf.strings.to_number(tf.strings.split(line, ",")), [9])
        return numbers[1:], numbers[:1]

    paths = [str(folder / f"{part}.txt") for part in range(2)]
    files = tf.data.Dataset.from_tensor_slices(paths)
    lines = files.interleave(tf.data.TextLineDataset, cycle_length=2, block_length=4)
    data = {"x": lines.map(parse).batch(8)}
    how = {"batch_size": None, "epochs": 9, "shuffle": False, "callbacks": stop}
    seen, trainer = train(strategy, plain, data, **how)
    lines_read = set(read)
    return seen, lines_read, [trainer.predict(of, verbose=0) for of in (data["x"], as_in_files())]


def as_in_files():
    """The samples of the two files, four of one and four of the other in turns."""
    parts = np.split(X[:EVEN].reshape(-1, 2, X.shape[1]), 2)
    return np.concatenate([part[:, file] for part in parts for file in range(2)])


def stop():
    """Callbacks that stop after two epochs, for what they see in a log."""
    return [keras.callbacks.EarlyStopping(monitor="loss", min_delta=10, patience=1)]


def write_files(folder):
    for part in range(2):
        with (folder / f"{part}.txt").open("w") as file:
            for x, y in zip(X[part:EVEN:2], Y[part:EVEN:2, 0], strict=True):
                print(y, *map(repr, map(float, x)), sep=",", file=file)


# A worker dies --------------------------------------------------------------------------------


class Die(keras.callbacks.Callback):
    """Kills this process in the middle of the second epoch, and notes when."""

    def __init__(self, note):
        super().__init__()
        self.note = note

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1 and batch == 1:
            self.note.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)


def die(strategy, folder, place):
    """The error on the worker that is left, and how many seconds it took to come."""
    note = folder / f"died-{place}"
    callbacks = [Backup(folder / f"{place}.npz")]
    if cluster_of(strategy).place == place:
        callbacks.append(Die(note))
    found = {"error": failure(train, strategy, callbacks=lambda: callbacks)}
    return found | {"seconds": time.time() - float(note.read_text())}


def die_worker(strategy, folder):
    return die(strategy, folder, 1)


def die_chief(strategy, folder):
    return die(strategy, folder, 0)


def resume(strategy, folder):
    path = folder / "1.npz"
    seen, _ = train(strategy, callbacks=lambda: [Backup(path)])
    return seen | {"backup is left": path.exists()}


# Fit ------------------------------------------------------------------------------------------


def fit_on_workers(strategy, folder):
    return train(strategy, plain, {"x": X, "y": Y}, Trainer=keras_fit.Trainer, epochs=1)[0]


def references(strategy, folder):
    """One process: fit on as many replicas as there are workers, and on one device."""
    keras_trainer = functools.partial(train, Trainer=keras_fit.Trainer)
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, parts)
    seen, trainer = keras_trainer(mirrored_strategy(2))
    for variable in trainer.model.variables:  # workers end with the first one's averages
        variable.assign(variable.value)
    alone, _ = keras_trainer(None, plain)
    thirds, _ = keras_trainer(None, plain, THIRDS, batch_size=6)
    files = {"x": X[:EVEN], "y": Y[:EVEN].astype("float32")}
    return {
        "trained": seen | use(trainer, X, Y),
        "plain": alone,
        "thirds": thirds,
        "files of data": keras_trainer(None, plain, files, epochs=2, shuffle=False)[0],
    }


# The command line ---------------------------------------------------------------------------


class Forked:
    """In the place of `subprocess.Popen`, for workers: TensorFlow is imported already."""

    def __init__(self, command, *, stdout, env, **_):
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            os.environ.clear()
            os.environ.update(env)
            _, _, _, *arguments = command  # python -m fit_unfolded
            os._exit(command_line(*arguments))

    def poll(self):
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode


def command_line(*arguments):
    sys.argv = ["fit-unfolded", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def compare(strategy, folder):
    launch.subprocess.Popen = Forked
    tiny = ["--epochs", 1, "--batch-size", 256, "--output", folder / "out"]
    status = command_line("compare", "digits-mlp", "--workers", 2, *tiny)
    return {"status": status, "files": sorted(path.name for path in (folder / "out").iterdir())}


CASES = {
    "compare": (compare, 1),
    "two": (two, 2),
    "three": (three, 3),
    "die_worker": (die_worker, 2),
    "die_chief": (die_chief, 2),
    "resume": (resume, 2),
    "fit": (fit_on_workers, 2),
    "references": (references, 1),
}


def work(case, folder, function, place, addresses):
    """What a forked process does."""
    log = os.open(folder / f"{case}-{place}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        strategy = None
        if len(addresses) > 1:
            os.environ["TF_CONFIG"] = cluster(addresses, place)
            strategy = multi_worker_strategy({"case": case}, seconds=SECONDS)
        result = function(strategy, folder)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"{case}-{place}.pickle").write_bytes(pickle.dumps(result))
    sys.stdout.flush()
    sys.stderr.flush()


def run(case, folder):
    function, count = CASES[case]
    addresses = free_addresses(count)
    children = []
    for place in range(count):
        child = os.fork()
        if child == 0:
            try:
                work(case, folder, function, place, addresses)
            finally:
                os._exit(0)
        children.append(child)
    deadline = time.monotonic() + SECONDS
    while children and time.monotonic() < deadline:
        children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        time.sleep(0.05)
    for child in children:
        print(f"{case}: {child} took too long", flush=True)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main(folder, *cases):
    folder = Path(folder)
    write_files(folder)
    gc.freeze()  # collections in the forked processes need not look at TensorFlow itself
    for case in cases:
        before, started = os.times(), time.monotonic()
        run(case, folder)
        used = os.times().children_user - before.children_user
        print(f"{time.monotonic() - started:5.1f} s, {used:5.1f} s of CPU", case, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
