"""The terminal reports: an index of all pitfalls by symptom, and one pitfall in full."""

import difflib
import re
import textwrap
from collections.abc import Callable, Iterator

import keras
import numpy as np
from rich.console import Console
from rich.text import Text

from fit_unfolded.common.tables import plain_table
from fit_unfolded.comparison.compare import Check
from fit_unfolded.pitfalls import COSTS, SYMPTOMS, Pitfall
from fit_unfolded.pitfalls.experiment import BY_ITS_CLOCK, FIT, RIGHT, WRONG, Result

WIDEST = 100  # columns that running text is set in


# Widths of the index's columns: 80 in all.
NAME, FIGURE, COUNT, TIMES = 28, 9, 6, 9


def print_index(console: Console, results: list[Result]) -> None:
    """By symptom, one line a pitfall: how far the wrong loop is from fit, and where it shows."""
    _print_text(
        console,
        "Look for what you see, then: fit-unfolded pitfalls NAME. Columns loss and val_loss: wrong "
        "loop minus fit, after the epoch with the largest difference. Column weights: the largest "
        "final difference. Column first seen: epochs and batches count from 1. A dash: no such "
        "value.",
    )
    figures = [f"{name:>{FIGURE}}" for name in ("loss", "val_loss", "weights")]
    _print_lines(console, f"{'':{NAME}}{''.join(figures)}  first seen", results, False, _numbers)
    _print_text(
        console,
        "The following leave the losses alone, or change them by chance. Columns wrong and fit: "
        "what the last column names, counted in the wrong loop and in fit. Column time: seconds of "
        "the wrong loop as a multiple of the right loop's, measured once, on this machine.",
    )
    counts = f"{'wrong':>{COUNT}}{'fit':>{COUNT}}{'time':>{TIMES}}"
    _print_lines(console, f"{'':{NAME}}{counts}  counted", results, True, _costs)
    _print_sum(console, results)


def _print_lines(
    console: Console,
    header: str,
    results: list[Result],
    costs: bool,
    line: Callable[[Result], str],
) -> None:
    """The symptoms of one kind, costs or not, each with its pitfalls."""
    console.print(Text(header))
    for symptom in SYMPTOMS[COSTS:] if costs else SYMPTOMS[:COSTS]:
        found = [result for result in results if result.pitfall.symptom == symptom]
        if found:
            console.print(Text(symptom, style="bold"))
        for result in found:
            console.print(Text(f"  {result.pitfall.name:{NAME - 2}}{line(result)}"), soft_wrap=True)
    console.print()


def _numbers(result: Result) -> str:
    first = result.first()
    losses = [_most_apart(result, metric) for metric in ("loss", "val_loss")]
    figures = [f"{text:>{FIGURE}}" for text in (*losses, _short(result.weights_apart()))]
    return f"{''.join(figures)}  {_when(first) if first else 'nowhere'}"


def _costs(result: Result) -> str:
    counts, counted = result.counts, result.pitfall.counted
    if not counts:
        grown = {name: result.growth(name) for name in (WRONG, FIT)}
        counts = {name: growth.tensors for name, growth in grown.items()}
        counted = f"tensors kept, {grown[WRONG].bytes:,} bytes"
    slower = result.slower() if result.pitfall.timed else None
    time = "-" if slower is None else f"{slower:.0f} x" if slower >= 10 else f"{slower:.2g} x"
    return f"{counts[WRONG]:>{COUNT}}{counts[FIT]:>{COUNT}}{time:>{TIMES}}  {counted}"


def print_pitfall(console: Console, result: Result) -> None:
    """The paragraph, both pieces, the effect by epoch, Keras's place, the thread."""
    pitfall = result.pitfall
    console.print(Text(f"{pitfall.name}: {pitfall.title}\n", style="bold"))
    _print_text(console, pitfall.paragraph)
    _print_pieces(console, pitfall)
    _print_epochs(console, result)
    _print_checks(console, result)
    if result.counts:
        counts = ", ".join(f"{name} {count}" for name, count in result.counts.items())
        _print_text(console, f"Counted, {pitfall.counted}: {counts}.")
    if result.alive.get(FIT):
        _print_memory(console, result)
    if pitfall.timed:
        slower = f"{result.slower():.3g}"
        text = (
            f"The wrong clock tells {slower} times what the right one does"
            if pitfall.timed == BY_ITS_CLOCK
            else f"The wrong loop took {slower} times as long as the right one for {pitfall.timed}"
        )
        _print_text(console, f"{text}; measured once, on this machine.")
    _print_places(console, pitfall)


def _print_sum(console: Console, results: list[Result]) -> None:
    caught = [result for result in results if result.caught]
    equal = [result for result in results if result.pitfall.equal]
    same = [result for result in equal if result.right.match]
    missed = [result.pitfall.name for result in results if not result.caught]
    style = "bold green" if not missed and len(same) == len(equal) else "bold red"
    text = (
        f"Detected: {len(caught)} of {len(results)}. The right loop equals fit (0 ULP) in "
        f"{len(same)} of {len(equal)} seeded experiments."
    )
    if missed:
        text += f" Not detected: {', '.join(missed)}."
    _print_text(console, text, style)


def _print_pieces(console: Console, pitfall: Pitfall) -> None:
    right = pitfall.edit.find()
    place = f"{right.file}:{right.first}, {right.function}"
    console.print(Text(f"- wrong, + right: {place}", style="bold"))
    for sign, line in mending_diff(pitfall):
        _print_line(console, sign, line, {"-": "red", "+": "green"}.get(sign, ""))
    console.print()


def mending_diff(pitfall: Pitfall) -> Iterator[tuple[str, str]]:
    """The lines of both pieces as a diff that mends the loop: sign (" ", "-" or "+") and line."""
    wrong_lines = textwrap.dedent(pitfall.edit.wrong.strip("\n")).splitlines()
    right_lines = pitfall.edit.find().text.splitlines()
    matcher = difflib.SequenceMatcher(None, wrong_lines, right_lines, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        changed = kind != "equal"
        for line in wrong_lines[a:b]:
            yield "-" if changed else " ", line
        for line in right_lines[c:d] if changed else ():
            yield "+", line


def _print_line(console: Console, sign: str, line: str, style: str) -> None:
    console.print(Text(f"  {sign} {line}".rstrip(), style=style), soft_wrap=True)


def _print_epochs(console: Console, result: Result) -> None:
    rows = []
    metrics = list(result.runs[FIT].history)
    for metric in [m for m in metrics if "loss" in m] + [m for m in metrics if "loss" not in m]:
        ulp = result.ulp(WRONG, metric), result.ulp(RIGHT, metric)
        values = [result.runs[name].history[metric] for name in (FIT, WRONG)]
        for row, (epoch, fit, wrong, *ulps) in enumerate(
            zip(result.epochs, *values, *ulp, strict=True)
        ):
            label = metric if row == 0 else ""
            figures = [str(np.float32(fit)), str(np.float32(wrong)), _short(wrong - fit)]
            rows.append([label, str(epoch), *figures, *map(_ulp, ulps)])
    headers = ["", "epoch", "fit", "wrong loop", "apart", "ULP", "right: ULP"]
    console.print(plain_table(headers, rows))


def _print_checks(console: Console, result: Result) -> None:
    rows = [
        [right.name, f"{right.values:,}", _ulp(right.ulp), _ulp(wrong.ulp)]
        for right, wrong in zip(result.right.checks, result.wrong.checks, strict=True)
    ]
    headers = ["ULP apart from fit", "values", RIGHT, WRONG]
    console.print(plain_table(headers, rows))
    first = result.first()
    if first is not None:
        _print_text(console, f"The wrong loop differs first in {first.name}: {_from_one(first)}.")
    if not result.pitfall.equal:
        _print_text(console, "This experiment has no seed: two runs of fit differ as well.")


def _print_places(console: Console, pitfall: Pitfall) -> None:
    place = pitfall.keras.find()
    console.print(Text(f"In Keras {keras.__version__}", style="bold"))
    console.print(Text(f"  {place.file}:{place.first}, {place.function}"), soft_wrap=True)
    console.print(Text(f"  {place.text}\n"), soft_wrap=True)
    console.print(Text("Reported in", style="bold"))
    if pitfall.thread is None:
        console.print(Text("  No public thread was found.\n"))
    else:
        console.print(Text(f"  {pitfall.thread.url}"), soft_wrap=True)
        _print_text(console, pitfall.thread.says, indent="  ")


def _print_text(console: Console, text: str, style: str = "", indent: str = "") -> None:
    width = min(console.width, WIDEST)
    filled = textwrap.fill(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent
    )
    console.print(Text(filled + "\n", style=style), soft_wrap=True)


CALL = re.compile(r"(?:epoch (\d+), )?on_(train|test)_batch_end\((\d+)\)")


def _when(check: Check) -> str:
    """The batch after which the logs differ, counted from 1; else the kind of thing compared."""
    place = CALL.match(check.first or "")
    if place is None:
        return check.name
    epoch, kind, batch = place.groups()
    if epoch is None:
        return f"evaluate, batch {int(batch) + 1}"
    part = "" if kind == "train" else "val "
    return f"epoch {int(epoch) + 1}, {part}batch {int(batch) + 1}"


def _from_one(check: Check) -> str:
    """What differs first, with epochs and batches counted from 1."""
    return CALL.sub(lambda _: _when(check), check.first or "", count=1)


def _print_memory(console: Console, result: Result) -> None:
    """What is alive after each epoch."""
    rows = [
        [f"{what}, {name}", *(f"{getattr(alive, what):,}" for alive in result.alive[name])]
        for what in ("tensors", "bytes")
        for name in (FIT, RIGHT, WRONG)
    ]
    console.print(plain_table(["alive after epoch", *map(str, result.epochs)], rows))
    growth = result.growth(WRONG)
    _print_text(
        console,
        f"From epoch {result.epochs[1]} on, the wrong loop keeps {growth.tensors:,} more tensors, "
        f"{growth.bytes:,} bytes. Counted are the tensors outside graphs that were made in the "
        "training and that Python still holds.",
    )


def _most_apart(result: Result, metric: str) -> str:
    if metric not in result.runs[FIT].history or not result.pitfall.equal:
        return "-"
    return _short(max(result.apart(metric), key=lambda apart: (apart != apart, abs(apart))))


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:+.2g}".replace("+", "") if value > 0 else f"{value:.2g}"


def _ulp(distance: float) -> str:
    return f"{distance:,.0f}" if distance < 1e7 else f"{distance:.1e}"
