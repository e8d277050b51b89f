"""docs/details.md names functions of Keras and of the loop, tests and pitfalls: all are there."""

import ast
import functools
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from fit_unfolded import pitfalls

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "details.md"
# The folder in which `keras/src/...` lies, found without importing Keras.
KERAS = Path(importlib.util.find_spec("keras").origin).parents[1]

TITLE = re.compile(r"# The (\d+) details of `fit`\n")
ENTRY = re.compile(r"(?m)^(\d+)\. \*\*(.+?)\*\*\s(.+?)\n\n +(Keras .+?)(?=\n\n|\n*\Z)", re.DOTALL)
LABELS = {"Keras": "keras", "here": "loop", "test": "tests", "pitfall": "pitfalls"}


class Detail(NamedTuple):
    """One entry of the page: its number, and the names in its last line, in order."""

    number: int
    title: str
    keras: list[str]
    loop: list[str]
    tests: list[str]
    pitfalls: list[str]


def details(page):
    """The entries of a page."""
    return [entry(*match.groups()) for match in ENTRY.finditer(page)]


def entry(number, title, prose, references):
    found = {kind: [] for kind in LABELS.values()}
    for part in " ".join(references.split()).split(" · "):
        label = part.partition(" ")[0]
        found[LABELS[label if label in LABELS else label.removesuffix("s")]] += spans(part)
    return Detail(int(number), " ".join(title.split()), **found)


def spans(text):
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


@functools.cache
def definitions(file):
    """The functions and classes in a file, methods as `Class.method`; empty if there is no file."""
    return (
        set(defined(ast.parse(file.read_text(encoding="utf-8")), "")) if file.is_file() else set()
    )


def defined(node, prefix):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from defined(child, f"{prefix}{child.name}.")


def missing_functions(root, names):
    """Those of `[file, function, function, ...]` that are not there."""
    file, *functions = names
    there = definitions(root / file)
    return [f"{file}, {function}" for function in functions or [""] if function not in there]


def missing(detail):
    """What a detail names and nobody has."""
    absent = missing_functions(KERAS, detail.keras) + missing_functions(ROOT, detail.loop)
    for test in detail.tests:
        absent += missing_functions(ROOT, test.split("::"))
    return absent + [name for name in detail.pitfalls if name not in pitfalls.names()]


def complaints(page):
    """What is wrong with a page, in words."""
    found = details(page)
    numbers = [detail.number for detail in found]
    # an entry that the pattern does not see must not go unseen
    if len(found) != len(re.findall(r"(?m)^\d+\. ", page)):
        yield f"entries of another form; those read: {numbers}"
    if numbers != list(range(1, len(found) + 1)):
        yield f"numbers: {numbers}"
    if (title := TITLE.match(page)) is None or int(title[1]) != len(found):
        yield f"title: there are {len(found)} details"
    if len({detail.title for detail in found}) < len(found):
        yield "the same title twice"
    for detail in found:
        if not (detail.keras and detail.loop and detail.tests):
            yield f"{detail.number} lacks a function or a test"
            continue
        if not (detail.keras[0].startswith("keras/") and detail.loop[0].startswith("manual_loop/")):
            yield f"{detail.number}: {detail.keras[0]}, {detail.loop[0]}"
        for name in missing(detail):
            yield f"{detail.number}: there is no {name}"


def test_everything_named_is_there():
    assert list(complaints(PAGE.read_text(encoding="utf-8"))) == []


def test_the_page_is_about_the_keras_in_use():
    version, _, _ = importlib.metadata.version("keras").rpartition(".")
    assert set(re.findall(r"Keras\s(\d+\.\d+)", PAGE.read_text(encoding="utf-8"))) == {version}


def test_an_entry_is_read_whole():
    first = details(PAGE.read_text(encoding="utf-8"))[0]
    assert first == Detail(
        number=1,
        title='`"acc"` is resolved by the first batch.',
        keras=[
            "keras/src/trainers/compile_utils.py",
            "get_metric",
            "is_binary_or_sparse_categorical",
        ],
        loop=["manual_loop/compiled/configuration.py", "ResolvedMetrics.entries"],
        tests=["tests/manual_loop/compiled/test_parity_compile.py::test_one_output"],
        pitfalls=[],
    )


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("`CompileLoss.call`", "`CompileLoss.cal`", "3: there is no keras/src/.*CompileLoss.cal"),
        ("`keras/src/losses/loss.py`", "`keras/src/losses/los.py`", "there is no keras/.*los.py"),
        ("`CompiledLoss._of_outputs`", "`_of_outputs`", "there is no manual_loop/compiled/loss.py"),
        (
            "`manual_loop/compiled/configuration.py`",
            "`manual_loop/name.py`",
            "1: there is no manual_loop/name.py",
        ),
        ("::test_one_output`", "::test_two_outputs`", "1: there is no tests/.*test_two_outputs"),
        ("`mean-of-batches`", "`mean-of-batch`", "there is no mean-of-batch$"),
        (" · here", " · Keras", "1 lacks a function"),
        ("\n2. **", "\n3. **", "numbers"),
        ("\n2. **", "\n2. ", "of another form"),
        ("# The ", "# The 1", "title: there are"),
    ],
    ids=lambda text: text.strip()[:30],
)
def test_a_slip_is_noticed(right, wrong, says):
    page = PAGE.read_text(encoding="utf-8")
    assert right in page
    assert any(re.search(says, complaint) for complaint in complaints(page.replace(right, wrong)))
