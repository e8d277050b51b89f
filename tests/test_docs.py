"""README and docs name files, functions, commands and options: all are there, and none is left out.

(docs/details.md has tests of its own, in test_details.py.)
"""

import pkgutil
import re
from pathlib import Path

import pytest
from markdown_pages import anchors, links, sections, text_of
from typer.main import get_command

from fit_unfolded import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
LESSON = (ROOT / "docs" / "lesson.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").rglob("*.ipynb")),
]


# The code that README.md opens with -----------------------------------------------------------


def quotations(page):
    """`(file, code)` for each code block that says which file it is from."""
    return re.findall(r"from \[`[\w/.]+`\]\(([\w/.]+)\):\n\n```python\n(.*?)```", page, re.DOTALL)


def misquoted(page):
    """The paragraphs of the quoted code that are not in the file, line by line."""
    for file, code in quotations(page):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
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
    """Names of `manual_loop` that cannot be imported; its own names in the lesson's tables too."""
    names = re.findall(r"`(manual_loop(?:\.\w+)+)`", page)
    if page.startswith("# From the lesson"):
        rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
        column = " ".join(row[2] for row in rows)
        names += [f"manual_loop.{name}" for name in re.findall(r"`([a-z]\w*\.[\w.]+)`", column)]
    for name in names:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            yield name


def test_the_names_of_the_loop_are_there():
    assert list(missing_names(README)) == []
    assert list(missing_names(LESSON)) == []
    wrong = LESSON.replace("`data.arrays.split`", "`data.arrays.splits`")
    assert list(missing_names(wrong)) == ["manual_loop.data.arrays.splits"]


def broken_links(path, page):
    """Relative links to what is not there: files, and headings or lines in them."""
    for text, target in links(page):
        file, _, place = target.partition("#")
        if "://" in target:
            continue
        there = (path.parent / file) if file else path
        if not there.exists():
            yield target
        elif number := re.fullmatch(r"L(\d+)", place):
            lines = there.read_text(encoding="utf-8").splitlines()
            code = text.strip("`")
            if code not in "".join(lines[int(number[1]) - 1 : int(number[1])]):
                yield f"{target}: `{code}` is in {[n for n, x in enumerate(lines, 1) if code in x]}"
        elif place and place not in anchors(text_of(there)):
            yield target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_broken(path):
    assert list(broken_links(path, text_of(path))) == []


def test_a_broken_link_is_noticed():
    right = ["docs/tolerances.md#on-a-gpu", "notebooks/1_fit_and_loop.ipynb#the-same-written-out"]
    wrong = ["docs/detail.md", "docs/tolerances.md#on-a-tpu", "notebooks/1_fit_and_loop.ipynb#data"]
    page = " ".join(f"[a]({target})" for target in [*right, *wrong])
    assert list(broken_links(ROOT / "README.md", page)) == wrong


def test_a_link_to_another_line_is_noticed():
    target = "../keras_fit/one_page.py"
    line = (ROOT / "keras_fit" / "one_page.py").read_text(encoding="utf-8").splitlines().index(
        "import os"
    ) + 1
    page = f"[`import os`]({target}#L{line}) [`import os`]({target}#L{line + 1})"
    path = ROOT / "docs" / "lesson.md"
    assert list(broken_links(path, page)) == [f"{target}#L{line + 1}: `import os` is in [{line}]"]


def misplaced_details(page):
    """Links of the lesson's tables to a detail's number that lead to another section's heading."""
    details = (ROOT / "docs" / "details.md").read_text(encoding="utf-8")
    for number, heading in re.findall(r"\[(\d+)\]\(details\.md#([\w-]+)\)", page):
        before = details.partition(f"\n{number}. **")[0]
        if anchors(before)[-1] != heading:
            yield f"{number} is under {anchors(before)[-1]}"


def test_the_lesson_finds_its_details():
    assert list(misplaced_details(LESSON)) == []
    assert list(misplaced_details("[7](details.md#epochs)")) == ["7 is under data"]


def misplaced_cells(page):
    """Links of the lesson's tables to a notebook's section that has nothing to do with their row.

    A section of notebook 1 has a line that the row links to, and an exercise of notebook 3 is about
    one of the row's pitfalls; every exercise has its own number.
    """
    for row in page.splitlines():
        lines = [text.strip("`") for text, target in links(row) if "one_page.py#" in target]
        mistakes = [text.strip("`") for text, target in links(row) if "/catalogue/" in target]
        for text, target in links(row):
            file, _, anchor = target.partition("#")
            if not (row.startswith("| ") and file.endswith(".ipynb") and lines):
                continue
            section = dict(sections(text_of(ROOT / "docs" / file)))[anchor]
            number, _, exercise = text.partition(".")
            right = Path(file).name.startswith(f"{number}_")
            right &= anchor.startswith(f"{exercise}-") or not exercise
            if number == "1":
                right &= any(line in section for line in lines)
            elif number == "3":
                right &= re.search(r"<code>(.+?)</code>", section)[1] in mistakes
            if not right:
                yield f"[{text}]({anchor})"


def test_the_lesson_finds_its_cells():
    assert LESSON.count(".ipynb#") > 20
    assert list(misplaced_cells(LESSON)) == []
    changes = {
        "[1](../n": "[2](../n",
        "[3.2](../n": "[3.4](../n",
        "`metrics-after-update`": "`no-graph`",
        "#a-step)": "#all-epochs)",
    }
    wrong = LESSON
    for text, other in changes.items():
        wrong = wrong.replace(text, other, 1)
    assert list(misplaced_cells(wrong)) == [
        "[2](load-data)",
        "[3.4](2-the-loss-is-too-low-from-the-first-batch-on)",
        "[3.3](3-the-accuracy-is-ahead-of-the-loss)",
        "[1](all-epochs)",
    ]


# docs/commands.md -----------------------------------------------------------------------------


def described_options(page):
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
    assert described_options(COMMANDS) == options()


def test_an_option_left_out_is_noticed():
    assert described_options(COMMANDS.replace("`--graph`", "`graph`")) != options()


def test_each_target_of_make_is_described():
    rules = re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    described = re.findall(r"`make ([\w-]+)", COMMANDS.partition("\n## With `make`")[2])
    assert set(rules) - {"has-gpu"} == set(described)
