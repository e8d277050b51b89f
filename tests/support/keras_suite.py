"""Keras's own tests, with `fit` and with the loop in its place: `make keras-suite`.

    python tests/support/keras_suite.py --write
    python tests/support/keras_suite.py models optimizers

Keras's wheel holds its tests. The files of `SUITE`, or those named, run twice: as they are, and
with the methods of `keras.Model` replaced by those of `manual_loop.Trainer`. A test that passes
with `fit` must pass with the loop, or stand in `DIFFER` with the reason. Tests that never call one
of these methods are not counted.

The file is also the pytest plugin of both runs.
"""

import argparse
import collections
import functools
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from coverage_table import BEGIN, END, PAGE

METHODS = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
SUITE = ("trainers/trainer_test.py", "callbacks")

# Tests that pass with fit and not with the loop, and why: "file::class::test".
DIFFER: dict[str, str] = {}


# The plugin -------------------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--trainer", choices=["fit", "loop"])
    parser.addoption("--outcomes", help="the JSON file that the outcomes go to")


def pytest_configure(config):
    for mark in ("requires_trainable_backend", "skipif_backend"):  # of Keras's own conftest.py
        config.addinivalue_line("markers", f"{mark}: see Keras")
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", None):
        replace(config.getoption("--trainer"))
    if not is_worker:
        config.pluginmanager.register(Outcomes(Path(config.getoption("--outcomes"))))


calls = 0  # of the methods, in the test that runs


def replace(trainer):
    """Put counters, and with `trainer="loop"` the loop, in the place of the methods of models."""
    import keras

    import manual_loop

    (owner,) = (cls for cls in keras.Model.__mro__ if "train_step" in vars(cls))
    trainers = {}

    def method(name):
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(model, *args, **kwargs):
            global calls
            calls += 1
            if trainer == "fit":
                return original(model, *args, **kwargs)
            if id(model) not in trainers:
                trainers[id(model)] = manual_loop.Trainer(model)  # which keeps the model alive
            # the model's own version, if it has one, has already run: this is its `super()`
            around_the_steps = getattr(manual_loop.Trainer, name).around_the_steps
            return around_the_steps(trainers[id(model)], *args, **kwargs)

        return call

    for name in METHODS:
        setattr(owner, name, method(name))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    global calls
    calls = 0
    yield
    item.user_properties.append(("calls", calls))
    item.user_properties.append(("file", item.path.as_posix().split("keras/src/")[-1]))


class Outcomes:
    """A pytest plugin that writes the outcome of each test to a JSON file."""

    def __init__(self, file):
        self._file = file
        self._outcomes = {}

    def pytest_runtest_logreport(self, report):
        seen = dict(report.user_properties)
        if report.when != "call" or not seen:
            return
        test = f"{seen['file']}::{report.nodeid.partition('::')[2]}"
        error = str(report.longrepr).strip().splitlines()[-1] if report.failed else ""
        trains = seen["calls"] > 0
        self._outcomes[test] = {"outcome": report.outcome, "trains": trains, "error": error}

    def pytest_sessionfinish(self):
        self._file.write_text(json.dumps(self._outcomes))


# The command ------------------------------------------------------------------------------------


def files(keras_src, wanted):
    """Keras's test files at or below these places in `keras/src` that call one of the methods."""
    for path in sorted(keras_src.rglob("*_test.py")):
        is_wanted = path.relative_to(keras_src).as_posix().startswith(tuple(wanted))
        if is_wanted and any(f".{method}(" in path.read_text() for method in METHODS):
            yield path


def run(trainer, paths, jobs):
    """Outcomes by test: dict with `outcome`, `trains` and `error`."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "keras_suite", "-c", os.devnull]
        command += [
            "-p",
            "no:cacheprovider",
            f"--rootdir={folder}",
            "--no-header",
            "--tb=line",
            "-W",
            "ignore",
        ]
        command += ["-n", str(jobs), "--dist", "loadfile", "--max-worker-restart=20"]
        command += [f"--trainer={trainer}", f"--outcomes={outcomes}", *map(str, paths)]
        here = str(Path(__file__).parent)
        path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"}
        subprocess.run(command, cwd=folder, env=environment, check=False, stdout=sys.stderr)
        if not outcomes.exists():
            sys.exit("Keras's tests did not run: see the lines above.")
        return json.loads(outcomes.read_text())


def compare(fit, loop):
    """`(rows, differ)`: by folder `[with fit, with the loop]`, and error by test that differs."""
    rows = collections.defaultdict(lambda: [0, 0])
    differ = {}
    for test, seen in fit.items():
        if seen["outcome"] != "passed" or not seen["trains"]:
            continue
        row = rows[test.partition("::")[0]]
        row[0] += 1
        other = loop.get(test, {"outcome": "missing", "error": "the process ended"})
        row[1] += other["outcome"] == "passed"
        if other["outcome"] != "passed":
            differ[test] = other["error"] or other["outcome"]
    return rows, differ


def section(rows, differ):
    """The block of docs/coverage.md."""
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [
        f"The tests of Keras {version('keras')} that train a model, evaluate it or predict with "
        "it, as they are and with the loop in the place of these methods, made by "
        "`make keras-suite`:",
        "",
        "| tests of | pass with fit | of these, with the loop |",
        "|---|---|---|",
        *(f"| `keras/src/{name}` | {a} | {b} |" for name, (a, b) in sorted(rows.items())),
        f"| all | {total[0]} | {total[1]} |",
    ]
    if differ:
        lines += ["", "| test that does not pass with the loop | why |", "|---|---|"]
        lines += [f"| `{test}` | {DIFFER.get(test, 'not explained')} |" for test in sorted(differ)]
    return "\n".join(lines)


def replace_block(text, block):
    """The page with the block between its two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files or folders in keras/src, for `SUITE`")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--write", action="store_true", help="write docs/coverage.md")
    options = parser.parse_args()
    import keras

    if options.write and options.files:
        sys.exit("--write: for the whole suite; leave FILES out.")
    wanted = options.files or SUITE
    paths = list(files(Path(keras.__file__).parent / "src", wanted))
    if not paths:
        sys.exit(f"No test of Keras trains a model in: {', '.join(wanted)}")
    fit, loop = (run(trainer, paths, options.jobs) for trainer in ("fit", "loop"))
    rows, differ = compare(fit, loop)
    print(section(rows, differ) if rows else "No test that trains passes with fit.")
    for test, error in sorted(differ.items()):
        if test not in DIFFER:
            print(f"{test}: {error}", file=sys.stderr)
    if options.write:
        PAGE.write_text(replace_block(PAGE.read_text(), section(rows, differ)))
    sys.exit(bool(set(differ) - set(DIFFER)))


if __name__ == "__main__":
    main()
