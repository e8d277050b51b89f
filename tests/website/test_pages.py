"""What the site is made of: its lists are complete, and what it names is there.

The built site is tested in built_site.py, by `make site-test`.
"""

import posixpath
import re
from pathlib import Path

import pytest
from test_details import PAGE, details

from fit_unfolded.pitfalls import names
from website import ROOT, navigation, start, walks
from website.details import by_pitfall
from website.keras_lines import KERAS, LINES, excerpts, statement
from website.pages import Pages, notebook, page_of, slug

MOST_LINES = 12  # of Keras, for one detail


def folder_of(tmp_path, *files):
    """A repository with these Markdown files."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("# Title\n")
    return tmp_path


# Navigation -----------------------------------------------------------------------------------


def test_every_page_of_docs_is_listed_once():
    pages = navigation.pages_in(navigation.navigation(ROOT, {"all": names()}))
    assert len(pages) == len(set(pages))
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert docs | {"readme.md", "index.md", "walks.md", "api.md", "citing.md"} <= set(pages)
    assert {f"pitfalls/{name}.md" for name in names()} < set(pages)


def lacking(written, made):
    """The pages that the written ones link to and nobody makes; folders with a dot are not made."""
    found = set()
    for page, text in written.items():
        for target in re.findall(r"\]\(([^)#\s:]+\.md)\b", text):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            if there not in made or "/." in there:
                found.add(there)
    return found


def test_every_page_that_is_linked_to_is_made(tmp_path):
    pages = Pages(tmp_path)
    for file in navigation.files(ROOT):
        pages.stage(file)
    pages.finish()
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*.md")
        if "source" not in path.parts or path.name == "index.md"
    }
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} | {
        "api.md",
        "citing.md",
        "index.md",
        "walks.md",
    }
    assert lacking(written, made) == set()
    assert lacking({"a.md": "[b](b.md) [c](source/.c/d.yml.md)"}, {"source/.c/d.yml.md"}) == {
        "b.md",
        "source/.c/d.yml.md",
    }


def test_a_page_that_no_section_names_is_listed(tmp_path):
    root = folder_of(tmp_path, "README.md", "docs/details.md", "docs/new.md")
    assert "new.md" in navigation.pages_in(navigation.navigation(root, {}))


def test_notebooks_and_korean_pages_are_listed_if_they_are_there(tmp_path):
    root = folder_of(tmp_path, "README.md", "docs/details.md")
    titles = {title for item in navigation.navigation(root, {}) for title in item}
    assert not titles & {"Notebooks", navigation.KOREAN}
    folder_of(tmp_path, "README.ko.md", "docs/ko/details.md", "docs/ko/index.md")
    folder_of(tmp_path, "notebooks/1.py", "notebooks/ko/1.py")
    sections = {
        title: pages for item in navigation.navigation(root, {}) for title, pages in item.items()
    }
    assert sections["Notebooks"] == ["notebooks/1.md"]
    assert sections[navigation.KOREAN] == [
        "ko/index.md",
        "ko/readme.md",
        "ko/details.md",
        "ko/notebooks/1.md",
    ]


# Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "link", "expected"),
    [
        ("docs/ways.md", "[a](check.md#one)", "[a](check.md#one)"),
        ("docs/ways.md", "[a](../README.md#two)", "[a](readme.md#two)"),
        ("README.md", "![a](docs/gap.png)", "![a](gap.png)"),
        ("README.md", "[`x`](manual_loop/steps.py)", "[`x`](source/manual_loop/steps.py.md)"),
        (
            "docs/ways.md",
            "[a](../manual_loop/steps.py#L20-L22)",
            "[a](source/manual_loop/steps.py.md#__codelineno-0-20)",
        ),
        ("README.md", "[`x`](manual_loop/data)", "[`x`](source/index.md#manual_loopdata)"),
        ("README.md", "[a](CITATION.cff)", "[a](citing.md)"),
        ("docs/ways.md", "[a [n, 1]](gap.md)", "[a [n, 1]](gap.md)"),
        (
            "docs/ways.md",
            "[a](../notebooks/1_fit_and_loop.ipynb#equal)",
            "[a](notebooks/1_fit_and_loop.md#equal)",
        ),
        (
            "docs/ko/lesson.md",
            "[a](../../notebooks/ko/1_fit_and_loop.ipynb#에포크)",
            "[a](notebooks/1_fit_and_loop.md#에포크)",
        ),
        ("docs/ways.md", "[a](https://keras.io)", "[a](https://keras.io)"),
        ("docs/ways.md", "```\n[a](nowhere.md)\n```", "```\n[a](nowhere.md)\n```"),
    ],
)
def test_links_are_turned_to_the_sites_pages(tmp_path, file, link, expected):
    assert Pages(tmp_path).rewritten(link, file) == expected


def test_a_link_to_nothing_is_an_error(tmp_path):
    with pytest.raises(LookupError, match=r"docs/nowhere\.md, which is not in the repository"):
        Pages(tmp_path).rewritten("[a](nowhere.md)", "docs/ways.md")


def test_a_folder_of_source_files_has_its_anchor(tmp_path):
    pages = Pages(tmp_path)
    pages.finish()
    assert f"{{ #{slug('manual_loop/data')} }}" in (tmp_path / "source/index.md").read_text()
    assert (tmp_path / page_of("manual_loop/data/arrays.py")).is_file()


def test_a_notebook_becomes_a_page():
    cells = (
        "# ---\n# jupyter:\n# ---\n\n# %% [markdown]\n# # Title\n#\n# Text\n\n# %%\nx = 1  # one\n"
    )
    assert notebook(cells) == "# Title\n\nText\n\n```python\nx = 1  # one\n```\n"
    assert page_of("notebooks/1_fit.py") == page_of("notebooks/1_fit.ipynb") == "notebooks/1_fit.md"
    assert page_of("notebooks/ko/1_fit.py") == "ko/notebooks/1_fit.md"


def test_the_page_of_a_notebook_begins_with_the_notebook_itself(tmp_path):
    Pages(tmp_path).stage("notebooks/1_fit_and_loop.py")
    text = (tmp_path / "notebooks/1_fit_and_loop.md").read_text(encoding="utf-8")
    before_setup = text.partition("import importlib")[0].strip().split("\n\n")
    assert before_setup[0].startswith("# ")
    assert before_setup[1] == "[`1_fit_and_loop.ipynb`](1_fit_and_loop.ipynb){ download }"
    assert before_setup[-2:] == ['<details markdown="1"><summary>Setup</summary>', "```python"]
    assert (tmp_path / "notebooks/1_fit_and_loop.ipynb").is_file()


# The start page -------------------------------------------------------------------------------


def programs():
    return [(ROOT / file).read_text() for file in (start.KERAS, start.LOOP)]


def test_each_line_of_both_programs_has_its_place():
    keras, loop = programs()
    matches = start.matched(keras, loop)
    for side, program in ((1, keras), (2, loop)):
        parts = [match[side] for match in matches if match[side] is not None]
        assert [line for part in parts for line in part.text] == program.splitlines()
        assert [part.first for part in parts] == sorted(part.first for part in parts)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("loss_fn = ", "loss_function = "),
        ("# validation_split:", "# split:"),
        ("def test_step(", "def evaluate("),
        ("validation_split=0.3,", ""),
        ('metrics=["acc"])', 'metrics=["acc"], jit_compile=True)'),
        ("verbose=0", "verbose=2"),
    ],
)
def test_a_change_of_a_program_is_noticed(right, wrong):
    changed = [program.replace(right, wrong) for program in programs()]
    assert changed != programs()
    with pytest.raises(LookupError):
        start.matched(*changed)


def test_the_matched_lines_do_what_the_title_says():
    matches = {match.title: (keras, loop) for match, keras, loop in start.matched(*programs())}
    expected = {
        "Split": "x_train, y_train, x_val, y_val = ",
        "Optimizer": "keras.optimizers.Adam()",
        "Loss": "SparseCategoricalCrossentropy()",
        "Metrics": "SparseCategoricalAccuracy()",
        "Training step": "tape.gradient(",
        "Validation step": "training=False",
        "Shuffling": "tf.random.shuffle",
        "Batches": "range(0, len(x), BATCH_SIZE)",
        "Epochs": "for epoch in range(EPOCHS)",
    }
    for title, code in expected.items():
        assert code in "\n".join(matches[title][1].text), title


def test_the_details_of_the_start_page_are_there():
    numbers = {detail.number for detail in details(PAGE.read_text())}
    assert {number for match in start.MATCHES for number in match.details} <= numbers


# Walks, details, pitfalls ---------------------------------------------------------------------


def test_the_broken_loops_are_there():
    assert all((ROOT / "examples" / f"{name}.py").is_file() for name in walks.BROKEN)


def test_each_detail_shows_a_few_lines_of_keras():
    found = details(PAGE.read_text())
    assert set(LINES) == {detail.number for detail in found}
    for detail in found:
        file, *functions = detail.keras
        shown = [
            line for part in excerpts(detail.number, KERAS / file, functions) for line in part.lines
        ]
        assert 0 < len(shown) <= MOST_LINES, detail.number


def test_lines_that_keras_does_not_have_are_noticed():
    first = details(PAGE.read_text())[0]
    with pytest.raises(LookupError, match=r"none of get_metric has a line"):
        excerpts(1, KERAS / first.keras[0], ["get_metric"])
    with pytest.raises(LookupError, match=r"there is no get_metrics"):
        excerpts(1, KERAS / first.keras[0], ["get_metrics"])


def test_the_statement_around_a_line(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("def f(x):\n    y = g(\n        x,\n    )\n    if x:\n        return y\n")
    assert statement(file, 3) == "y = g(\n    x,\n)"
    assert statement(file, 5) == "if x:"


def test_pitfalls_know_the_details_that_name_them():
    numbers = by_pitfall(PAGE.read_text())
    assert set(numbers) <= set(names())
    assert all(
        name in detail.pitfalls
        for detail in details(PAGE.read_text())
        for name in names()
        if detail.number in numbers.get(name, [])
    )
    assert numbers["optimizer-made-anew"] == [4]


def test_the_configuration_names_no_other_server():
    sources = [
        path for path in Path(ROOT / "website").rglob("*") if path.suffix in (".toml", ".css")
    ]
    assert len(sources) == 2
    assert not any(re.search(r"https?://", path.read_text()) for path in sources)
