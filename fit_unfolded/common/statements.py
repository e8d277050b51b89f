"""Which lines of a Python file belong to one statement."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
COLON = re.compile(r":\s*(#.*)?$")


def statement(path: str, number: int) -> range:
    """The numbers of the lines of the statement that a line is in.

    Of an `if`, a loop, a `with` or a function: of what comes before its body. A line that belongs
    to none of these, such as `else:`, is alone.
    """
    around = [node for node in _statements(path) if node.lineno <= number <= (node.end_lineno or 0)]
    if around:
        innermost = max(reversed(around), key=lambda node: node.lineno)
        lines = range(innermost.lineno, _last(path, innermost) + 1)
        if number in lines:
            return lines
    return range(number, number + 1)


@cache
def parsed(path: str) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(_text(path))


def _last(path: str, node: ast.stmt) -> int:
    """The last line of a statement, or of its head."""
    body = getattr(node, "body", None)
    if not body:
        return node.end_lineno or 0
    last = max([node.lineno, *(getattr(child, "end_lineno", 0) for child in _head(node))])
    lines = _text(path).split("\n")
    while last < body[0].lineno and not COLON.search(lines[last - 1]):
        last += 1
    return last


def _head(node: ast.stmt) -> Iterator[ast.AST]:
    """The parts of a statement that come before its body, such as a condition."""
    for name, value in ast.iter_fields(node):
        if name not in BODIES:
            parts = value if isinstance(value, list) else [value]
            yield from (part for part in parts if isinstance(part, ast.AST))


@cache
def _statements(path: str) -> list[ast.stmt]:
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.stmt)]


@cache
def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
