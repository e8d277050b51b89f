"""Pieces of source: found at run time, shown as they are, and replaced by wrong ones."""

import importlib
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Lines(NamedTuple):
    """Lines of a file: `text` without the indentation that they share."""

    file: str
    first: int
    function: str
    text: str


@dataclass(frozen=True)
class Place:
    """A line of an installed package.

    Attributes:
        where: `module:function` or `module:Class.method`.
        line: how the line begins.
    """

    where: str
    line: str

    def find(self) -> Lines:
        """The line, with its file from the package's folder on.

        Raises:
            LookupError: no line of the function begins so.
        """
        owner, name = _owner(self.where)
        source, first = inspect.getsourcelines(inspect.unwrap(getattr(owner, name)))
        for number, line in enumerate(source, start=first):
            if line.strip().startswith(self.line):
                return Lines(_short_file(owner), number, self.where.partition(":")[2], line.strip())
        raise LookupError(f"{self.where} has no line that begins with {self.line!r}")

    def path(self) -> Path:
        """The file."""
        owner, name = _owner(self.where)
        return Path(inspect.getsourcefile(inspect.unwrap(getattr(owner, name))) or "")


@dataclass(frozen=True)
class Edit:
    """Lines of one function, and what stands in their place in the wrong loop.

    Attributes:
        where: `module:function` or `module:Class.method`, where the loop looks the function up.
        right: the lines as they are, without their common indentation; comment lines between them
            may be left out.
        wrong: other lines.
    """

    where: str
    right: str
    wrong: str

    def find(self) -> Lines:
        """The right lines, where they are defined.

        Raises:
            LookupError: they are not in the function, or more than once.
        """
        function = self._function()
        source, first = inspect.getsourcelines(function)
        start, _ = self._span(source)
        file = _short_file(inspect.getmodule(function))
        return Lines(file, first + start, function.__qualname__, _dedent(self.right))

    def wrong_function(self) -> Callable[..., Any]:
        """The function with the wrong lines; `inspect.getsource` shows them."""
        function = self._function()
        source, _ = inspect.getsourcelines(function)
        start, stop = self._span(source)
        indent = _indentation(source[start:stop])
        wrong = textwrap.indent(_dedent(self.wrong), indent).splitlines(keepends=True)
        wrong[-1] += "\n"
        code = textwrap.dedent("".join([*source[:start], *wrong, *source[stop:]]))
        file = f"<{self.where}, wrong>"
        linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
        found: dict[str, Any] = {}
        exec(compile(code, file, "exec"), function.__globals__, found)
        return found[function.__name__]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The loop is wrong while this block runs."""
        owner, name = _owner(self.where)
        right = getattr(owner, name)
        setattr(owner, name, self.wrong_function())
        try:
            yield
        finally:
            setattr(owner, name, right)

    def _function(self) -> Callable[..., Any]:
        owner, name = _owner(self.where)
        return getattr(owner, name)

    def _span(self, source: list[str]) -> tuple[int, int]:
        """Where the right lines begin, and the line behind their end."""
        right = _dedent(self.right).splitlines()
        kept = [n for n, line in enumerate(source) if not line.lstrip().startswith("#")]
        spans = []
        for at in range(len(kept) - len(right) + 1):
            numbers = kept[at : at + len(right)]
            block = "".join(source[number] for number in numbers)
            if _dedent(block).splitlines() == right:
                spans.append((numbers[0], numbers[-1] + 1))
        if len(spans) != 1:
            raise LookupError(f"{self.where} has {len(spans)} times the lines\n{self.right}")
        return spans[0]


def _owner(where: str) -> tuple[Any, str]:
    """The module or class that holds the function, and the function's name."""
    module, _, path = where.partition(":")
    *classes, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


def _short_file(thing: Any) -> str:
    """The file's path from its package's folder on: `keras/src/trainers/trainer.py`."""
    file = Path(inspect.getsourcefile(thing) or "")
    module = inspect.getmodule(thing)
    depth = len(module.__name__.split(".")) if module else 1
    if file.name == "__init__.py":
        depth += 1
    return "/".join(file.parts[-depth:])


def _dedent(text: str) -> str:
    return textwrap.dedent(text.strip("\n")).rstrip()


def _indentation(lines: list[str]) -> str:
    """What the lines that are not blank have in common."""
    widths = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    return " " * min(widths)
