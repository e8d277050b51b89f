"""docs/coverage.md, made from the tests: what is compared with fit, how exactly, by which test.

    python tests/support/coverage_table.py --write

Without `--write` it exits with 1 if the page is stale, or if a parameter, callback or optimizer of
Keras has no test.
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
# Around what keras_suite.py writes.
BEGIN, END = "<!-- keras-suite: begin -->", "<!-- keras-suite: end -->"

TITLES = {
    "compile": "`compile`",
    "fit": "`fit`",
    "evaluate": "`evaluate`",
    "predict": "`predict`",
    "data": "Kinds of data",
    "weights": "Weights",
    "model": "Kinds of model",
    "overrides": "Overridden methods",
    "on batch": "One batch per call",
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
# Test coverage

Each row names a feature of `keras.Model`, how closely `manual_loop` matches `fit` with the same
arguments, and the tests that check it, with the number of cases. {EXACT} means bit-identical on a
CPU: the logs of every batch, the history, the callback calls and their arguments, the weights, the
optimizer variables, the warnings, and the next random numbers.

`python tests/support/coverage_table.py --write` generates this page from the tests. A test fails if
the page is stale.
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
    """A pytest plugin that collects the tests."""

    def pytest_collection_modifyitems(self, items):
        self.items = list(items)


def page(items):
    """The text of docs/coverage.md.

    Args:
        items: all tests, as pytest collects them, with their `covers` marks.

    Raises:
        LookupError: no test covers something that Keras has.
    """
    tests = collections.defaultdict(collections.Counter)  # topic -> test -> number of cases
    promises = {}
    for item in items:
        for mark in item.iter_markers("covers"):
            for topic in mark.args:
                tests[topic][f"{item.path.name}::{item.originalname}"] += 1
                promises[topic] = mark.kwargs.get("promise", EXACT)
    if missing := [topic for topic in required() if topic not in tests]:
        raise LookupError(f"No test covers: {', '.join(missing)}")
    groups = collections.defaultdict(list)
    for topic in tests:
        group, colon, name = topic.partition(": ")
        groups[group if colon else "others"].append((name or topic, topic))
    text = INTRODUCTION
    for group, title in {**TITLES, "others": "Other"}.items():
        text += f"\n## {title}\n\n| feature | match | tests (cases) |\n|---|---|---|\n"
        for name, topic in sorted(groups.pop(group, [])):
            found = ", ".join(f"`{t}` ({n})" for t, n in sorted(tests[topic].items()))
            text += f"| {name} | {promises[topic]} | {found} |\n"
    assert not groups, f"topics of no known group: {list(groups)}"
    _, _, suite = PAGE.read_text().partition(BEGIN)  # to the end of the page: see keras_suite.py
    return f"{text}\n## Keras's own tests\n\n{BEGIN}{suite}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    collector = Collector()
    silent = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider"]
    if pytest.main([*silent, str(TESTS)], plugins=[collector]):
        sys.exit("The tests cannot be collected.")
    try:
        text = page(collector.items)
    except LookupError as error:
        sys.exit(error.args[0])
    if options.write:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/coverage.md is stale: python tests/support/coverage_table.py --write")


if __name__ == "__main__":
    main()
