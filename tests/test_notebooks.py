"""The notebooks: made from their sources, quoting both pages; `make notebooks` executes them."""

import ast
import json
import re
from types import SimpleNamespace

import pytest

import notebooks
from fit_unfolded import pitfalls

SOURCES = notebooks.sources()
ENGLISH = [source for source in SOURCES if source.parent == notebooks.NOTEBOOKS]
EXERCISES = [source for source in SOURCES if not source.name.startswith("1_")]


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
    for _, options, body in cells(ENGLISH[0].read_text(encoding="utf-8")):
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


def test_every_notebook_begins_alike():
    """Each is complete in itself, so the cell that installs is in all of them."""
    setups = [
        body
        for source in ENGLISH
        for _, options, body in cells(source.read_text(encoding="utf-8"))
        if '"setup"' in options
    ]
    assert len(setups) == len(ENGLISH)
    assert len(set(setups)) == 1


@pytest.mark.parametrize("source", EXERCISES, ids=notebooks.name_of)
def test_every_solution_is_executed(source):
    found = list(cells(source.read_text(encoding="utf-8")))
    folded = sum(body.count("<summary>") for is_text, _, body in found if is_text)
    codes = list(notebooks.solutions([(not is_text, body) for is_text, _, body in found]))
    assert len(codes) == folded > 0
    for code in codes:
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    ("exercise", "solution", "passes"),
    [
        (["no-graph"], [], True),
        (["no-graph"], ["no-graph"], False),  # the solution still has it
        ([], [], False),  # the exercise has another mistake
    ],
)
def test_a_wrong_solution_fails(exercise, solution, passes):
    text = "<summary>Solution: <code>no-graph</code></summary>\n\n```python\nf = 2\n```\n\n"
    texts = [(True, "f = 1\n\ncheck_loop(f)"), (False, f"<details>{text}</details>")]
    (code,) = notebooks.solutions(texts)

    def report(names):
        costs = [SimpleNamespace(name=name) for name in names]
        return SimpleNamespace(causes=[], costs=costs, passed=True)

    names = {"Out": {1: report(exercise)}, "check_loop": lambda f: report(solution)}
    if passes:
        exec(code, names)
        assert names["f"] == 2
    else:
        with pytest.raises(AssertionError):
            exec(code, names)


def test_in_colab_links_lead_to_the_repository():
    text = "[1](../docs/details.md)"
    assert notebooks.prepared(text, "1", "") == text
    changed = notebooks.prepared(text, "1", "https://github.com/a/b")
    assert changed == "[1](https://github.com/a/b/blob/main/docs/details.md)"


def test_the_badge_needs_an_address():
    text = "# # Title\n"
    assert notebooks.prepared(text, "1", "") == text
    assert "/github/a/b/blob/main/notebooks/1.ipynb" in notebooks.prepared(
        text, "1", "https://github.com/a/b"
    )
