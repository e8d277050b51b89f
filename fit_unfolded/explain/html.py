"""The events of both sides as one HTML page: event, Keras's source, the loop's source.

The page holds all it needs: style, script, and the source around each line, which is read from the
installed packages when the page is written.
"""

import re
from collections import Counter
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template

from fit_unfolded.common.files import check_file, replacing
from fit_unfolded.explain.events import Difference, Explanation, Pair
from fit_unfolded.explain.excerpts import Source, Stop


def write(explanation: Explanation, path: Path) -> None:
    """Writes the page to `path`.

    Raises:
        InputError: as in `check_file`.
    """
    check_file(path, "--html")
    with replacing(path) as partial:
        partial.write_text(page(explanation), encoding="utf-8")


def page(explanation: Explanation) -> str:
    """The page as text; it asks for nothing outside itself."""
    chapters = _chapters(explanation)
    entries = [
        entry for chapter in chapters for segment in chapter.segments for entry in segment.entries
    ]
    keras, ours = f"Keras {explanation.keras_version}", f"manual_loop {version('fit-unfolded')}"
    fit = Source("fit", keras, [entry.fit for entry in entries])
    loop = Source("loop", ours, [entry.loop for entry in entries])
    return Template(_file("page.html")).substitute(
        title=escape(f"{explanation.workload}: what compile and fit do"),
        workload=escape(explanation.workload),
        summary=_summary(explanation),
        style=_file("page.css"),
        script=_file("page.js"),
        timeline=_timeline(chapters),
        events="\n".join(_chapter(chapter, fit, loop) for chapter in chapters),
        fit=fit.pane(),
        loop=loop.pane(),
    )


@dataclass(frozen=True)
class Entry:
    """What the reader stops at: a decision of compile, or an event."""

    anchor: str  # "d1", "e12"
    kind: str  # source of the event; empty for a decision
    name: str  # what was called or given
    result: str  # what it became; empty for an event
    detail: str
    fit: Stop
    loop: Stop


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


def _chapters(explanation: Explanation) -> list[Chapter]:
    decisions = [
        Entry(
            anchor=f"d{number}",
            kind="",
            name=decision.argument,
            result=decision.became,
            detail=decision.because,
            fit=Stop(f"d{number}", decision.fit),
            loop=Stop(f"d{number}", decision.loop),
        )
        for number, decision in enumerate(explanation.compile, start=1)
    ]
    chapters = []
    if decisions:
        chapters.append(Chapter("Compile", [Segment("", "", "Compile", "Compile", decisions)]))
    numbered = list(enumerate(explanation.events, start=1))
    epochs = len({pair.event.epoch for _, pair in numbered} - {None})
    seen = 0
    for epoch, group in groupby(numbered, key=lambda item: item[1].event.epoch):
        if epoch is None:
            place = "After the last epoch" if seen else "Before the first epoch"
            entries = [_entry(number, pair) for number, pair in group]
            chapters.append(Chapter(place, [Segment("", "", "", place, entries)]))
        else:
            seen += 1
            segments = _segments(list(group), f"Epoch {epoch + 1}", epochs)
            chapters.append(Chapter(f"Epoch {epoch + 1}", segments))
    return chapters


def _segments(numbered: list[tuple[int, Pair]], epoch: str, epochs: int) -> list[Segment]:
    """The batches of one epoch, and what comes before, between and after them."""
    groups = [(where, list(group)) for where, group in groupby(numbered, key=_phase_and_batch)]
    batches = Counter(phase for (phase, batch), _ in groups if batch is not None)
    phases = [phase for (phase, _), _ in groups]
    segments = []
    for index, ((phase, batch), group) in enumerate(groups):
        validation = phase == "validation"
        place = f"{epoch} of {epochs}" + (", validation" if validation else "")
        block = "val" if validation else epoch
        if batch is not None:
            heading = f"{'validation ' if validation else ''}batch {batch + 1}"
            place = f"{epoch} of {epochs}, {heading} of {batches[phase]}"
        elif index == 0:
            heading = ""  # the chapter's own heading says it
        else:
            begins, ends = phase not in phases[:index], phase not in phases[index + 1 :]
            verb = "begins" if begins else "ends" if ends else "goes on"
            heading = f"{'validation' if validation else 'epoch'} {verb}"
            if not validation and "validation" in phases[:index]:
                block = ""
        label = "" if batch is None else str(batch + 1)
        entries = [_entry(number, pair) for number, pair in group]
        segments.append(Segment(heading, label, block, place, entries))
    return segments


def _phase_and_batch(numbered: tuple[int, Pair]) -> tuple[str, int | None]:
    return numbered[1].event.phase, numbered[1].event.batch


def _entry(number: int, pair: Pair) -> Entry:
    event = pair.event
    return Entry(
        anchor=f"e{number}",
        kind=event.source,
        name=event.call,
        result="",
        detail=event.detail,
        fit=Stop(f"e{number}", pair.fit, pair.fit_stack),
        loop=Stop(f"e{number}", pair.loop, pair.loop_stack),
    )


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


def _chapter(chapter: Chapter, fit: Source, loop: Source) -> str:
    segments = "\n".join(_segment(segment, fit, loop) for segment in chapter.segments)
    return f'<section class="chapter"><h2>{chapter.heading}</h2>\n{segments}</section>'


def _segment(segment: Segment, fit: Source, loop: Source) -> str:
    heading = f"<h3>{segment.heading}</h3>" if segment.heading else ""
    entries = "\n".join(_item(entry, fit, loop) for entry in segment.entries)
    return (
        f'<section class="segment" data-place="{escape(segment.place)}">{heading}'
        f"<ol>\n{entries}</ol></section>"
    )


def _item(entry: Entry, fit: Source, loop: Source) -> str:
    result = f' <span class="result">→ {_breakable(entry.result)}</span>' if entry.result else ""
    kind = f'<span class="kind {entry.kind}">{entry.kind}</span>' if entry.kind else ""
    detail = f'<span class="detail">{escape(entry.detail)}</span>' if entry.detail else ""
    paper = _printed(entry.fit, fit) + _printed(entry.loop, loop)
    return (
        f'<li class="entry" id="{entry.anchor}"><a href="#{entry.anchor}" '
        f'data-fit="{fit.line_id(entry.fit)}" data-loop="{loop.line_id(entry.loop)}" '
        f'data-fit-stack="{fit.stack_id(entry.fit)}" '
        f'data-loop-stack="{loop.stack_id(entry.loop)}">'
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


def _summary(explanation: Explanation) -> str:
    title = explanation.title.rstrip(".")
    summary = (
        f"{title}. {len(explanation.events)} calls, the same in both implementations, in the same "
        "order. "
        f"TensorFlow {explanation.tensorflow_version}."
    )
    return f"<p>{escape(summary)}</p>{_parting(explanation.difference)}"


def _parting(difference: Difference | None) -> str:
    if difference is None:
        return ""
    fit, loop = (
        "nothing more" if event is None else f"{event.call} ({event.detail})"
        for event in (difference.fit, difference.loop)
    )
    words = (
        f"The implementations differ from event {difference.number} on: fit has {fit}, "
        f"the loop has {loop}."
    )
    return f'<p class="parting" role="alert">{escape(words)}</p>'


def _file(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")
