"""Kills a training at random moments, starts it again until it is done, and compares the end.

    python tests/support/torture.py N [--workers 2] [--write]

Each of the N trainings runs in processes of its own, which are killed by SIGKILL after a random
time: also while they start, while they write a backup, and while they end. Then all that it left is
compared with what a training left that nobody disturbed: weights, optimizer variables, history, the
callback calls after each joint, the files of ModelCheckpoint and CSVLogger, and that no temporary
file and no process is left. With --write, the counts go into docs/reliability.md; after Ctrl-C,
those of the trainings that were done.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"
EPOCHS, BATCHES, SAMPLES = 6, 20, 160
SECONDS = 120  # that one process may take; more is a failure
STARTS = 60  # of one training; more is a failure
KINDS = ("arrays", "tf.data", "PyDataset")
MODES = ("every batch is heard", "steps are joined")
RESULT, STREAM = "result.npz", "stream.jsonl"


# The training, in a process of its own ----------------------------------------------------------


def train(folder, kind, mode, strategy=None, place=0):
    """Train to the end, from the backup if there is one."""
    import keras
    import numpy as np

    import manual_loop
    from manual_loop.execution import steps_tuner
    from manual_loop.saving.backup import Backup

    steps_tuner.CALLS = 4  # single steps before some are joined, in so short a training

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return BATCHES

        def __getitem__(self, index):
            at = index * SAMPLES // BATCHES
            return x[at : at + SAMPLES // BATCHES], y[at : at + SAMPLES // BATCHES]

    class Stream(keras.callbacks.Callback):
        """Writes each call of a callback to a file, one a line, at once."""

        def __init__(self, path):
            super().__init__()
            self.file = path.open("a", buffering=1)

        def note(self, *call):
            self.file.write(json.dumps(call) + "\n")

        def on_train_begin(self, logs=None):
            self.note("train begin")

        def on_epoch_begin(self, epoch, logs=None):
            self.note("epoch begin", epoch)

        def on_epoch_end(self, epoch, logs=None):
            self.note("epoch end", epoch, logs)

        def on_train_end(self, logs=None):
            self.note("train end", logs)

    class BatchStream(Stream):
        def on_train_batch_end(self, batch, logs=None):
            self.note("batch end", batch, logs)

    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, 8)).astype("float32")
    y = generator.integers(0, 3, (SAMPLES, 1))
    with strategy.scope() if strategy else contextlib.nullcontext():
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input([8]),
                layers.Dense(16, activation="relu", kernel_regularizer="l2"),
                *([] if strategy else [layers.Dropout(0.3), layers.BatchNormalization()]),
                layers.Dense(3, activation="softmax"),
            ]
        )
        trainer = manual_loop.Trainer(model)
        trainer.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    backup = Backup(folder / "backup.npz", every=3)
    callbacks = [
        backup,
        keras.callbacks.EarlyStopping("loss", patience=50, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5, factor=0.5),
        keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras"),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        (BatchStream if mode == MODES[0] else Stream)(folder / f"{place}-{STREAM}"),
    ]
    data = {"x": x, "y": y, "batch_size": SAMPLES // BATCHES}
    if kind == "tf.data":
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(SAMPLES)
        data = {"x": rows.batch(SAMPLES // BATCHES), "shuffle": False}
    elif kind == "PyDataset":
        data = {"x": Batches()}
    history = trainer.fit(
        **data, validation_data=(x[:32], y[:32]), epochs=EPOCHS, verbose=0, callbacks=callbacks
    )
    print("Resumed:", backup.resumed)
    variables = [*model.variables, *model.optimizer.variables]
    values = {f"{i} {v.path}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    for name, logs in history.history.items():
        values[f"history {name}"] = np.array(logs)
    part = folder / f".{place}-{RESULT}"
    with part.open("wb") as file:
        np.savez(file, **values, epochs=history.epoch)
    part.replace(folder / f"{place}-{RESULT}")


def train_in_fork(folder, kind, mode, addresses=(), place=0):
    """Start a process that trains; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(folder / f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        strategy = None
        if addresses:
            from fit_unfolded.common.launch import cluster
            from manual_loop.distribution.multi_worker import multi_worker_strategy

            os.environ["TF_CONFIG"] = cluster(addresses, place)
            strategy = multi_worker_strategy(seconds=30)
        train(folder, kind, mode, strategy, place)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


# The torture ------------------------------------------------------------------------------------


def wait(children, seconds):
    """Wait until all have ended, or the time is over.

    Args:
        children: dict: process id -> its place.

    Returns:
        dict: place -> exit code, of those that have ended; they are taken out of `children`.
    """
    ended, deadline = {}, time.monotonic() + seconds
    while children and time.monotonic() < deadline:
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ended[children.pop(child)] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return ended


def kill(children, places):
    """SIGKILL to the processes at these places."""
    for child, place in children.items():
        if place in places:
            os.kill(child, signal.SIGKILL)


def moment(folder, whole_seconds, chance):
    """Wait for a random moment to kill at; returns what it was, in words.

    Most are any time of a training. Some are during a write: many small waits until a file that is
    not complete is there. Some are soon after a checkpoint.
    """
    kind = chance.choice(["any time", "any time", "writing a backup", "after a backup"])
    if kind == "any time":
        return kind, chance.uniform(0, whole_seconds)
    backup = folder / "backup.npz"
    before = 0
    with contextlib.suppress(FileNotFoundError):
        before = backup.stat().st_mtime_ns
    for _ in range(chance.randrange(1, 12)):  # which of the writes to come
        deadline = time.monotonic() + whole_seconds
        while time.monotonic() < deadline:
            if kind == "writing a backup" and (folder / ".backup.npz.part").exists():
                break
            try:
                now = backup.stat().st_mtime_ns
            except FileNotFoundError:  # none yet, or one is just being replaced
                now = before
            if kind == "after a backup" and now != before:
                before = now
                break
            time.sleep(0.0001)
        else:
            return "any time", 0
        if kind == "writing a backup":
            time.sleep(chance.uniform(0, 0.002))
    return kind, 0


def torture(folder, kind, mode, chance, seconds, workers):
    """Kill and restart one training until it is done: counts of what was killed when."""
    counts = collections.Counter()
    while True:
        addresses = ()
        if workers > 1:
            from fit_unfolded.common.launch import free_addresses

            addresses = free_addresses(workers)
        children = {
            train_in_fork(folder, kind, mode, addresses, place): place for place in range(workers)
        }
        try:
            counts["starts"] += 1
            if counts["starts"] > STARTS:
                logs = [(folder / f"{place}.log").read_text()[-1500:] for place in range(workers)]
                raise AssertionError(f"not done after {STARTS} starts: " + "\n".join(logs))
            name, delay = moment(folder, seconds, chance)
            seconds *= 1.1  # or it may never come to a backup, if the machine has become slower
            ended = wait(children, delay)
            victims = chance.choice([[0], [1], [0, 1]]) if workers > 1 else [0]
            victims = [place for place in children.values() if place in victims]
            kill(children, victims)
            if victims:
                counts[name] += 1
                counts["killed: " + " and ".join(map(str, victims))] += 1
            ended |= wait(children, SECONDS)
            if children:
                raise AssertionError(f"still there after {SECONDS} s: {list(children.values())}")
        finally:
            kill(children, range(workers))
            wait(children, SECONDS)
        if not any(ended.values()):
            return counts
        if workers == 1 and ended[0] != -signal.SIGKILL:
            raise AssertionError(
                f"exit status {ended[0]}: {(folder / '0.log').read_text()[-2000:]}"
            )


def undisturbed(root, kind, mode, workers):
    """Train once without a kill: where it left what it wrote, and the seconds that it took."""
    whole = root / f"whole {kind} {mode}"
    whole.mkdir()
    before = time.monotonic()
    quiet = random.Random(0)
    quiet.choice = lambda options: options[0]
    quiet.uniform = lambda a, b: SECONDS
    torture(whole, kind, mode, quiet, 0, workers)
    return whole, time.monotonic() - before


def compare(whole, folder, workers):
    """Fail where a tortured training left something else than an undisturbed one."""
    import h5py
    import numpy as np

    for place in range(workers):
        with np.load(whole / f"{place}-{RESULT}") as a, np.load(folder / f"{place}-{RESULT}") as b:
            assert a.files == b.files, (a.files, b.files)
            different = [
                f"{n}, at most by {np.abs(a[n] - b[n]).max()}"
                for n in a.files
                if a[n].tobytes() != b[n].tobytes()
            ]
            log = (folder / f"{place}.log").read_text()
            assert not different, "\n".join(["different are", *different, "after", log])
        compare_streams(whole / f"{place}-{STREAM}", folder / f"{place}-{STREAM}")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in whole.iterdir()), names
    assert (whole / "log.csv").read_bytes() == (folder / "log.csv").read_bytes(), "log.csv differs"
    for epoch in range(1, EPOCHS + 1):
        a, b = [weights(path / f"{epoch}.keras", h5py) for path in (whole, folder)]
        different = [name for name in a | b if a.get(name) != b.get(name)]
        assert not different, f"{epoch}.keras differs in {different}"


def weights(path, h5py):
    """Each array in a `.keras` file by name, as bytes, and the configuration."""
    import io
    import zipfile

    found = {}
    with zipfile.ZipFile(path) as archive:
        # objects are numbered by their addresses
        found["config"] = re.sub(rb'"shared_object_id": \d+', b"", archive.read("config.json"))
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:

            def note(name, item):
                if isinstance(item, h5py.Dataset):
                    found[name] = item[()].tobytes()

            file.visititems(note)
    return found


def compare_streams(whole, path):
    """Each part of a stream, from its joint on, must be a part of the undisturbed stream, and
    begin at or before the place where the part before it ended.
    """
    expected = [json.loads(line) for line in whole.read_text().splitlines()][1:]
    end, parts = 0, []
    for line in path.read_text().splitlines(keepends=True):
        call = json.loads(line) if line.endswith("\n") else None  # cut by the kill
        if call == ["train begin"]:
            parts.append([])
        elif call is not None:
            parts[-1].append(call)
    for part in filter(None, parts):
        # within an epoch `epoch begin` is heard again, and the joint comes after it
        again = part[1:] if part[0][0] == "epoch begin" else part
        found = place_of(part, expected)
        if found is None and again:
            found = place_of(again, expected, expected.index(part[0]))
        if found is None and not again:
            continue
        assert found is not None, f"calls that no undisturbed training makes: {part[:3]}"
        assert found <= end, f"calls are missing before {part[0]}"
        end = max(end, found + len(part if expected[found] == part[0] else again))
    assert end == len(expected), "the stream has no end"


def place_of(part, expected, first=0):
    """Where the calls of `part` follow each other in `expected`; None if nowhere."""
    places = range(first, len(expected) - len(part) + 1)
    return next((at for at in places if expected[at : at + len(part)] == part), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int, nargs="?", default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    import gc

    import keras  # noqa: F401 - imported once: the processes are forks of this one
    import tensorflow  # noqa: F401

    gc.freeze()
    chance, counts, failures = random.Random(options.seed), collections.Counter(), []
    cases = [(kind, mode) for kind in KINDS for mode in MODES]
    if options.workers > 1:
        cases = [("arrays", mode) for mode in MODES]
    with tempfile.TemporaryDirectory() as root:
        root, wholes = Path(root), {}
        started = time.monotonic()
        for number in range(options.n):
            kind, mode = cases[number % len(cases)]
            folder = root / f"{number}"
            try:
                if (kind, mode) not in wholes:
                    wholes[kind, mode] = undisturbed(root, kind, mode, options.workers)
                whole, seconds = wholes[kind, mode]
                folder.mkdir()
                found = torture(folder, kind, mode, chance, seconds, options.workers)
                counts += found
                compare(whole, folder, options.workers)
                counts["equal"] += 1
                print(
                    f"{number + 1}: {kind}, {mode}: equal after {found['starts']} starts",
                    flush=True,
                )
                shutil.rmtree(folder)
            except AssertionError as error:
                failures.append(f"{kind}, {mode}: {error}")
                print(f"{number + 1}: FAILED: {failures[-1]}", flush=True)
            except KeyboardInterrupt:  # what was done until now is a run of its own
                options.n = number
                break
        seconds = time.monotonic() - started
    print(dict(counts), f"{seconds:.0f} s")
    if options.write:
        write(options, counts, seconds)
    return 1 if failures else 0


def write(options, counts, seconds):
    """Put the counts of this run into the page."""
    name = "alone" if options.workers == 1 else f"{options.workers} workers"
    command = f"torture.py {options.n}"
    command += f" --workers {options.workers}" * (options.workers > 1)
    command += f" --seed {options.seed}" * (options.seed > 0)
    row = (
        f"| {name} | `{command}` | {counts['equal']} of {options.n} | {counts['starts']} | "
        f"{sum(n for k, n in counts.items() if k.startswith('killed'))} | "
        f"{counts['writing a backup']} | {seconds / 60:.0f} min |"
    )
    text = PAGE.read_text()
    begin, end = text.index(BEGIN), text.index(END)
    lines = [line for line in text[begin:end].splitlines() if not line.startswith(f"| {name} |")]
    PAGE.write_text(text[:begin] + "\n".join([*lines, row]) + "\n" + text[end:])


if __name__ == "__main__":
    sys.exit(main())
