"""Excerpts of source for the HTML page: a few lines around each that an event leads to."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import decode_source
from itertools import pairwise
from pathlib import Path

from pygments.lexers import PythonLexer
from pygments.token import Token

from fit_unfolded.common.statements import statement
from fit_unfolded.explain.events import Line

CONTEXT = 6  # lines shown above and below a line
SMALLEST_GAP = 4  # fewer lines than this are shown rather than left out

# Few colours read more calmly than many: what is not here looks like plain text.
COLOURS = (
    (Token.Comment, "c"),
    (Token.Literal.String.Doc, "c"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "n"),
    (Token.Keyword, "k"),
    (Token.Operator.Word, "k"),
    (Token.Name.Decorator, "d"),
    (Token.Name.Function, "f"),
    (Token.Name.Class, "f"),
)


@dataclass(frozen=True)
class Stop:
    """Where an event or a decision of compile leads on one side."""

    entry: str  # the id of the event or decision
    line: Line
    stack: tuple[Line, ...] = ()  # the calls that led there, the nearest first

    @property
    def numbers(self) -> range:
        """The lines of the statement or condition that this line begins, or else itself."""
        number = self.line.number
        lines = statement(self.line.path, number)
        return lines if lines[0] == number else range(number, number + 1)


class Source:
    """What one side's pane shows: of each file the lines around the stops.

    Args:
        side: "fit", "loop" or "own".
        package: name and version of what is shown.
        stops: all of them, in order.
        web: where the files are on the web; "" if they are nowhere.
    """

    def __init__(self, side: str, package: str, stops: list[Stop], web: str = "") -> None:
        self.side = side
        self.package = package
        self._web = web
        self._firsts: dict[str, dict[int, Stop]] = {}  # file -> number of the line -> first stop
        for stop in stops:
            self._firsts.setdefault(stop.line.file, {}).setdefault(stop.line.number, stop)
        self._files = {file: place for place, file in enumerate(self._firsts)}
        self._stacks = {
            stack: place for place, stack in enumerate(dict.fromkeys(s.stack for s in stops))
        }

    def line_id(self, stop: Stop) -> str:
        """The id of the line in the page."""
        return f"{self.side}-{self._files[stop.line.file]}-{stop.line.number}"

    def stack_id(self, stop: Stop) -> str:
        """The id of the calls that led there."""
        return f"{self.side}-stack-{self._stacks[stop.stack]}"

    def text(self, stop: Stop) -> str:
        """The statement or condition itself, on one line."""
        lines = _lines(stop.line.path)
        return " ".join(lines[number - 1].strip() for number in stop.numbers)

    def pane(self) -> str:
        """The column with the excerpts."""
        excerpts = "\n".join(map(self._excerpts, self._firsts))
        stacks = "".join(self._calls(stack, place) for stack, place in self._stacks.items())
        title = escape(self.package)
        return (
            f'<section class="column source" data-side="{self.side}" aria-label="{title}">'
            f"<h2>{title}</h2>{self._link('', hidden=True)}"
            f"<details hidden><summary></summary>{stacks}</details>\n"
            f'<div class="scroll" tabindex="0" role="region" aria-label="Source of {title}">'
            f"{excerpts}</div></section>"
        )

    def _link(self, file: str, hidden: bool = False) -> str:
        """To a file on the web; the script adds file and line."""
        if not self._web or not (hidden or file.startswith("keras/")):
            return ""
        return (
            f'<a class="web" href="{escape(self._web + file)}" target="_blank" rel="noopener"'
            f"{' hidden' if hidden else ''}>on GitHub</a>"
        )

    def _calls(self, stack: tuple[Line, ...], place: int) -> str:
        calls = "".join(
            f"<li><strong>{escape(line.function)}</strong> {escape(line.file)}:{line.number}</li>"
            for line in reversed(stack)
        )
        return f'<ol id="{self.side}-stack-{place}" hidden>{calls}</ol>'

    def _excerpts(self, file: str) -> str:
        firsts = self._firsts[file]
        path = next(iter(firsts.values())).line.path
        plain, coloured = _lines(path), _coloured(path)
        starts = {n: stop for stop in firsts.values() for n in stop.numbers[1:]}
        rows = []
        previous = 0
        for number in sorted(around({*firsts, *starts}, len(plain))):
            if number > previous + 1:
                rows.append('<li class="gap">⋯</li>')
            code = _code(plain[number - 1], coloured[number - 1])
            rows.append(self._row(number, code, firsts.get(number), starts.get(number)))
            previous = number
        if previous < len(plain):
            rows.append('<li class="gap">⋯</li>')
        return (
            f'<section data-file="{escape(file)}"><h3>{escape(file)} {self._link(file)}</h3>'
            f"<ol>{''.join(rows)}</ol></section>"
        )

    def _row(self, number: int, code: str, stop: Stop | None, start: Stop | None) -> str:
        """A line of an excerpt; `start` is the stop whose statement it goes on with."""
        part = f' data-part-of="{self.line_id(start)}"' if start else ""
        if stop is None:
            return f"<li{part}><b>{number}</b>{code}</li>"
        return (
            f'<li class="stop" id="{self.line_id(stop)}"{part} '
            f'data-function="{escape(stop.line.function)}">'
            f'<a href="#{stop.entry}">{number}</a>{code}</li>'
        )


def around(stops: Iterable[int], last: int) -> set[int]:
    """The line numbers to show: those around each stop, and gaps too small to leave out."""
    shown: set[int] = set()
    for stop in stops:
        shown.update(range(max(1, stop - CONTEXT), min(last, stop + CONTEXT) + 1))
    ordered = sorted(shown)
    for low, high in pairwise(ordered):
        if high - low - 1 < SMALLEST_GAP:
            shown.update(range(low + 1, high))
    return shown


def _code(plain: str, coloured: str) -> str:
    indent = len(plain) - len(plain.lstrip(" "))
    return f'<code style="--i:{indent}"><i>{" " * indent}</i>{coloured}</code>'


@cache
def _lines(path: str) -> list[str]:
    return decode_source(Path(path).read_bytes()).rstrip("\n").split("\n")


@cache
def _coloured(path: str) -> list[str]:
    """Each line as HTML, without its indentation."""
    lines = [""]
    lexer = PythonLexer(stripnl=False, ensurenl=False)
    for token, text in lexer.get_tokens("\n".join(_lines(path))):
        colour = next((name for kind, name in COLOURS if token in kind), None)
        for place, part in enumerate(text.split("\n")):
            if place:
                lines.append("")
            if not lines[-1]:
                part = part.lstrip(" ")
            if part and colour:
                lines[-1] += f'<span class="{colour}">{escape(part)}</span>'
            elif part:
                lines[-1] += escape(part)
    return lines
