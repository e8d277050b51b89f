"""The terminal reports: a table of all pitfalls, and one pitfall in full."""

import re
import textwrap

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fit_unfolded.common.tables import plain_table
from fit_unfolded.comparison.compare import Check
from fit_unfolded.pitfalls import Pitfall
from fit_unfolded.pitfalls.experiment import FIT, RIGHT, WRONG, Result

WIDEST = 100  # columns that running text is set in


def print_table(console: Console, results: list[Result]) -> None:
    """One line a pitfall: how far the wrong loop is from fit, and where it shows first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("pitfall", no_wrap=True)
    for header in ("loss", "val_loss", "weights"):
        table.add_column(header, justify="right")
    table.add_column("first seen", overflow="fold")
    for result in results:
        table.add_row(
            result.pitfall.name,
            *(_most_apart(result, metric) for metric in ("loss", "val_loss")),
            _short(result.weights_apart()) if result.pitfall.equal else "-",
            _first_seen(result),
        )
    console.print(table)
    _print_text(
        console,
        "Columns loss and val_loss: wrong loop minus fit, after the epoch with the largest "
        "difference. Column weights: the largest final difference. A dash: no such value, or no "
        "seed, so two runs of fit differ as well.",
    )
    _print_sum(console, results)


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
    if pitfall.timed:
        _print_text(
            console,
            f"The wrong loop took {result.slower():.3g} times as long as the right one for "
            f"{pitfall.timed}; measured once, on this machine.",
        )
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
    for name, lines, sign, style in (
        (f"right: {right.file}:{right.first}, {right.function}", right.text, "-", "green"),
        ("wrong", textwrap.dedent(pitfall.edit.wrong.strip("\n")), "+", "red"),
    ):
        console.print(Text(name, style="bold"))
        for line in lines.splitlines():
            console.print(Text(f"  {sign} {line}".rstrip(), style=style), soft_wrap=True)
    console.print()


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
        _print_text(console, f"The wrong loop differs first in {first.name}: {first.first}.")
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


def _first_seen(result: Result) -> str:
    parts = []
    first = result.first()
    if first is not None and result.pitfall.equal:
        parts.append(_when(first))
    if result.counts:
        counts = result.counts
        parts.append(f"{result.pitfall.counted}: {counts[WRONG]}, fit {counts[FIT]}")
    if result.pitfall.timed:
        parts.append(f"time {result.slower():.3g} x")
    return "; ".join(parts) or "nothing"


def _when(check: Check) -> str:
    """The batch after which the logs differ, counted from 1; else the kind of thing compared."""
    place = re.match(r"(?:epoch (\d+), )?on_(train|test)_batch_end\((\d+)\)", check.first or "")
    if place is None:
        return check.name
    epoch, kind, batch = place.groups()
    if epoch is None:
        return f"evaluate, batch {int(batch) + 1}"
    part = "" if kind == "train" else "validation "
    return f"epoch {int(epoch) + 1}, {part}batch {int(batch) + 1}"


def _most_apart(result: Result, metric: str) -> str:
    if metric not in result.runs[FIT].history or not result.pitfall.equal:
        return "-"
    return _short(max(result.apart(metric), key=lambda apart: (apart != apart, abs(apart))))


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:+.2g}".replace("+", "") if value > 0 else f"{value:.2g}"


def _ulp(distance: float) -> str:
    return f"{distance:,.0f}" if distance < 1e7 else f"{distance:.1e}"
