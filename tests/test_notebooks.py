"""The notebooks: made from their sources, and quoting both pages."""

import json
import re

import pytest

import notebooks
from fit_unfolded import pitfalls

SOURCES = notebooks.sources()


def cells(text):
    """`(is text, options, source)` of each cell of the percent format."""
    for cell in re.split(r"(?m)^# %%", text)[1:]:
        options, _, body = cell.partition("\n")
        is_text = "[markdown]" in options
        yield is_text, options, (re.sub(r"(?m)^# ?", "", body) if is_text else body).strip("\n")


def stale(source, made):
    """Whether a notebook, as JSON, is not that of a source."""
    found = [(c["cell_type"] == "markdown", "".join(c["source"])) for c in made["cells"]]
    return found != [(is_text, body) for is_text, _, body in cells(source)]


@pytest.mark.parametrize("source", SOURCES, ids=notebooks.name_of)
def test_notebooks_are_made_from_their_sources(source):
    text = source.read_text(encoding="utf-8")
    text = notebooks.prepared(text, notebooks.name_of(source), notebooks.address())
    made = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert not stale(text, made), "run `make notebooks`"
    assert stale(text + "\n# %%\nprint()\n", made)


def test_the_first_notebook_quotes_both_pages():
    quoted = 0
    text = (notebooks.NOTEBOOKS / "1_fit_and_loop.py").read_text(encoding="utf-8")
    for _, options, body in cells(text):
        if tag := re.search(r'tags=\["(\w+_\w+)"\]', options):
            page = (notebooks.ROOT / tag[1] / "one_page.py").read_text(encoding="utf-8")
            assert body in page
            quoted += 1
    assert quoted > 5


def test_solutions_name_pitfalls():
    text = (notebooks.NOTEBOOKS / "3_ten_mistakes.py").read_text(encoding="utf-8")
    named = re.findall(r"Solution: <code>([\w-]+)</code>", text)
    assert len(named) == 10
    assert set(named) <= set(pitfalls.names())


def test_the_badge_needs_an_address():
    text = "# # Title\n"
    assert notebooks.prepared(text, "1", "") == text
    assert "/github/a/b/blob/main/notebooks/1.ipynb" in notebooks.prepared(
        text, "1", "https://github.com/a/b"
    )
