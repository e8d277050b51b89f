"""The start page: both one-page programs side by side, and whether they are equal."""

import ast
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from website import ROOT
from website.cache import kept, run
from website.pages import LINE, Pages, slug

KERAS, LOOP = "keras_fit/one_page.py", "manual_loop/one_page.py"


@dataclass(frozen=True)
class Match:
    """Lines of one program, and the lines of the other that do the same.

    Attributes:
        title: what they do.
        keras, loop: how the first line begins on either side, None if there is none. The lines
            reach to the first line of the next match on that side.
        argument: the piece of `compile` or `fit` that the loop's lines write out.
        details: numbers of docs/details.md.
        folded: whether the lines are shown only when asked for.
    """

    title: str
    keras: str | None
    loop: str | None
    argument: str = ""
    details: tuple[int, ...] = ()
    folded: bool = False


MATCHES = (
    Match("Imports", '"""`compile`', '"""`compile`', folded=True),
    Match("Epochs, batch size, split", None, "EPOCHS, BATCH_SIZE"),
    Match("Seed", "keras.utils.set", "keras.utils.set", details=(11,)),
    Match("Data", "# The data:", "# The data:"),
    Match("Split", None, "# validation_split:", "validation_split=0.3", (7,)),
    Match("Model", "# The model:", "# The model:"),
    Match("Optimizer", "model.compile(", "# compile:", 'optimizer="adam"', (44,)),
    Match("Loss", None, "loss_fn =", 'loss="sparse_categorical_crossentropy"', (35, 37)),
    Match("Metrics", None, "mean_loss =", 'metrics=["acc"]', (1, 47)),
    Match("Training step", "history = model.fit(", "# A batch may", "model.fit", (12, 31, 41)),
    Match("Validation step", None, "def test_step(", "validation_split=0.3", (62,)),
    Match("Shuffling", None, "def shuffled(", "x, y", (10, 11)),
    Match("Batches", None, "def run(", "batch_size=16", (8, 28)),
    Match("Epochs", None, "history: dict", "epochs=100", (22, 58)),
    Match("Print", "names = ", "print("),
)
# Arguments of `compile` and `fit` for which the loop has no line.
WITHOUT_LINES = {"verbose=0": "no progress bar: the loop draws none"}


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a file, `first` counted from 1."""

    first: int
    text: list[str]


def matched(keras: str, loop: str) -> list[tuple[Match, Lines | None, Lines | None]]:
    """The matches with their lines.

    Args:
        keras, loop: both programs.

    Raises:
        LookupError: a line is not there, or not in this order, or the argument is no piece of the
            calls of `compile` and `fit`, or one of those has no match.
    """
    left = _cut(keras, [match.keras for match in MATCHES])
    right = _cut(loop, [match.loop for match in MATCHES])
    written = {match.argument for match in MATCHES if match.argument} | set(WITHOUT_LINES)
    there = set(arguments(keras)) | {"model.fit"}
    # "x, y": fit gets them as two arguments, and shuffles them as one
    there = there - {"x", "y"} | {"x, y"}
    if written != there:
        raise LookupError(f"arguments without a match, or the reverse: {written ^ there}")
    return list(zip(MATCHES, left, right, strict=True))


def arguments(program: str) -> list[str]:
    """What the program passes to `compile` and `fit`, as it is written there."""
    calls = [
        node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("compile", "fit")
    ]
    pieces = [piece for call in calls for piece in (*call.args, *call.keywords)]
    return [ast.get_source_segment(program, piece) or "" for piece in pieces]


def _cut(program: str, begins: list[str | None]) -> list[Lines | None]:
    """The lines from each beginning to the next; every line is in one of the parts."""
    lines = program.splitlines()
    firsts: list[int | None] = []
    at = 0
    for begin in begins:
        if begin is None:
            firsts.append(None)
            continue
        after = (n for n in range(at, len(lines)) if lines[n].strip().startswith(begin))
        at = next(after, -1)
        if at < 0:
            raise LookupError(f"no line, or not in this order: {begin!r}")
        while at and lines[at - 1].startswith("@"):  # with its decorators
            at -= 1
        firsts.append(at)
        at += 1
    if firsts[0] != 0:
        raise LookupError("the first line has no match")
    ends = [*[first for first in firsts if first is not None][1:], len(lines)]
    parts = iter(ends)
    return [
        None if first is None else Lines(first + 1, lines[first : next(parts)]) for first in firsts
    ]


# The page -------------------------------------------------------------------------------------


def write(pages: Pages) -> None:
    """Runs both programs and the comparison, unless that is done for the same code."""
    folder = kept("one-page", _measure)
    found = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    pages.write("index.md", _page(pages, found))


def _measure(to: Path) -> None:
    printed = {program: run(program) for program in ("keras_fit.one_page", "manual_loop.one_page")}
    left, right = printed.values()
    if left != right:
        raise RuntimeError("the two programs print different lines")
    run("fit_unfolded", "compare", "lesson", "--output", str(to))
    compared = json.loads((to / "compare.json").read_text(encoding="utf-8"))
    found = {
        "lines": len(left.splitlines()),
        "last": left.splitlines()[-1],
        "verdict": compared["verdict"],
        "versions": compared["versions"],
        "device": compared["device"],
    }
    (to / "verdict.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def _page(pages: Pages, found: dict) -> str:
    programs = [(ROOT / file).read_text(encoding="utf-8") for file in (KERAS, LOOP)]
    sides = [Side(pages, file, text) for file, text in zip((KERAS, LOOP), programs, strict=True)]
    rows = "\n".join(_row(sides, *parts) for parts in matched(*programs))
    versions = found["versions"]
    stack = (
        f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']} and "
        f"Python {versions['python']}"
    )
    return f"""---
hide:
  - navigation
  - toc
---

# The same training twice: `fit`, and `fit` unfolded

Left (on a narrow screen: blue), a Keras model trained by `compile` and `fit`. Right (orange), the
same training with every step written out: `tf.GradientTape`, shuffling, batches, metrics,
validation. Beside each line stands what does the same on the other side.
{{ .lead }}

<p class="verdict" role="status"><strong>{escape(found["verdict"])}</strong>
Both programs print the same {found["lines"]} lines, byte for byte. Compared: logs of every batch,
history, callback calls, weights, optimizer variables, predictions. Measured for this page on a
{found["device"]} with {stack}.</p>

[Step through the training](walks/lesson.html){{ .md-button .md-button--primary }}
[{_count("details.md")} details of `fit`](details.md){{ .md-button }}
[{_count("pitfalls")} mistakes, measured](pitfalls/index.md){{ .md-button }}
[Check your own loop](check.md){{ .md-button }}

<div class="programs highlight">
<div class="row head"><div>{sides[0].link()}</div><div>{sides[1].link()}</div></div>
{rows}
</div>

Run them: `python -m keras_fit.one_page` and `python -m manual_loop.one_page`. Compare them, in all
that can be observed: `fit-unfolded compare lesson`. What is compared, and how to install it, is in
the [overview](readme.md).
"""


def _count(what: str) -> int:
    from fit_unfolded import pitfalls
    from website.details import ENTRY, PAGE

    if what == "pitfalls":
        return len(pitfalls.names())
    return len(ENTRY.findall((ROOT / PAGE).read_text(encoding="utf-8")))


class Side:
    """One program as HTML."""

    def __init__(self, pages: Pages, file: str, text: str):
        self._file = file
        self._source = _html_link(pages.source(file, "index.md"))
        # highlighted whole, so that a text of several lines is known as one
        html = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
        self._html = html.splitlines()

    def link(self) -> str:
        """The program's file, as a link to its source."""
        return f'<a href="{self._source}"><code>{self._file}</code></a>'

    def code(self, lines: Lines) -> str:
        """Lines with their numbers, without blank lines at the end."""
        count = len("\n".join(lines.text).rstrip().splitlines())
        numbered = "".join(
            f'<span class="line"><a href="{self._source}#{LINE}{number}">{number}</a>'
            f"<span>{self._html[number - 1] or ' '}</span></span>"
            for number in range(lines.first, lines.first + count)
        )
        return f"<pre><code>{numbered}</code></pre>"


def _row(sides: list[Side], match: Match, keras: Lines | None, loop: Lines | None) -> str:
    left, right = (
        side.code(lines) if lines else "" for side, lines in zip(sides, (keras, loop), strict=True)
    )
    if keras and match.argument:
        left += _pieces("compile" if "compile" in match.keras else "fit")  # type: ignore[operator]
    elif match.argument:
        left = f'<p class="piece"><code>{escape(match.argument)}</code></p>'
    links = ", ".join(f'<a href="details.html#detail-{n}">{n}</a>' for n in match.details)
    details = f' <span class="see">detail {links}</span>' if links else ""
    title = f'<p class="what"><strong>{match.title}</strong>{details}</p>'
    cells = f"<div>{left}</div><div>{right}</div>"
    if match.folded:
        count = len(loop.text) if loop else 0
        title = f"<summary><strong>{match.title}</strong>, {count} lines</summary>"
        return f'<details class="row">{title}<div class="cells">{cells}</div></details>'
    return f'<div class="row" id="{slug(match.title)}">{title}{cells}</div>'


def _pieces(call: str) -> str:
    """Under a call: where the loop does what each argument asks for."""
    program = (ROOT / KERAS).read_text(encoding="utf-8")
    line = next(line for line in program.splitlines() if f"model.{call}(" in line)
    items = []
    for match in MATCHES:
        if match.argument and match.argument in line and match.argument != "model.fit":
            code = f"<code>{escape(match.argument)}</code>"
            link = f'<a href="#{slug(match.title)}">{match.title.lower()}</a>'
            items.append(f"<li>{code} {link}</li>")
    for argument, words in WITHOUT_LINES.items():
        if argument in line:
            items.append(f"<li><code>{escape(argument)}</code> {escape(words)}</li>")
    return f'<ul class="pieces">{"".join(items)}</ul>'


def _html_link(page: str) -> str:
    path, mark, anchor = page.partition("#")
    return path.removesuffix(".md") + ".html" + mark + anchor
