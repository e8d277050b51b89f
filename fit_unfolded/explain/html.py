"""The events of both sides as one HTML page: event, Keras's source, the loop's source."""

from html import escape
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from fit_unfolded.common.files import check_file, replacing
from fit_unfolded.explain import columns, kinds, terminal
from fit_unfolded.explain.columns import Chapter, Entry, Segment
from fit_unfolded.explain.events import Decision, Difference, Explanation, Pair
from fit_unfolded.explain.excerpts import Stop


def write(explanation: Explanation, path: Path, details: str = "") -> None:
    """Writes the page to `path`.

    Args:
        details: as in `page`.

    Raises:
        InputError: as in `check_file`.
    """
    check_file(path, "--html")
    with replacing(path) as partial:
        partial.write_text(page(explanation, details), encoding="utf-8")


def page(explanation: Explanation, details: str = "") -> str:
    """The page as text.

    Args:
        details: address of docs/details.md as a page, where detail 44 has the anchor `detail-44`;
            "" names the details without a link.
    """
    return columns.page(
        title=f"{explanation.workload}: what compile and fit do",
        heading=f"{explanation.workload}, unfolded",
        summary=_summary(explanation),
        chapters=_chapters(explanation),
        columns=[
            ("fit", f"fit: Keras {explanation.keras_version}"),
            ("loop", f"The loop: manual_loop {version('fit-unfolded')}"),
        ],
        details=details,
    )


def _chapters(explanation: Explanation) -> list[Chapter]:
    decisions = [
        Entry(
            anchor=f"d{number}",
            kind="",
            name=decision.argument,
            result=decision.became,
            detail="; ".join([decision.because, *_left(decision)]),
            about=kinds.of_argument(decision.argument),
            stops=(Stop(f"d{number}", decision.fit), Stop(f"d{number}", decision.loop)),
        )
        for number, decision in enumerate(explanation.compile, start=1)
    ]
    chapters = []
    if decisions:
        segment = Segment("", "", "Compile", "Compile", decisions)
        chapters.append(Chapter("Compile", [segment], kinds.LEFT_TO_KERAS))
    numbered = list(enumerate(explanation.events, start=1))
    seen: dict[tuple, str] = {}  # what segments hold -> the place of the first
    for epoch, group in groupby(numbered, key=lambda item: item[1].event.epoch):
        if epoch is None:
            place = "After the last epoch" if chapters[1:] else "Before the first epoch"
            entries = [_entry(number, pair) for number, pair in group]
            chapters.append(Chapter(place, [Segment("", "", "", place, entries)]))
        else:
            segments = _segments(list(group), f"Epoch {epoch}", seen)
            chapters.append(Chapter(f"Epoch {epoch}", segments))
    return chapters


def _left(decision: Decision) -> list[str]:
    """That Keras decides for the loop too, and where."""
    if decision.left is None:
        return []
    return [
        f"the loop leaves this to Keras: {decision.left.function}, {terminal.place(decision.left)}"
    ]


def _segments(
    numbered: list[tuple[int, Pair]], epoch: str, seen: dict[tuple, str]
) -> list[Segment]:
    """The batches of one epoch, and what comes before, between and after them.

    Args:
        seen: what the segments of earlier epochs hold -> the place of the first; it is added to.
    """
    groups = [(where, list(group)) for where, group in groupby(numbered, key=_phase_and_batch)]
    phases = [phase for (phase, _), _ in groups]
    segments = []
    for index, ((phase, batch), group) in enumerate(groups):
        validation = phase == "validation"
        place = epoch + (", validation" if validation else "")
        block = "val" if validation else epoch
        if batch is not None:
            heading = f"{'validation ' if validation else ''}batch {batch}"
            place = f"{epoch}, {heading}"
        elif index == 0:
            heading = ""  # the chapter's own heading says it
        else:
            begins, ends = phase not in phases[:index], phase not in phases[index + 1 :]
            verb = "begins" if begins else "ends" if ends else "goes on"
            heading = f"{'validation' if validation else 'epoch'} {verb}"
            if not validation and "validation" in phases[:index]:
                block = ""
        label = "" if batch is None else str(batch)
        entries = [_entry(number, pair) for number, pair in group]
        first = seen.setdefault((phase, batch is None, *_calls(group)), place)
        repeats = "" if first == place else f"as in {first[0].lower()}{first[1:]}"
        if repeats and not heading:
            heading = "epoch begins"
        segments.append(Segment(heading, label, block, place, entries, repeats))
    return segments


def _calls(group: list[tuple[int, Pair]]) -> list[tuple]:
    """The calls and their lines: what makes batches equal to the reader."""
    return [(pair.event.call, pair.event.taped, pair.fit, pair.loop) for _, pair in group]


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
        about=kinds.of_event(event.source, event.call),
        taped=event.taped,
        stops=(
            Stop(f"e{number}", pair.fit, pair.fit_stack),
            Stop(f"e{number}", pair.loop, pair.loop_stack),
        ),
    )


def _summary(explanation: Explanation) -> str:
    title = explanation.title.rstrip(".")
    summary = (
        f"{title}. {len(explanation.events)} calls, the same in both implementations, in the same "
        f"order, run eagerly. TensorFlow {explanation.tensorflow_version}. Epochs and batches "
        "count from 0, as callbacks get them."
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
