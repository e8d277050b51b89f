"""docs/details.md as a page of the site: an anchor, Keras's lines and links for each detail."""

import ast
import functools
import re
import textwrap
from collections import defaultdict
from pathlib import Path

from fit_unfolded import pitfalls
from fit_unfolded.common.keras_source import VERSION
from website import ROOT
from website.keras_lines import KERAS, TAG, definition, excerpts
from website.pages import Pages, fenced, page_of

PAGE = "docs/details.md"
# Of an entry: number, title, prose, and the paragraph with the names; in every language.
ENTRY = re.compile(
    r"(?ms)^(\d+)\. \*\*(.+?)\*\*\s+(.+?)\n\n +(Keras `keras/.+?)(?=\n\n|\n*\Z)",
)
SPAN = re.compile(r"`([^`]+)`")


def write(pages: Pages, file: str) -> None:
    """The page made of docs/details.md, or of its translation."""
    text = pages.rewritten((ROOT / file).read_text(encoding="utf-8"), file)
    page = page_of(file)
    pages.write(page, ENTRY.sub(lambda match: _section(pages, match, page), text))


def by_pitfall(text: str) -> dict[str, list[int]]:
    """By name of a pitfall, the numbers of the details that name it."""
    found = defaultdict(list)
    for number, _, _, references in ENTRY.findall(text):
        for name in SPAN.findall(references):
            if name in pitfalls.names():
                found[name].append(int(number))
    return dict(found)


def _section(pages: Pages, match: re.Match[str], page: str) -> str:
    number, title, prose, references = match.groups()
    title = " ".join(title.split()).removesuffix(".")
    prose = textwrap.dedent("    " + prose)
    names = SPAN.findall(" ".join(references.split()).partition(" · ")[0])
    return "\n\n".join(
        [
            f"### {number}. {title} {{ #detail-{number} }}",
            re.sub(r"(?m)^ +", "", prose),
            _keras_lines(int(number), names),
            Names(pages, page).linked(" ".join(references.split())) + "\n{ .names }",
        ]
    )


def _keras_lines(number: int, names: list[str]) -> str:
    """The lines as one code block, with where they are from and under which license."""
    file, *functions = names
    found = excerpts(number, KERAS / file, functions)
    lines = []
    for excerpt in found:
        place = f"# {excerpt.function}, line {excerpt.first}"
        lines += [place, *excerpt.lines, ""]
    title = f"{file}, Keras {VERSION}, Apache-2.0"
    return fenced("\n".join(lines), "python", f'title="{title}"')


class Names:
    """Links the names of files and functions in the last paragraph of an entry."""

    def __init__(self, pages: Pages, page: str):
        self._pages, self._page = pages, page
        self._file = ""

    def linked(self, text: str) -> str:
        """The paragraph with its code spans as links."""
        return SPAN.sub(lambda match: self._span(match[1]), text)

    def _span(self, name: str) -> str:
        target = self._target(name)
        return f"[`{name}`]({target})" if target else f"`{name}`"

    def _target(self, name: str) -> str:
        file, _, function = name.partition("::")
        if file.endswith(".py"):
            self._file = file
            return self._at(function)
        if name in pitfalls.names():
            up = "../" * self._page.count("/")
            return f"{up}pitfalls/{name}.md"
        return self._at(name)

    def _at(self, function: str) -> str:
        """Of the file named last, the line where the function begins."""
        inside = KERAS if self._file.startswith("keras/") else ROOT
        line = _line(inside / self._file, function) if function else None
        if inside == KERAS:
            return f"{TAG}{self._file}" + (f"#L{line}" if line else "")
        return self._pages.source(self._file, self._page, line)


def _line(file: Path, function: str) -> int:
    return definition(_tree(file), function).lineno


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
