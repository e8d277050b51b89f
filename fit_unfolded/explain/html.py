"""The events of both sides as one HTML page: event, Keras's source, the loop's source."""

from collections import Counter
from html import escape
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from fit_unfolded.common.files import check_file, replacing
from fit_unfolded.explain import columns
from fit_unfolded.explain.columns import Chapter, Entry, Segment
from fit_unfolded.explain.events import Difference, Explanation, Pair
from fit_unfolded.explain.excerpts import Stop


def write(explanation: Explanation, path: Path) -> None:
    """Writes the page to `path`.

    Raises:
        InputError: as in `check_file`.
    """
    check_file(path, "--html")
    with replacing(path) as partial:
        partial.write_text(page(explanation), encoding="utf-8")


def page(explanation: Explanation) -> str:
    """The page as text."""
    return columns.page(
        title=f"{explanation.workload}: what compile and fit do",
        heading=f"{explanation.workload}, unfolded",
        summary=_summary(explanation),
        chapters=_chapters(explanation),
        columns=[
            ("fit", f"Keras {explanation.keras_version}"),
            ("loop", f"manual_loop {version('fit-unfolded')}"),
        ],
    )


def _chapters(explanation: Explanation) -> list[Chapter]:
    decisions = [
        Entry(
            anchor=f"d{number}",
            kind="",
            name=decision.argument,
            result=decision.became,
            detail=decision.because,
            stops=(Stop(f"d{number}", decision.fit), Stop(f"d{number}", decision.loop)),
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
        stops=(
            Stop(f"e{number}", pair.fit, pair.fit_stack),
            Stop(f"e{number}", pair.loop, pair.loop_stack),
        ),
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
