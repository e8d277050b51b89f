"""docs/coverage.md, made from the tests: what is held against fit, how exactly, and by which test.

    python tests/support/coverage_table.py --write

Without `--write` it exits with 1 if the file is another than the tests would give, or if a
parameter, callback or optimizer of Keras has no test.
"""

import argparse
import collections
import inspect
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "coverage.md"
EXACT = "0 ULP"

TITLES = {
    "compile": "`compile`",
    "fit": "`fit`",
    "evaluate": "`evaluate`",
    "predict": "`predict`",
    "data": "Kinds of data",
    "weights": "Weights",
    "model": "Kinds of model",
    "optimizer": "Optimizers and their options",
    "callback": "Callbacks",
    "precision": "Precision",
    "replicas": "Replicas (`tf.distribute.MirroredStrategy`)",
    "workers": "Workers (`tf.distribute.MultiWorkerMirroredStrategy`)",
    "save": "Saving",
    "tracing": "Tracing",
    "errors": "Wrong calls",
}
INTRODUCTION = f"""\
# What is covered

Each line names something that `keras.Model` takes or does, what `manual_loop` promises against
`fit` with the same arguments, and the tests that hold it to that. {EXACT} means: every log of every
batch, the history, the callback calls with their arguments, the weights, the optimizer's variables,
the warnings and the next random numbers are the same to the last bit, on a CPU.

This page is made from the tests by `tests/support/coverage_table.py`; a test fails when it is
stale.
"""


def required():
    """The topics that Keras itself asks for: every parameter, callback and optimizer."""
    for method in ("compile", "fit", "evaluate", "predict"):
        for name, parameter in inspect.signature(getattr(keras.Model, method)).parameters.items():
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                yield f"{method}: {name}"
    for name in exported(keras.callbacks, keras.callbacks.Callback):
        if name not in ("Callback", "OrbaxCheckpoint"):  # the latter is not for TensorFlow
            yield f"callback: {name}"
    for name in exported(keras.optimizers, keras.optimizers.Optimizer):
        if name != "Optimizer":
            yield f"optimizer: {name}"


def exported(module, base):
    return [n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base)]


class Collector:
    """A pytest plugin: the `covers` marks of all tests, by topic."""

    def __init__(self):
        self.tests = collections.defaultdict(collections.Counter)
        self.promises = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            for mark in item.iter_markers("covers"):
                for topic in mark.args:
                    self.tests[topic][f"{item.path.name}::{item.originalname}"] += 1
                    self.promises[topic] = mark.kwargs.get("promise", EXACT)


def page(collector):
    """The text of docs/coverage.md."""
    groups = collections.defaultdict(list)
    for topic in collector.tests:
        group, colon, name = topic.partition(": ")
        groups[group if colon else "others"].append((name or topic, topic))
    text = INTRODUCTION
    for group, title in {**TITLES, "others": "And"}.items():
        text += f"\n## {title}\n\n| what | promise | held by (cases) |\n|---|---|---|\n"
        for name, topic in sorted(groups.pop(group, [])):
            tests = ", ".join(f"`{t}` ({n})" for t, n in sorted(collector.tests[topic].items()))
            text += f"| {name} | {collector.promises[topic]} | {tests} |\n"
    assert not groups, f"topics of no known group: {list(groups)}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    collector = Collector()
    silent = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider"]
    if pytest.main([*silent, str(TESTS)], plugins=[collector]):
        sys.exit("The tests cannot be collected.")
    if missing := [topic for topic in required() if topic not in collector.tests]:
        sys.exit(f"No test covers: {', '.join(missing)}")
    text = page(collector)
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/coverage.md is stale: python tests/support/coverage_table.py --write")


if __name__ == "__main__":
    main()
