"""The terminal page: what compile decided, then the training, each event with both its lines."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fit_unfolded.explain.events import Decision, Difference, Event, Explanation, Line, Pair
from fit_unfolded.explain.kinds import FOLDED, LEFT_TO_KERAS, SHORTEST_RUN

WIDE = 110  # columns of a terminal that has room for the functions' names
WIDEST_LINE = 42
INDENT = "  "


def print_heading(console: Console, explanation: Explanation) -> None:
    """What was run."""
    epochs = _numbers(pair.event.epoch for pair in explanation.events)
    batches = _numbers(p.event.batch for p in explanation.events if p.event.phase == "train")
    console.print(
        f"{': '.join(filter(None, [explanation.workload, explanation.title]))}\n"
        f"{len(epochs)} epochs of {len(batches)} batches from a tf.data.Dataset, with validation, "
        "run eagerly in each implementation with instrumented objects.\n"
        f"Keras {explanation.keras_version}, TensorFlow {explanation.tensorflow_version}.",
        markup=False,
        highlight=False,
    )


def print_decisions(console: Console, decisions: list[Decision]) -> None:
    """What compile made of each argument; why; the lines of both sides."""
    console.print(f"\n[bold]What compile does[/bold]\n{LEFT_TO_KERAS}", highlight=False)
    for decision in decisions:
        text = Text(f"{INDENT}{decision.argument}")
        text.append(" → ", "dim").append(decision.became, "bold")
        console.print(text, overflow="fold", highlight=False)
        lines = f"fit {place(decision.fit)}, loop {place(decision.loop)}"
        if decision.left is not None:
            lines += f", left to {decision.left.function}"
        for line in (Text(decision.because), Text(lines, "dim")):
            console.print(Padding(line, (0, 0, 0, len(INDENT * 3))), highlight=False)


def print_events(console: Console, explanation: Explanation, full: bool) -> None:
    """The training; batches and epochs that repeat what came before are folded, unless `full`."""
    console.print(
        "\n[bold]What fit does[/bold]\n"
        "Each call, and the nearest line behind it, in keras/src and in manual_loop. Epochs and "
        "batches count from 0, as callbacks get them; │ marks what a tape records.",
        highlight=False,
    )
    wide = console.width >= WIDE
    found = [
        (_event(row.event), _line(row.fit, wide), _line(row.loop, wide))
        if isinstance(row, Pair)
        else (Text(row, "cyan"), Text(), Text())
        for row in rows(explanation.events, full)
    ]
    fit, loop = (max((len(cells[side]) for cells in found), default=4) for side in (1, 2))
    fit = min(fit, WIDEST_LINE)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    room = console.width - fit - loop - 4  # two spaces between columns
    for header, width in (("event", room), ("fit", fit), ("loop", loop)):
        table.add_column(header, width=width, no_wrap=True, overflow="ellipsis")
    for cells in found:
        table.add_row(*cells)
    console.print(table)


def print_list(console: Console, heading: str, lines: list[str]) -> None:
    """Lines under a heading, indented also where they wrap."""
    console.print(heading, style="cyan", highlight=False)
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, len(INDENT))))


def print_figures(console: Console, figures: list[tuple[str, str, str]]) -> None:
    """Figures of both sides."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for header in ("", "fit", "loop"):
        table.add_column(header, justify="right" if header else "left")
    for row in figures:
        table.add_row(*row)
    console.print(table)


def print_verdict(console: Console, explanation: Explanation) -> None:
    """Whether both sides' streams of events are equal, in words."""
    console.print()
    difference = explanation.difference
    if difference is None:
        console.print(
            f"EQUAL: both implementations make the same {len(explanation.events)} calls, in the "
            "same order, with the same values.",
            style="bold green",
            highlight=False,
        )
    else:
        console.print(describe(difference), style="bold red", markup=False, highlight=False)


def describe(difference: Difference) -> str:
    """Where the streams part, and what each side does there."""
    sides = (("fit", difference.fit), ("loop", difference.loop))
    return "\n".join(
        [
            f"DIFFERENT from event {difference.number} on:",
            *(f"{INDENT}{side:<4} {_in_words(event)}" for side, event in sides),
        ]
    )


def rows(pairs: list[Pair], full: bool) -> Iterator[Pair | str]:
    """The events in order, with headings for epochs and batches, and repetitions as one line."""
    shown: list[list[tuple]] = []
    for epoch, group in groupby(pairs, key=lambda pair: pair.event.epoch):
        in_epoch = list(group)
        if epoch is None:
            yield from _runs(in_epoch, full)
            continue
        shape = [_shape(pair) for pair in in_epoch]
        if shape in shown and not full:
            yield f"epoch {epoch}: {len(in_epoch)} equal events"
            continue
        shown.append(shape)
        yield f"epoch {epoch}"
        yield from _rows_of_epoch(in_epoch, full)


def _rows_of_epoch(pairs: list[Pair], full: bool) -> Iterator[Pair | str]:
    batches = [list(group) for _, group in groupby(pairs, key=_batch)]
    while batches:
        batch = batches.pop(0)
        phase, number = _batch(batch[0])
        if number is None:
            yield from _runs(batch, full)
            continue
        yield f"{INDENT}{_kind(phase)} {number}"
        yield from _runs(batch, full)
        same = []
        while not full and batches and _repeats(batches[0], batch):
            same.append(str(batches.pop(0)[0].event.batch))
        if same:
            yield f"{INDENT}{_kind(phase)} {', '.join(same)}: {len(batch)} equal events"


def _runs(pairs: list[Pair], full: bool) -> Iterator[Pair | str]:
    """The events; of several in a row that come from the same lines, the first."""
    for (source, *_), group in groupby(pairs, key=_lines):
        run = list(group)
        if full or source not in FOLDED or len(run) < SHORTEST_RUN:
            yield from run
        else:
            yield run[0]
            yield f"{_indent(run[0].event)}{len(run) - 1} more at these lines"


def _lines(pair: Pair) -> tuple:
    event = pair.event
    return event.source, event.call.rpartition(".")[2], pair.fit, pair.loop


def _kind(phase: str) -> str:
    return "batch" if phase == "train" else f"{phase} batch"


def _repeats(batch: list[Pair], first: list[Pair]) -> bool:
    phase, number = _batch(batch[0])
    return number is not None and phase == _batch(first[0])[0] and _calls(batch) == _calls(first)


def _calls(pairs: list[Pair]) -> list[tuple]:
    return [(pair.event.call, pair.fit, pair.loop) for pair in pairs]


def _shape(pair: Pair) -> tuple:
    return pair.event.phase, pair.event.batch, pair.event.call, pair.fit, pair.loop


def _batch(pair: Pair) -> tuple[str, int | None]:
    return pair.event.phase, pair.event.batch


def _event(event: Event) -> Text:
    text = Text(f"{_indent(event)}{event.call}")
    if event.detail:
        text.append(f"  {event.detail}", "dim")
    return text


def _indent(event: Event) -> str:
    depth = (event.epoch is not None) + (event.batch is not None)
    return INDENT * depth + ("│ " if event.taped else "")


def _line(line: Line, wide: bool) -> Text:
    text = Text(place(line) if wide else place(line).replace(".py:", ":"))
    if wide:
        function = line.function.removesuffix(".<lambda>")
        text.append(f" {function.rpartition('.')[2]}", "dim")
    return text


def place(line: Line) -> str:
    """File and number; of the two files `trainer.py` of Keras, with the directory."""
    directory, _, name = line.file.rpartition("/")
    if line.file.startswith("keras/") and name in ("trainer.py", "__init__.py"):
        name = f"{directory.rpartition('/')[2]}/{name}"
    return f"{name}:{line.number}"


def _in_words(event: Event | None) -> str:
    if event is None:
        return "has no more events"
    detail = f" ({event.detail})" if event.detail else ""
    return f"{event.call}{detail}, {event.line.file}:{event.line.number} in {event.line.function}"


def _numbers(values: Iterable[int | None]) -> set[int]:
    return {value for value in values if value is not None}
