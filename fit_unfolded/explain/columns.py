"""A page to step through: a list of entries, and beside it the source that each one leads to.

The page holds all it needs: style, script, and the source around each line, which is read from the
files when the page is written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template

from fit_unfolded.common.keras_source import keras_source
from fit_unfolded.explain.excerpts import Source, Stop
from fit_unfolded.explain.kinds import FOLDED, SHORTEST_RUN, Kind

# Where the panes are, by their number; on a narrow screen they stand below each other.
START = {
    2: '<span class="wide">Left</span><span class="narrow">Above</span>: the line of Keras that '
    'makes it in fit. <span class="wide">Right</span><span class="narrow">Below</span>: the line '
    "of the loop that makes the same call.",
    3: "The panes show your line, the line of Keras that does the same in fit, and the line of "
    "this project's loop.",
}


def page(
    title: str,
    heading: str,
    summary: str,
    chapters: list["Chapter"],
    columns: Sequence[tuple[str, str]],
    details: str = "",
) -> str:
    """The page as text; it asks for nothing outside itself.

    Args:
        title, heading: of the document, and above it.
        summary: HTML.
        columns: side, "fit", "loop" or "own", and title of each source, in the order of the
            entries' stops.
        details: address of docs/details.md as a page, where detail 44 has the anchor `detail-44`;
            "" names the details without a link.
    """
    entries = [
        entry for chapter in chapters for segment in chapter.segments for entry in segment.entries
    ]
    sources = [
        Source(
            side,
            name,
            [stop for entry in entries if (stop := entry.stops[at]) is not None],
            keras_source() if side == "fit" else "",
        )
        for at, (side, name) in enumerate(columns)
    ]
    kinds = list(dict.fromkeys(entry.about for entry in entries))
    numbers = {kind: f"k{number}" for number, kind in enumerate(kinds)}
    return Template(_file("page.html")).substitute(
        title=escape(title),
        heading=escape(heading),
        summary=summary,
        style=_file("page.css"),
        script=_file("page.js"),
        timeline=_timeline(chapters),
        start=START[len(sources)],
        events="\n".join(_chapter(chapter, sources, numbers) for chapter in chapters),
        kinds="\n".join(_kind(kind, name, details) for kind, name in numbers.items()),
        sources="\n".join(source.pane() for source in sources),
        columns=f"columns-{len(sources)}",
    )


@dataclass(frozen=True)
class Entry:
    """What the reader stops at: a decision of compile, or an event."""

    anchor: str  # "d1", "e12"
    kind: str  # source of the event; empty for a decision
    name: str  # what was called or given
    result: str  # what it became; empty for an event
    detail: str
    stops: tuple[Stop | None, ...]  # one for each source; None where it has no such line
    about: Kind
    taped: bool = False  # while a tape recorded

    @property
    def repeated(self) -> tuple:
        """What entries in a row must share to be folded into one."""
        lines = [stop and (stop.line.file, stop.line.number) for stop in self.stops]
        return (self.kind, self.name.rpartition(".")[2], *lines)


@dataclass(frozen=True)
class Segment:
    """Entries that belong together, such as those of one batch."""

    heading: str  # in the list of events; empty at the beginning of a chapter
    label: str  # on the timeline; empty where there is no room
    block: str  # what it belongs to on the timeline
    place: str  # in words
    entries: list[Entry]
    repeats: str = ""  # what it is equal to, if that came before: "as in batch 0"


@dataclass(frozen=True)
class Chapter:
    """Compile, an epoch, or what comes before the first or after the last."""

    heading: str
    segments: list[Segment]
    note: str = ""


def _timeline(chapters: list[Chapter]) -> str:
    segments = [(chapter.heading, segment) for chapter in chapters for segment in chapter.segments]
    blocks = groupby(segments, key=lambda item: (item[0], item[1].block))
    return "\n".join(_block(block, [segment for _, segment in g]) for (_, block), g in blocks)


def _block(block: str, segments: list[Segment]) -> str:
    links = "".join(
        f'<a href="#{segment.entries[0].anchor}" style="flex-grow:{len(segment.entries)}" '
        f'aria-label="{escape(segment.place)}" title="{escape(segment.place)}">'
        f"{segment.label}</a>"
        for segment in segments
    )
    size = sum(len(segment.entries) for segment in segments)
    return (
        f'<div class="block {block.split(" ")[0].lower()}" style="flex-grow:{size}">'
        f'<div>{links}</div><p aria-hidden="true">{block}</p></div>'
    )


def _chapter(chapter: Chapter, sources: list[Source], kinds: dict[Kind, str]) -> str:
    segments = "\n".join(_segment(segment, sources, kinds) for segment in chapter.segments)
    note = f'<p class="note">{escape(chapter.note)}</p>' if chapter.note else ""
    return f'<section class="chapter"><h2>{chapter.heading}</h2>{note}\n{segments}</section>'


def _segment(segment: Segment, sources: list[Source], kinds: dict[Kind, str]) -> str:
    heading = escape(segment.heading)
    if segment.repeats:
        calls = f"{_plural(len(segment.entries), 'event')}, {segment.repeats}"
        heading = f"{_button(heading)} <span>· {escape(calls)}</span>"
    heading = f"<h3>{heading}</h3>" if heading else ""
    runs = [list(run) for _, run in groupby(segment.entries, key=lambda entry: entry.repeated)]
    entries = "\n".join(
        _item(entry, sources, kinds, run, place) for run in runs for place, entry in enumerate(run)
    )
    repeats = " repeats" if segment.repeats else ""
    return (
        f'<section class="segment{repeats}" data-place="{escape(segment.place)}">{heading}'
        f"<ol>\n{entries}</ol></section>"
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _button(label: str) -> str:
    return f'<button type="button" class="fold" aria-expanded="true">{label}</button>'


def _kind(kind: Kind, name: str, details: str) -> str:
    """The sentence of a kind of event, and its details."""
    named = []
    for number, title in kind.details:
        words = f": {escape(title)}"
        if details:
            named.append(f'<a href="{escape(details)}#detail-{number}">Detail {number}{words}</a>')
        else:
            named.append(f"docs/details.md, {number}{words}")
    links = "".join(f' <span class="named">{words}.</span>' for words in named)
    return f'<p id="{name}">{escape(kind.sentence)}{links}</p>'


def _item(
    entry: Entry, sources: list[Source], kinds: dict[Kind, str], run: list[Entry], place: int
) -> str:
    """One entry; `run` are those in a row at the same lines, of which it is number `place`."""
    folds = len(run) >= SHORTEST_RUN and entry.kind in FOLDED
    more = _button(f"{len(run) - 1} more at these lines") if folds and place == 0 else ""
    classes = " ".join(
        ["entry", *(["in-run"] if folds and place else []), *(["taped"] if entry.taped else [])]
    )
    tape = '<span class="unseen">under the tape</span>' if entry.taped else ""
    result = f' <span class="result">→ {_breakable(entry.result)}</span>' if entry.result else ""
    kind = f'<span class="kind {entry.kind}">{entry.kind}</span>' if entry.kind else ""
    detail = f'<span class="detail">{escape(entry.detail)}</span>' if entry.detail else ""
    stops = [(s, stop) for s, stop in zip(sources, entry.stops, strict=True) if stop is not None]
    paper = "".join(_printed(stop, source) for source, stop in stops)
    lines = "".join(
        f' data-{source.side}="{source.line_id(stop)}"'
        f' data-{source.side}-stack="{source.stack_id(stop)}"'
        for source, stop in stops
    )
    return (
        f'<li class="{classes}" id="{entry.anchor}">'
        f'<a href="#{entry.anchor}" data-about="{kinds[entry.about]}"{lines}>'
        f'<span class="number">{entry.anchor[1:]}</span>'
        f'<span class="name"><code>{_breakable(entry.name)}</code>{result}</span>'
        f"{kind}{detail}{tape}</a>{more}{paper}</li>"
    )


def _breakable(name: str) -> str:
    """A long name, with the places where a line may end."""
    return re.sub(r"([._=])(?=\w)", r"\1<wbr>", escape(name))


def _printed(stop: Stop, source: Source) -> str:
    """On paper there are no panes: each entry names its lines."""
    line = stop.line
    return (
        f'<p class="printed {source.side}">{escape(line.file)}:{line.number} '
        f"{escape(line.function)} <code>{escape(source.text(stop))}</code></p>"
    )


def _file(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")
