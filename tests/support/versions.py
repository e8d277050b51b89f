"""The parity tests with the installed Keras, and docs/versions.md: see `make test-keras`.

    python tests/support/versions.py --write

runs `FILES`, measures the changes of `keras_changes.py` and the golden losses, and keeps all that
under the number of the version in tests/keras_versions.json. The page is made from that file. Exit
status 1 if a test fails; nothing is written then.
"""

import argparse
import collections
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fit_unfolded.common.tf_import import import_tensorflow

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
RECORDS = TESTS / "keras_versions.json"
PAGE = ROOT / "docs" / "versions.md"
DETAILS = ROOT / "docs" / "details.md"

# All that holds the loop against fit in one process, and what docs/details.md names besides.
FILES = (
    "keras_fit",
    "manual_loop/compiled",
    "manual_loop/data",
    "manual_loop/execution",
    "manual_loop/saving",
    "manual_loop/test_errors.py",
    "manual_loop/test_error_words.py",
    "manual_loop/test_one_page.py",
    "manual_loop/test_parity_callbacks.py",
    "manual_loop/test_parity_details.py",
    "manual_loop/test_parity_fit.py",
    "manual_loop/test_parity_models.py",
    "manual_loop/test_parity_on_batch.py",
    "manual_loop/test_parity_optimizers.py",
    "manual_loop/test_parity_overrides.py",
    "manual_loop/test_parity_state.py",
    "fit_unfolded/comparison/test_compare.py",
    "test_equality_can_fail.py",
    "test_versions.py",
)

# Those that need no file, and the steps of their golden losses.
WORKLOADS = ("digits", "digits-mlp", "lesson", "lesson-onehot", "segmentation")
STEPS = 6


def golden_losses(name):
    """The loss in the logs of the first steps of `fit`, run eagerly: list of floats."""
    import keras

    from fit_unfolded import workloads

    keras.utils.set_random_seed(0)
    workload = workloads.get(name)
    data = workload.load(0)
    rows = STEPS * workload.fit["batch_size"]
    model = workload.build()
    model.compile(**workload.compile(), run_eagerly=True)
    losses = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
    )
    how = {"batch_size": workload.fit["batch_size"], "callbacks": [note], "verbose": 0}
    model.fit(data.x[:rows], data.y[:rows], **how)
    return losses


def measured_changes():
    """dict: name of a change -> what `fit` of the installed Keras does."""
    import keras
    from keras_changes import CHANGES

    import keras_fit

    seen = {}
    for change in CHANGES:
        keras.utils.set_random_seed(0)
        seen[change.measure.__name__] = change.measure(keras_fit.Trainer)
    return seen


class Outcomes:
    """A pytest plugin: what became of each test function, over all its cases."""

    def __init__(self):
        self.of = collections.defaultdict(collections.Counter)  # "file::function" -> outcomes
        self.cases = collections.Counter()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            function = report.nodeid.partition("[")[0]
            self.of[function][report.outcome] += 1
            self.cases[report.outcome] += 1


def without_tests(outcomes):
    """The numbers of the details of whose tests none was run."""
    page = DETAILS.read_text(encoding="utf-8")
    missing = []
    for number, entry in re.findall(r"(?ms)^(\d+)\. \*\*(.+?)(?=^\d+\. \*\*|\Z)", page):
        tests = re.findall(r"`(tests/[\w/]+\.py::\w+)`", entry)
        if not any(outcomes.of[test]["passed"] for test in tests):
            missing.append(int(number))
    return missing


def read_records():
    """dict: number of a Keras version -> what was measured with it, the newest last."""
    records = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
    return dict(sorted(records.items(), key=lambda item: numbers(item[0])))


def numbers(text):
    """ "3.14.1" -> (3, 14, 1)"""
    return tuple(map(int, re.findall(r"\d+", text)))


def record_of(records, keras_version):
    """The record of a version; if it has none, of the one before it, or of the oldest."""
    below = [v for v in records if numbers(v) <= numbers(keras_version)]
    return records[below[-1] if below else next(iter(records))]


# The page ------------------------------------------------------------------------------------

INTRODUCTION = """\
# Versions of Keras

The loop does what `fit` of the installed Keras does. Measured with {versions}, on a CPU with
{instructions}. The newest is what `make compare` installs. Where `fit` changed between them, the
loop has a switch in [`manual_loop/keras_version.py`](../manual_loop/keras_version.py); no other
module asks for a version.

`make test-keras KERAS=3.14.1 TF=2.21` installs these versions into an environment of their own, runs
the tests that compare the loop with `fit`, and writes this page.

| Keras | TensorFlow | cases passed | skipped | details tested |
|---|---|---|---|---|
"""
CHANGED = """
## What changed in `fit`

Each row was measured with `fit` of every version (`tests/support/keras_changes.py`), and the loop is
held to the same by `tests/test_versions.py`. Rows with a number change a
[detail](details.md): the entry describes the newest version.

"""
HOLD = """
## Which details hold

The [{count} details](details.md) were written for the newest version. With each of the others, the
tests that an entry names pass too, and they hold the loop against that version of `fit`. The
statements hold but for these:

| detail | {versions} |
|---|{rules}|
"""
GOLDEN = f"""
## Golden losses

The loss in the logs of the first {STEPS} steps of each workload that needs no file, with `fit`, seed
0 and `run_eagerly`. Here are the last ones; all are in `tests/keras_versions.json`, and a test
compares those of the installed version, so that a silent change of Keras is noticed. A version
without a record is compared with the one before it.

"""


def page(records):
    """The text of docs/versions.md, of what was measured."""
    from keras_changes import CHANGES

    newest = list(records)[-1]
    names = list(records)
    titles = " | ".join(f"Keras {v}" for v in names)
    rules = "|".join("---" for _ in names)
    versions = ", ".join(f"Keras {v} on TensorFlow {records[v]['tensorflow']}" for v in names)
    text = wrapped(
        INTRODUCTION.format(versions=versions, instructions=records[newest]["instructions"])
    )
    count = len(re.findall(r"(?m)^\d+\. \*\*", DETAILS.read_text(encoding="utf-8")))
    for v, record in records.items():
        tested = count - len(record["details without a test"])
        cases = f"{record['passed']} | {record['skipped']}"
        text += f"| {v} | {record['tensorflow']} | {cases} | {tested} of {count} |\n"
    text += f"{CHANGED}| what | {titles} | in Keras | detail |\n|---|{rules}|---|---|\n"
    for change in CHANGES:
        seen = " | ".join(records[v]["changes"][change.measure.__name__] for v in names)
        note = "" if change.loop_too else "; the loop trains with all"
        number = change.detail or ""
        text += f"| {change.title}{note} | {seen} | {change.source} | {number} |\n"
    text += HOLD.format(count=count, versions=titles, rules=rules)
    for change in sorted((c for c in CHANGES if c.detail), key=lambda c: c.detail):
        name = change.measure.__name__
        same = (records[v]["changes"][name] == records[newest]["changes"][name] for v in names)
        row = " | ".join("holds" if equal else "does not hold" for equal in same)
        text += f"| {change.detail} | {row} |\n"
    untested = sorted({n for r in records.values() for n in r["details without a test"]})
    if untested:
        text += f"\nNot tested: {', '.join(map(str, untested))}, whose tests are not in the list.\n"
    text += f"{GOLDEN}| workload | {titles} |\n|---|{rules}|\n"
    for name in WORKLOADS:
        last = " | ".join(f"{records[v]['golden losses'][name][-1]!r}" for v in names)
        text += f"| {name} | {last} |\n"
    return text


def wrapped(text):
    """Paragraphs of at most 100 characters a line; tables and titles as they are."""
    import textwrap

    def fill(part):
        return part if part.startswith(("#", "|")) else textwrap.fill(part, 100)

    return "\n\n".join(fill(part) for part in text.split("\n\n"))


def instructions():
    """The instruction sets of this CPU that TensorFlow's kernels choose by."""
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    try:
        flags = re.search(r"(?m)^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text())[1].split()
    except (OSError, TypeError):  # not Linux, or not x86
        return ""
    return ", ".join(flag for flag in known if flag in flags)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the record and the page")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--page", action="store_true", help="only make the page anew")
    options = parser.parse_args()
    records = read_records()
    if not options.page:
        import_tensorflow()
        keras_version = version("keras")
        record = {
            "tensorflow": version("tensorflow"),
            "instructions": instructions(),
            "changes": measured_changes(),
            "golden losses": {name: golden_losses(name) for name in WORKLOADS},
        }
        outcomes = Outcomes()
        how = ["-q", "-n", str(options.jobs), "--dist", "loadfile", "-p", "no:cacheprovider"]
        status = pytest.main([*how, *(str(TESTS / file) for file in FILES)], plugins=[outcomes])
        if status:
            sys.exit(1)
        record["passed"], record["skipped"] = (outcomes.cases[k] for k in ("passed", "skipped"))
        record["details without a test"] = without_tests(outcomes)
        records = {**records, keras_version: record}
    if options.write or options.page:
        RECORDS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(read_records()), encoding="utf-8")


if __name__ == "__main__":
    main()
