"""The Korean pages say what the English ones say: neither can be changed alone.

Compared is what does not depend on the language, heading by heading and detail by detail: the level
of a heading or the number of a detail, code blocks (their comments may be translated), the names in
backticks, numbers, links, and the rows of lists and tables. Notebooks are read as Markdown, whose
code blocks are their code cells; docstrings and printed text may be translated too. The pitfalls
have no English page, but the docstrings of the catalogue.
"""

import ast
import functools
import itertools
import os.path
import re
from pathlib import Path

import pytest
from markdown_pages import HEADING, LINK, anchors, links, text_of

from fit_unfolded import pitfalls

ROOT = Path(__file__).parents[1]
KOREAN = {
    "README.md": "README.ko.md",
    "docs/details.md": "docs/ko/details.md",
    "docs/lesson.md": "docs/ko/lesson.md",
    "notebooks/1_fit_and_loop.ipynb": "notebooks/ko/1_fit_and_loop.ipynb",
    "notebooks/3_ten_mistakes.ipynb": "notebooks/ko/3_ten_mistakes.ipynb",
}
ENGLISH = {korean: english for english, korean in KOREAN.items()}
INDEX, PITFALLS = "docs/ko/index.md", "docs/ko/pitfalls.md"
CATALOGUE = "fit_unfolded/pitfalls/catalogue"

BLOCK = re.compile(r"```.*?```", re.DOTALL)
# A heading or the number and title of a detail; a code block is passed over whole.
START = re.compile(r"(?m)```[\s\S]*?```|^(#+ .+|\d+\. \*\*[^*]+\*\*)")
NUMBER = re.compile(r"(?<![A-Za-z_\d])\d+(?:[.,]\d+)*")


@functools.cache
def read(file):
    return text_of(ROOT / file)


def parts(page):
    """A page, cut before each heading and each detail."""
    starts = [match.start() for match in START.finditer(page) if match[1]]
    return [page[a:b] for a, b in itertools.pairwise([*starts, len(page)])]


@functools.cache
def anchors_of(file):
    return anchors(read(file))


def title(part):
    return " ".join(START.match(part)[1].split())


def kind(part):
    """The level of a heading, the number of a detail, or the name of a pitfall, which is code."""
    heading = title(part)
    name = heading.removeprefix("### ")
    return name if name in pitfalls.names() else heading.split()[0]


def facts(file, part):
    """What a part says in any language, by what it is."""
    bare = without_prose if file.endswith(".ipynb") else without_comments
    blocks = [bare(block) for block in BLOCK.findall(part)]
    text = re.sub(r"</?code>", "`", BLOCK.sub("", part))
    prose = re.sub(r"`[^`]+`", "", LINK.sub(r"\1", text))
    return {
        "code blocks": blocks,
        "names": sorted({" ".join(name.split()) for name in re.findall(r"`([^`]+)`", text)}),
        "numbers": sorted(NUMBER.findall(prose)),
        "links": sorted(place(file, target) for _, target in links(text)),
        "list items": re.findall(r"(?m)^ *(-) ", text),
        "table rows": re.findall(r"(?m)^(\|)", text),
    }


def without_comments(block):
    """A code block in which only the places of its comments are left."""
    return re.sub(r"  # .*", "  #", block)


def without_prose(block):
    """A cell without comments; of docstrings, printed and returned text only the numbers."""
    tree = ast.parse(block.strip("`").removeprefix("python"))
    for node in ast.walk(tree):
        printed = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        returned = isinstance(node, ast.Expr | ast.Return) and isinstance(node.value, ast.Constant)
        if not (printed or returned):
            continue
        for text in ast.walk(node):
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                text.value = " ".join(sorted(NUMBER.findall(text.value)))
    return ast.unparse(tree)


def place(file, target):
    """Where a link leads: for a Korean page, the same place in its English counterpart."""
    path, _, anchor = target.partition("#")
    if "://" in target:
        return target
    path = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
    if path == PITFALLS and anchor:
        return f"{CATALOGUE}/{anchor.replace('-', '_')}.py"
    if anchor and path in {*KOREAN, *ENGLISH}:
        anchor = f"heading {anchors_of(path).index(anchor) + 1}"
    return f"{ENGLISH.get(path, path)}#{anchor}".rstrip("#")


def differences(english_file, english, korean_file, korean):
    """What one language says and the other does not, in words."""
    pairs = list(itertools.zip_longest(parts(english), parts(korean)))
    for a, b in pairs:
        if a is None or b is None or kind(a) != kind(b):
            here, there = (title(part) if part else "nothing" for part in (a, b))
            yield f"{english_file} has '{here}' where {korean_file} has '{there}'"
            return
    for a, b in pairs:
        both = facts(english_file, a), facts(korean_file, b)
        for what in both[0]:
            in_english, in_korean = (found[what] for found in both)
            if in_english != in_korean:
                yield (
                    f"'{title(a)}' and '{title(b)}' in {korean_file} differ in their {what}: "
                    f"{more(in_english, in_korean)} only in English, "
                    f"{more(in_korean, in_english)} only in Korean"
                )


def more(found, other):
    """The values that are more often in the first list."""
    return [value for value in sorted(set(found)) if found.count(value) > other.count(value)]


@pytest.mark.parametrize(("english", "korean"), KOREAN.items(), ids=KOREAN)
def test_both_languages_say_the_same(english, korean):
    assert "\n".join(differences(english, read(english), korean, read(korean))) == ""


# Pitfalls -------------------------------------------------------------------------------------


def entry(name):
    """The docstring of a pitfall, its symptom, and the thread that it cites."""
    module = ast.parse(read(f"{CATALOGUE}/{name.replace('-', '_')}.py"))
    values = {
        statement.targets[0].id: statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
    }
    thread = values["THREAD"]
    url = ast.literal_eval(thread.args[0]) if isinstance(thread, ast.Call) else None
    return ast.get_docstring(module), ast.literal_eval(values["SYMPTOM"]), url


def english_pitfalls():
    """The page that the catalogue would be."""
    for name in pitfalls.names():
        docstring, _, url = entry(name)
        thread = "[{3}/{4}#{6}]({url})".format(*url.split("/"), url=url) if url else ""
        yield f"### {name}\n\n{docstring}\n\n{thread}\n"


def listed_pitfalls(page):
    """The part of the page that has an entry for each."""
    return page[page.index("\n### ") + 1 :]


def symptoms(page):
    """By symptom, as the command prints it: its Korean wording, and its pitfalls."""
    for item in re.split(r"\n(?=- )", page.partition("\n### ")[0])[1:]:
        wording, symptom = re.match(r"- (.+?)\s\(`([^`]+)`\):", item).groups()
        yield symptom, (" ".join(wording.split()), [text.strip("`") for text, _ in links(item)])


def test_the_pitfalls_are_those_of_the_catalogue():
    page = read(PITFALLS)
    assert title(page) == f"# 함정 {len(pitfalls.names())}가지"
    english = "".join(english_pitfalls())
    assert "\n".join(differences(CATALOGUE, english, PITFALLS, listed_pitfalls(page))) == ""


def test_the_pitfalls_are_found_by_symptom():
    page = read(PITFALLS)
    found = dict(symptoms(page))
    assert list(found) == list(pitfalls.SYMPTOMS)
    for part in parts(listed_pitfalls(page)):
        _, symptom, _ = entry(kind(part))
        wording, names = found[symptom]
        assert kind(part) in names
        assert f"증상: {wording} ·" in " ".join(part.split())
    assert sum(len(names) for _, names in found.values()) == len(pitfalls.names())


# The start page -------------------------------------------------------------------------------


def test_the_start_page_calls_the_korean_pages_by_their_titles():
    page = read(INDEX)
    found = {target: text for text, target in links(page) if "/" not in target}
    assert found == {
        os.path.relpath(file, "docs/ko"): HEADING.search(read(file))[1]
        for file in ("docs/ko/lesson.md", "docs/ko/details.md", PITFALLS)
    }


def test_the_figures_of_the_start_page_are_those_of_the_readme():
    readme, page = read("README.md"), read(INDEX)
    (verdict,) = BLOCK.findall(page)
    assert verdict.strip("`\n") in readme
    prose = BLOCK.sub("", page).partition("\n## 어디")[0]
    assert set(NUMBER.findall(prose)) <= set(NUMBER.findall(readme))


# Negative controls ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("## 한계", "### 한계", r"README.md has '## Limits' where README.ko.md has '### 한계'"),
        ("## 인용", "인용", r"README.md has '## Citing' where README.ko.md has 'nothing'"),
        ("1,797", "1,979", r"'## 비교하기'.* numbers: \['1,797'\] only in E.*\['1,979'\] only"),
        ("make compare", "make compares", r"'## 비교하기'.* code blocks"),
        ("epochs=10, ", "epochs=9, ", r"'## Python에서 사용하기'.* code blocks"),
        ("`super().fit`", "`super().fits`", r"'## Limits' and '## 한계'.* names"),
        ("docs/ways.md", "docs/gap.md", r"'# fit, unfolded'.* links"),
        ("\n- **GPU**", "\n**GPU**", r"'## 한계'.* list items"),
        ("| GPU | 측정하지 않음 |\n", "", r"'## 비교하는 것'.* table rows"),
    ],
)
def test_a_stale_readme_is_noticed(right, wrong, says):
    korean = read("README.ko.md")
    assert right in korean
    stale = korean.replace(right, wrong)
    found = differences("README.md", read("README.md"), "README.ko.md", stale)
    assert any(re.search(says, text) for text in found)


def test_a_translated_comment_is_no_difference():
    blocks = ["```\nf(1)  # one\n```", "```\nf(1)  # 하나\n```", "```\nf(1)\n```"]
    with_comment, translated, without = (facts("README.md", block) for block in blocks)
    assert with_comment == translated != without


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("40행을 크기가 16인", "40행을 크기가 20인", r"'## 8\. .* numbers"),
        ("`training=True`를 전달", "`training`을 전달", r"'## 1\. .* names"),
        ("<code>no-graph", "<code>no-graphs", r"'## 10\. .* names: \['no-graph'\]"),
        ("y_pred = loop.model(x)", "y_pred = loop.model(x, training=True)", r"'## 1\. .* code b"),
        (
            '{"optimizer": "adam"',
            '{"optimizer": "sgd"',
            r"'## The model and its data'.* code blocks",
        ),
        ("16, 16, 8", "16, 16, 4", r"'## The model and its data'.* code blocks"),
        ("## 9. ", "### 9. ", r"has '## 9\. .*' where .* has '### 9\. "),
        ("\ncheck_loop(train)\n", "\n", r"'## 4\. .* code blocks"),
    ],
)
def test_a_stale_notebook_is_noticed(right, wrong, says):
    english = "notebooks/3_ten_mistakes.ipynb"
    korean = read(KOREAN[english])
    assert right in korean
    stale = korean.replace(right, wrong, 1)
    (text,) = differences(english, read(english), KOREAN[english], stale)
    assert re.search(says, text)


def test_translated_comments_and_texts_of_a_cell_are_no_difference():
    english = 'def f():\n    """1 one."""  # one\n    return "one"\n\n\nprint(f"one {f()}")'
    korean = 'def f():\n    """하나 1."""\n    return "하나"\n\n\n# 하나\nprint(f"하나 {f()}")'
    cells = [f"```python\n{code}\n```" for code in (english, korean, english.replace("1", "2"))]
    first, translated, other = map(without_prose, cells)
    assert first == translated != other
    assert without_prose(cells[0].replace("f()", "g()")) != first


def test_a_stale_detail_is_noticed():
    file = "docs/details.md"
    stale = read(file).replace("`floor(n * (1 - split))`", "`ceil(n * (1 - split))`")
    (text,) = differences(file, stale, KOREAN[file], read(KOREAN[file]))
    assert text.startswith("'7. **The validation split")
    missing = re.sub(r"(?m)^8\. \*\*", "9. **", stale, count=1)
    (text,) = differences(file, missing, KOREAN[file], read(KOREAN[file]))
    assert "docs/details.md has '9. **" in text


def test_a_stale_pitfall_is_noticed():
    english = "".join(english_pitfalls())
    korean = listed_pitfalls(read(PITFALLS))
    (text,) = differences(CATALOGUE, english.replace("32,768", "65,536", 1), PITFALLS, korean)
    assert text.startswith("'### gradients-not-unscaled'")
    renamed = english.replace("### no-graph", "### without-graph")
    (text,) = differences(CATALOGUE, renamed, PITFALLS, korean)
    assert "where docs/ko/pitfalls.md has '### no-graph'" in text
