"""README and docs name files, functions, commands and options: all are there, and none is left out.

(docs/details.md has tests of its own, in test_details.py.)
"""

import pkgutil
import re
from pathlib import Path

import pytest
from typer.main import get_command

from fit_unfolded import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


# The code that README.md opens with -----------------------------------------------------------


def quotations(page):
    """`(file, code)` for each code block that says which file it is from."""
    return re.findall(r"from \[`[\w/.]+`\]\(([\w/.]+)\):\n\n```python\n(.*?)```", page, re.DOTALL)


def misquoted(page):
    """The paragraphs of the quoted code that are not in the file, line by line."""
    for file, code in quotations(page):
        lines = (ROOT / file).read_text().splitlines()
        for paragraph in re.split(r"\n{2,}", code.strip("\n")):
            quoted = paragraph.splitlines()
            places = range(len(lines) - len(quoted) + 1)
            if not any(lines[at : at + len(quoted)] == quoted for at in places):
                yield file, paragraph


def test_the_readme_quotes_both_pages():
    assert [file for file, _ in quotations(README)] == [
        "keras_fit/one_page.py",
        "manual_loop/one_page.py",
    ]
    assert list(misquoted(README)) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("epochs=100,", "epochs=10,"), ("training=True)", "training=False)"), ("    loss = ", "loss")],
)
def test_a_misquotation_is_noticed(right, wrong):
    assert right in README
    assert list(misquoted(README.replace(right, wrong)))


# Names ----------------------------------------------------------------------------------------


def missing_names(page):
    """Names of `manual_loop`, in the lesson's table and elsewhere, that cannot be imported."""
    table = page.partition("## From the lesson")[2].partition("\n## ")[0]
    names = re.findall(r"`(\w+(?:\.\w+)+)`", page)
    names = [name for name in names if name.startswith("manual_loop.")]
    last_column = [row.rstrip("| ").rpartition("|")[2] for row in table.splitlines()]
    for cell in last_column:
        names += [f"manual_loop.{name}" for name in re.findall(r"`([a-z]\w*\.[\w.]+)`", cell)]
    for name in names:
        if (ROOT / name.removeprefix("manual_loop.")).suffix == ".py":
            continue  # a link: see below
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            yield name


def test_the_names_in_the_readme_are_there():
    assert list(missing_names(README)) == []
    wrong = README.replace("data.arrays.split", "data.arrays.splits")
    assert list(missing_names(wrong)) == ["manual_loop.data.arrays.splits"]


def broken_links(path, page):
    """Relative links to what is not there: files, and headings in them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        file, _, heading = target.partition("#")
        if "://" in target:
            continue
        there = (path.parent / file) if file else path
        if not there.exists():
            yield target
        elif heading:
            titles = re.findall(r"(?m)^#+ (.+)$", there.read_text())
            if heading not in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]:
                yield target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_link_is_broken(path):
    assert list(broken_links(path, path.read_text())) == []


def test_a_broken_link_is_noticed():
    page = "[a](docs/detail.md) [b](docs/tolerances.md#on-a-gpu) [c](docs/tolerances.md#on-a-tpu)"
    broken = broken_links(ROOT / "README.md", page)
    assert list(broken) == ["docs/detail.md", "docs/tolerances.md#on-a-tpu"]


# docs/commands.md -----------------------------------------------------------------------------


def sections(page):
    """The options named under each command."""
    parts = re.split(r"(?m)^### `([\w-]+)`$", page.partition("\n## With `make`")[0])[1:]
    return {
        name: set(re.findall(r"`(--[\w-]+)", text))
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def options():
    """The options of each command that its help shows."""
    return {
        name: {
            option
            for parameter in command.params
            if not parameter.hidden
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--") and option != "--help"
        }
        for name, command in get_command(cli.app).commands.items()
    }


def test_each_command_and_each_option_is_described():
    assert sections(COMMANDS) == options()


def test_an_option_left_out_is_noticed():
    assert sections(COMMANDS.replace("`--graph`", "`graph`")) != options()


def test_each_target_of_make_is_described():
    rules = re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text())
    described = re.findall(r"`make ([\w-]+)", COMMANDS.partition("\n## With `make`")[2])
    assert set(rules) - {"has-gpu"} == set(described)
