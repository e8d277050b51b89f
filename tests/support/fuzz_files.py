"""Damaged and hostile files, made at random, each loaded as its reader loads it; outcomes counted.

    python tests/support/fuzz_files.py N [--seed 1] [--write]

Each input is one of the files that this project reads, damaged (bits, cuts, blocks), or edited on
purpose with all checksums renewed. A damaged file with a checksum must be refused or give what it
held; an edited one may give what it holds now. Anything else is a failure: another type of
exception, other values, half of a model, code that runs, a file written elsewhere or left over, a
crash, over a minute, or over 1.5 GiB. With --write, the counts go into docs/reliability.md.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_fit  # noqa: E402
import manual_loop  # noqa: E402
from fit_unfolded.bench import report  # noqa: E402
from fit_unfolded.common.errors import InputError  # noqa: E402
from fit_unfolded.workloads import mnist, user_file  # noqa: E402
from manual_loop.saving import backup_file, trust  # noqa: E402
from manual_loop.saving.backup import Backup  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- fuzz-files: begin -->", "<!-- fuzz-files: end -->"
CHUNK = 100  # inputs a process: TensorFlow keeps something of every model for good
SECONDS, KIB = 60, 3 << 19  # that one input may take
DAMAGED, EDITED = "damaged", "edited, checksums renewed"
EQUAL, OTHER, REFUSED, PREVIOUS = (
    "loaded, equal",
    "loaded, other values",
    "refused",
    "previous backup taken",
)
OUTCOMES = (EQUAL, OTHER, REFUSED, PREVIOUS)
MARK = "code_ran"

USER_FILE = '''"""A model of one's own."""
import keras

FIT = {"epochs": 2, "batch_size": 8}
COMPILE = {"optimizer": "adam", "loss": "mse"}


def build():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])


def data():
    return {"x": [[0.0] * 4] * 8, "y": [[0.0]] * 8}
'''


# The files ------------------------------------------------------------------------------------


def new_model():
    """Small, with a Dropout (a seed generator) and a BatchNormalization; compiled."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([4]),
            layers.Dense(5, activation="relu", kernel_regularizer="l2", name="a"),
            layers.Dropout(0.3, name="b"),
            layers.BatchNormalization(name="c"),
            layers.Dense(3, activation="softmax", name="d"),
        ],
        name="e",
    )
    model.compile(
        keras.optimizers.Adam(name="adam"), "sparse_categorical_crossentropy", metrics=["acc"]
    )
    return model


def callbacks():
    """Those whose state is in the backup."""
    found = [keras.callbacks.History(), keras.callbacks.EarlyStopping("loss")]
    for callback in found:
        callback.on_train_begin()
    return found


def make_files(folder):
    """One of each kind that is read."""
    keras.utils.set_random_seed(3)
    keras.backend.clear_session(free_memory=False)  # names count from the start
    model = new_model()
    x, y = np.random.default_rng(0).normal(size=(24, 4)), np.arange(24) % 3
    trainer = manual_loop.Trainer(model)
    trainer.fit(x, y, epochs=1, verbose=0)
    for suffix in ("keras", "h5"):
        trainer.save(folder / f"loop.{suffix}")
        keras_fit.Trainer(model).save(folder / f"fit.{suffix}")
        model.save(folder / f"keras.{suffix}")
    path = folder / "backup.npz"
    for epoch in (1, 2):
        backup = Backup(path)
        backup.set_model(model)
        backup_file.write(path, backup.state(callbacks(), epoch=epoch))
    arrays = {"x_train": (9, 28, 28), "y_train": 9, "x_test": (2, 28, 28), "y_test": 2}
    np.savez(folder / "data.npz", **{k: np.ones(shape, "uint8") for k, shape in arrays.items()})
    (results,) = (ROOT / "benchmarks" / "results").glob("amd-*")
    content = json.loads((results / report.BENCH).read_text())
    for name, task in content["tasks"].items():
        task["processes"] = task["processes"][: 1 if name.startswith(("mem", "str")) else 2]
    (folder / "bench.json").write_text(json.dumps(content))
    (folder / "mine.py").write_text(USER_FILE)


# What is done to them -------------------------------------------------------------------------


def place_in(rng, content):
    """A position: often near an end, where headers, directories and checksums are."""
    near = rng.randrange(min(len(content), 300))
    return rng.choice([near, len(content) - 1 - near, rng.randrange(len(content))])


def flip(rng, content, _):
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = place_in(rng, content)
        content[place] ^= 1 << rng.randrange(8)


def cut(rng, content, _):
    lengths = [0, 1, place_in(rng, content), len(content) - 1, rng.randrange(len(content))]
    del content[rng.choice(lengths) :]


def overwrite(rng, content, _):
    start, length = place_in(rng, content), rng.choice([1, 8, 100, 4096])
    length = min(length, len(content) - start)
    content[start : start + length] = rng.choice([bytes(length), rng.randbytes(length)])


def duplicate(rng, content, _):
    start, length = place_in(rng, content), rng.choice([1, 8, 100, 4096])
    content[start:start] = content[start : start + length]


def drop(rng, content, _):
    start = place_in(rng, content)
    del content[start : start + rng.choice([1, 8, 100, 4096])]


def swap(rng, content, _):
    a, b = sorted(place_in(rng, content) for _ in range(2))
    content[:] = content[:a] + content[b:] + content[a:b]


def splice(rng, content, others):
    other = rng.choice(others)
    place = place_in(rng, content)
    content[place:] = other[place:]


def append(rng, content, _):
    content += rng.randbytes(rng.choice([1, 20, 5000]))


DAMAGES = (flip, flip, flip, cut, cut, overwrite, duplicate, drop, swap, splice, append)

PAYLOAD = keras.layers.Lambda(lambda x: [x, open("code_ran", "w").close()][0], name="a")
CODE = PAYLOAD.get_config()["function"]
LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": PAYLOAD.get_config()}


def function(module, name):
    """The configuration of a function that is not of Keras."""
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


VALUES = (
    *(None, True, -1, 0, 3, 10**7, 10**12, 10**30, 1e308, float("nan"), "", "x", "x" * 5000),
    *([], {}, [[]], [1] * 5000, "../../x", "float64", "int8", "object", "relu"),
    *(CODE, LAMBDA, function("os", "system"), function("builtins", "eval")),
    *({"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", MARK]}},),
    *({"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/tmp"}},),
)


def edit_json(rng, text):
    """JSON with a value replaced, removed, doubled or nested deeply."""
    content = json.loads(text)
    at, key = content, None
    holder = None
    while isinstance(at, dict | list) and at and (key is None or rng.random() < 0.85):
        holder, key = at, rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        at = at[key]
    if rng.random() < 0.05:
        return text.replace(b"[", b"[" * 100_000, 1)
    if holder is not None:
        if rng.random() < 0.15:
            del holder[key]
        elif rng.random() < 0.15 and isinstance(at, int | float):
            holder[key] = at * rng.choice([-1, 2, 1000, 10**6])
        else:
            holder[key] = rng.choice(VALUES)
    return json.dumps(content).encode()


def edit_hdf5(rng, content):
    """A `.h5` file with an entry removed, replaced, linked or of another shape."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as h5:
        names = []
        h5.visit(names.append)
        name = rng.choice(names)
        configs = [key for key in ("model_config", "training_config") if key in h5.attrs]
        if configs and rng.random() < 0.6:
            key = rng.choice(configs)
            h5.attrs[key] = edit_json(rng, h5.attrs[key].encode()).decode()[:60_000]
        elif rng.random() < 0.2:
            attributes = h5[name].attrs
            key = rng.choice([*attributes, "weight_names"])
            attributes[key] = rng.choice([b"x", [b"../x"], [b""], 3, np.zeros(9), "x" * 9999])
        else:
            del h5[name]
            rng.choice(
                [
                    lambda: None,
                    lambda: h5.create_group(name),
                    lambda: h5.create_dataset(name, data=np.zeros(rng.choice([1, (4, 5), (5,)]))),
                    lambda: h5.create_dataset(name, data=np.full((5, 3), np.nan, "float16")),
                    lambda: h5.create_dataset(name, data=["text"] * 5),
                    lambda: h5.create_dataset(name, (1 << 20, 1 << 12), chunks=True),
                    lambda: h5.create_dataset(
                        name, (1 << 20, 1 << 12), "i1", chunks=True, compression="gzip"
                    ),
                    lambda: h5.create_dataset(name, (20,), external=[("/etc/hostname", 0, 80)]),
                    lambda: h5.__setitem__(name, h5py.ExternalLink("keras.h5", "/")),
                    lambda: h5.__setitem__(name, h5py.SoftLink("/")),
                    lambda: h5.__setitem__(name, h5["/"]),
                ]
            )()
    return file.getvalue()


def header(shape, dtype="<f4"):
    """The start of a `.npy` file, which says more than there is."""
    file = io.BytesIO()
    entries = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, entries)
    return file.getvalue()


def pickled(rng):
    """A `.npy` file of objects, one of which runs code when it is unpickled."""

    class Planted:
        def __reduce__(self):
            return os.mkdir, (MARK,)

    file = io.BytesIO()
    np.save(file, np.array([Planted()], dtype=object), allow_pickle=True)
    return file.getvalue()


def edit_array(rng, content):
    """The content of a `.npy` file, edited."""
    return rng.choice(
        [
            pickled(rng),
            header((1 << 40,)),
            header((-1, 5)) + bytes(20),
            header((3,), "<U900000000"),
            header((2,), "|O") + b"cos\nsystem\n(S'touch code_ran'\ntR.",
            header((3,)) + bytes(12),
            content[:-3],
            b"",
        ]
    )


def edit_zip(rng, content):
    """An archive with a member edited, added, removed or blown up; its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    which = rng.randrange(len(members))
    name, held = members[which]
    way = rng.randrange(10)
    how = zipfile.ZIP_STORED
    if way < 5 and name.endswith(".json"):
        members[which] = name, edit_json(rng, held)
    elif way < 5 and name.endswith(".h5"):
        members[which] = name, edit_hdf5(rng, held)
    elif way < 5 and name.endswith(".npy"):
        members[which] = name, edit_array(rng, held)
    elif way < 5:
        members[which] = name, edit_zip(rng, held)
    elif way == 5:
        del members[which]
    elif way == 6:
        members[which] = rng.choice(["../x", "/tmp/x", "a/../../x", "x\\..\\x", ""]), held
    elif way == 7:
        members.append((name, held))
    elif way == 8:
        how = zipfile.ZIP_DEFLATED
        members[which] = name, bytes(1 << 28)
    else:
        members.append((rng.choice(["../x", "/tmp/x", "assets/../../x", "assets/x"]), b"x"))
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", how) as archive:
        warnings.simplefilter("ignore")  # members twice
        for name, held in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = how
            if rng.random() < 0.03:
                info.external_attr = 0o120777 << 16  # a link
            archive.writestr(info, held)
    return file.getvalue()


def edit_model(rng, content, suffix):
    """A model file, sealed again."""
    if suffix == ".h5":
        content = edit_hdf5(rng, content) + trust.SEAL
        return content + hashlib.sha256(content).digest()
    file = io.BytesIO(edit_zip(rng, content))
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = trust.SEAL + bytes(trust.DIGEST)
    content = file.getvalue()[: -trust.DIGEST]
    return content + hashlib.sha256(content).digest()


def edit_backup(rng, content, _):
    """A backup with a right checksum."""
    body = content[: -len(backup_file.MARK % 2) - backup_file.CHECKSUM]
    if rng.random() < 0.3:
        body = edit_zip(rng, body)
    else:
        with np.load(io.BytesIO(body)) as file:
            text, data = file["text"].tobytes(), file["data"]
        file = io.BytesIO()
        np.savez(file, text=np.frombuffer(edit_json(rng, text), "uint8"), data=data)
        body = file.getvalue()
    body += backup_file.MARK % rng.choice([2] * 9 + [3])
    return body + hashlib.sha256(body).digest()


EDITS = {
    "loop.keras": edit_model,
    "loop.h5": edit_model,
    "backup.npz": edit_backup,
    "data.npz": lambda rng, content, _: edit_zip(rng, content),
    "bench.json": lambda rng, content, _: edit_json(rng, content),
}
# A row of the table, and whether damage is found in it.
ROWS = {
    "loop.keras": ("`.keras` of the trainers", True),
    "loop.h5": ("`.h5` of the trainers", True),
    "keras.keras": ("`.keras` of Keras", True),
    "keras.h5": ("`.h5` of Keras", False),
    "backup.npz": ("`Backup`", True),
    "data.npz": ("`--data FILE.npz`", True),
    "bench.json": ("`bench.json`", False),
    "mine.py": ("`FILE.py`", False),
}


def make_input(rng, files):
    """`(file name, what was done, content)`."""
    name = rng.choice(list(files))
    content = files[name]
    if name in EDITS and rng.random() < 0.5:
        return name, EDITED, EDITS[name](rng, content, Path(name).suffix)
    damaged = bytearray(content)
    others = [files[other] for other in files if Path(other).suffix == Path(name).suffix]
    rng.choice(DAMAGES)(rng, damaged, others)
    return name, DAMAGED, bytes(damaged)


# How they are loaded --------------------------------------------------------------------------


def digest(*values):
    """Of arrays and of what `repr` shows."""
    found = hashlib.sha256()
    for value in values:
        is_array = isinstance(value, np.ndarray)
        found.update(value.tobytes() if is_array else repr(value).encode())
    return found.hexdigest()


def values_of(model):
    """All values of a model and of its optimizer, and how it was compiled."""
    variables = model.variables + (model.optimizer.variables if model.optimizer else [])
    compiled = json.dumps(model.get_compile_config() or {}, default=str)
    arrays = [keras.ops.convert_to_numpy(v) for v in variables]
    return digest(*arrays, json.dumps(model.get_config(), default=str), compiled)


def load(path, model):
    """Load one file as its reader does; what it held, and whether the previous one was taken."""
    if path.suffix in (".h5", ".keras"):
        keras.utils.set_random_seed(0)  # of a Dropout, where a file has no seeds
        return values_of(manual_loop.load_model(path)), False
    if path.name == "backup.npz":
        before = values_of(model)
        backup = Backup(path)
        backup.set_model(model)
        try:
            state = backup_file.read(path)
            backup.restore(state, callbacks())
        except Exception:
            assert values_of(model) == before, "half of a model"
            raise
        return digest(values_of(model), state["callbacks"], state["logs"]), state["epoch"] == 1
    if path.suffix == ".npz":
        return digest(*mnist.read_data(path)), False
    if path.suffix == ".json":
        suite = report.Suite.read(path.parent)
        return digest(report.text(suite)), False
    return digest(user_file.summarize(path)), False


DOCUMENTED = {".keras": (ValueError, TypeError), ".h5": (ValueError, TypeError)}


def outcome_of(path, model, done, expected):
    """One of `OUTCOMES`, or in words what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held, is_previous = load(path, model)
    except Exception as error:
        kinds = DOCUMENTED.get(path.suffix, InputError)
        if path.name == "backup.npz":
            kinds = ValueError
        if isinstance(error, kinds) and path.name.partition(".")[0] in str(error):
            return REFUSED
        return "".join(traceback.format_exception(error)[-3:])
    if is_previous:
        return PREVIOUS
    if held == expected:
        return EQUAL
    finds = ROWS[path.name][1] and done == DAMAGED
    return "other values, although it has a checksum" if finds else OTHER


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def work(folder, indices, seed, pipe):
    """In a process of its own: make, load and report each input."""
    keras.config.disable_interactive_logging()
    files = {path.name: path.read_bytes() for path in sorted((folder / "files").iterdir())}
    previous = files.pop("backup.previous.npz")
    files = {name: files[name] for name in ROWS}
    place = Path(tempfile.mkdtemp(dir=folder)).resolve()
    within = place / "deep" / "in"
    within.mkdir(parents=True)
    (place / "tmp").mkdir()
    tempfile.tempdir = str(place / "tmp")
    os.chdir(within)
    model = new_model()
    backup = Backup(within / "backup.npz")
    backup.set_model(model)
    backup.prepare()
    expected = {}
    for name, content in files.items():
        (within / name).write_bytes(content)
        expected[name] = load(within / name, model)[0]
        (within / name).unlink()
    for index in indices:
        rng = random.Random(f"{seed} {index}")
        signal.alarm(SECONDS)
        print(json.dumps([index]), file=pipe, flush=True)
        name, done, content = make_input(rng, files)
        path = within / name
        path.write_bytes(content)
        if name == "backup.npz":
            backup_file.previous_of(path).write_bytes(previous)
        before = files_below(place)
        same = [other for other in files if files[other] == content]  # a splice may be all of one
        (folder / f"input-{index}{path.suffix}").write_bytes(content)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = outcome_of(path, model, done, expected[(*same, name)[0]])
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most > KIB:
            outcome = f"took too much memory, then: {outcome}"
        if files_below(place) != before:
            outcome = f"wrote {set(files_below(place)) ^ set(before)}, then: {outcome}"
        if outcome in OUTCOMES:
            (folder / f"input-{index}{path.suffix}").unlink()
        print(json.dumps([index, name, done, outcome]), file=pipe, flush=True)
        for left in within.iterdir():
            left.unlink()
    signal.alarm(0)


def in_process(folder, indices, seed):
    """`work` in a fork; yields what it reports, and for a crash what it was at."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        quiet = os.open(os.devnull, os.O_WRONLY)
        errors = os.dup(2)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = 1
        try:
            with os.fdopen(writing, "w") as pipe:
                work(folder, indices, seed, pipe)
            status = 0
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        os._exit(status)
    os.close(writing)
    at = None
    with os.fdopen(reading) as pipe:
        for line in pipe:
            at, *found = json.loads(line)
            if found:
                yield at, *found
                at = None
    _, status = os.waitpid(process, 0)
    if status and at is not None:
        words = "took over a minute" if os.WTERMSIG(status) == signal.SIGALRM else "crashed"
        yield at, "?", "?", f"{words} (status {status})"
    elif status:
        raise SystemExit("the process failed before the first input")


def run(indices, seed, folder):
    """Counter of `(row, what was done, outcome)`, also after Ctrl-C; failures are printed."""
    found, indices = collections.Counter(), collections.deque(indices)
    began, total = time.monotonic(), len(indices)
    with contextlib.suppress(KeyboardInterrupt):
        while indices:
            chunk = [indices.popleft() for _ in range(min(CHUNK, len(indices)))]
            last = None
            for index, name, done, outcome in in_process(folder, chunk, seed):
                last = index
                failed = outcome not in OUTCOMES
                found[ROWS.get(name, [name])[0], done, "failed" if failed else outcome] += 1
                if failed:
                    print(f"\ninput {index}, {name}, {done}: {outcome}", flush=True)
            if last != chunk[-1]:  # it has crashed: go on behind that
                indices.extendleft(reversed(chunk[chunk.index(last) + 1 :]))
            seconds = time.monotonic() - began
            print(f"{found.total()} of {total} inputs, {seconds:.0f} s", flush=True)
    return found


def run_jobs(indices, seed, folder, jobs):
    """`run`, in as many processes: forks, in which TensorFlow has not started its threads."""
    pids = []
    for job in range(jobs):
        pids.append(os.fork())
        if pids[-1] == 0:
            found = run(indices[job::jobs], seed, folder)
            (folder / f"counts-{job}").write_text(json.dumps(list(found.items())))
            os._exit(0)
    try:
        for pid in pids:
            os.waitpid(pid, 0)
    except KeyboardInterrupt:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    found = collections.Counter()
    for job in range(jobs):
        for key, count in json.loads((folder / f"counts-{job}").read_text()):
            found[tuple(key)] += count
    return found


def table(found):
    """The counts in Markdown."""
    lines = [
        "| file | what was done | inputs | " + " | ".join((*OUTCOMES, "failed")) + " |",
        "| :-- | :-- | --: | " + " | ".join(["--:"] * (len(OUTCOMES) + 1)) + " |",
    ]
    for row, done in sorted({key[:2] for key in found}):
        counts = [found[row, done, outcome] for outcome in (*OUTCOMES, "failed")]
        lines.append(f"| {row} | {done} | {sum(counts):,} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("inputs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--only", type=int, help="number of one input to repeat")
    parser.add_argument("--write", action="store_true", help="the counts into docs/reliability.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-files-"))
    (folder / "files").mkdir()
    maker = os.fork()  # TensorFlow must not start its threads in the process that forks others
    if maker == 0:
        try:
            make_files(folder / "files")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(maker, 0)[1]:
        raise SystemExit("error: the files cannot be made")
    indices = range(options.inputs) if options.only is None else [options.only]
    found = run_jobs(indices, options.seed, folder, options.jobs)
    print(table(found))
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        new = f"{BEGIN}\n{table(found)}\n{END}"
        text = re.sub(f"{BEGIN}.*{END}", lambda _: new, text, flags=re.DOTALL)
        PAGE.write_text(text, encoding="utf-8")
    if any(outcome == "failed" for _, _, outcome in found):
        print(f"the inputs that failed are in {folder}", file=sys.stderr)
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
