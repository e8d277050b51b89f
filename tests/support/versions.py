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

The loop does what `fit` of the installed Keras does, from 3.13 on; `pip` takes the newest. Where
`fit` changed between these versions, the loop has a switch in
[`manual_loop/keras_version.py`](../manual_loop/keras_version.py); no other module asks for a
version.

`make test-keras KERAS=3.14.1 TF=2.21` installs these versions into an environment of their own,
compares the loop with `fit` there, and writes this page. The tests are those that run in one
process; replicas and workers are left out.

| Keras | TensorFlow | cases passed | skipped |
|---|---|---|---|
"""
SKIPPED = """
Skipped are tests of what a version lacks, with the reason (`needs_keras`), and tests of packages
that are not installed, PyTorch and JAX among them.
"""
CHANGED = """
## What changed in `fit`

Measured with `fit` of each version by `tests/support/keras_changes.py`. `tests/test_versions.py`
holds the loop to the same. The table was made by reading what changed in Keras's training code;
changes of single layers, losses and metrics are not in it.

"""
HOLD = """
## Which details hold

The [{count} details](details.md) describe the newest version. In the older ones, these do not hold:

"""
OTHERS = """
Of the others, {tested} have tests that ran and passed with every version. What no test covers was
read in the newest version only.{untested}
"""
GOLDEN = f"""
## Golden losses

The loss in the logs of step {STEPS} of `fit`, for each workload that needs no file, with seed 0 and
`run_eagerly`. `tests/keras_versions.json` has those of all {STEPS} steps. A test compares the
installed version with them, so that a silent change of Keras is noticed; a version without a record
is compared with the one before it.

The tolerance is 1e-6 relative: the order in which a kernel adds depends on the CPU. These are of
one with {{instructions}}.
There, the losses moved by up to 1.8e-7 with older instruction sets (`ONEDNN_MAX_CPU_ISA`) and
without oneDNN, and not at all from version to version. `Adam(epsilon=1e-6)` in place of 1e-7 moves
those of the workloads with Adam by 2.5e-5 or more.

"""


def page(records):
    """The text of docs/versions.md, of what was measured."""
    from keras_changes import CHANGES

    names = list(records)
    newest = records[names[-1]]
    text = INTRODUCTION
    for v, record in records.items():
        text += f"| {v} | {record['tensorflow']} | {record['passed']:,} | {record['skipped']:,} |\n"
    rows = []
    for change in CHANGES:
        note = "" if change.loop_too else "; the loop trains with all"
        rows.append([change.title + note, *of_each(records, change), change.source])
    text += SKIPPED + CHANGED + table(["what", *names, "in Keras"], rows)

    changed = sorted((c for c in CHANGES if c.detail), key=lambda c: c.detail)
    count = len(re.findall(r"(?m)^\d+\. \*\*", DETAILS.read_text(encoding="utf-8")))
    untested = {n for r in records.values() for n in r["details without a test"]}
    rows = [[str(c.detail), c.title, *of_each(records, c)] for c in changed]
    text += HOLD.format(count=count) + table(["detail", "what", *names], rows)
    left = ", ".join(map(str, sorted(untested)))
    text += OTHERS.format(
        tested=count - len(untested | {c.detail for c in changed}),
        untested=f" The tests of {left} are not among those that run here." if left else "",
    )

    losses = [[w, *(repr(r["golden losses"][w][-1]) for r in records.values())] for w in WORKLOADS]
    text += GOLDEN.format(instructions=newest["instructions"])
    return text + table(["workload", *names], losses)


def of_each(records, change):
    return [record["changes"][change.measure.__name__] for record in records.values()]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


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
    import_tensorflow()
    records = read_records()
    if not options.page:
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
