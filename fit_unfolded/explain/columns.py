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

from fit_unfolded.explain.excerpts import Source, Stop


def page(
    title: str,
    heading: str,
    summary: str,
    chapters: list["Chapter"],
    columns: Sequence[tuple[str, str]],
) -> str:
    """The page as text; it asks for nothing outside itself.

    Args:
        title, heading: of the document, and above it.
        summary: HTML.
        columns: side, "fit", "loop" or "own", and title of each source, in the order of the
            entries' stops.
    """
    entries = [
        entry for chapter in chapters for segment in chapter.segments for entry in segment.entries
    ]
    sources = [
        Source(side, name, [stop for entry in entries if (stop := entry.stops[at]) is not None])
        for at, (side, name) in enumerate(columns)
    ]
    return Template(_file("page.html")).substitute(
        title=escape(title),
        heading=escape(heading),
        summary=summary,
        style=_file("page.css"),
        script=_file("page.js"),
        timeline=_timeline(chapters),
        events="\n".join(_chapter(chapter, sources) for chapter in chapters),
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


@dataclass(frozen=True)
class Segment:
    """Entries that belong together, such as those of one batch."""

    heading: str  # in the list of events; empty at the beginning of a chapter
    label: str  # on the timeline; empty where there is no room
    block: str  # what it belongs to on the timeline
    place: str  # in words
    entries: list[Entry]


@dataclass(frozen=True)
class Chapter:
    """Compile, an epoch, or what comes before the first or after the last."""

    heading: str
    segments: list[Segment]


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


def _chapter(chapter: Chapter, sources: list[Source]) -> str:
    segments = "\n".join(_segment(segment, sources) for segment in chapter.segments)
    return f'<section class="chapter"><h2>{chapter.heading}</h2>\n{segments}</section>'


def _segment(segment: Segment, sources: list[Source]) -> str:
    heading = f"<h3>{segment.heading}</h3>" if segment.heading else ""
    entries = "\n".join(_item(entry, sources) for entry in segment.entries)
    return (
        f'<section class="segment" data-place="{escape(segment.place)}">{heading}'
        f"<ol>\n{entries}</ol></section>"
    )


def _item(entry: Entry, sources: list[Source]) -> str:
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
        f'<li class="entry" id="{entry.anchor}"><a href="#{entry.anchor}"{lines}>'
        f'<span class="number">{entry.anchor[1:]}</span>'
        f'<span class="name"><code>{_breakable(entry.name)}</code>{result}</span>'
        f"{kind}{detail}</a>{paper}</li>"
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
