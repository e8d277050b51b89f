"""The terminal page: losses and metrics side by side, what was compared, throughput, verdict."""

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fit_unfolded.compare import Comparison, Run
from fit_unfolded.measure import Measurement
from fit_unfolded.ulp import log_distance

SHOWN_AT_EACH_END = 5


def print_epochs(console: Console, runs: list[Run], full: bool) -> None:
    """One block an epoch: each side's loss and metrics, and the ULP apart where there are two.

    Of more than eleven epochs the middle is left out, unless `full`.
    """
    names = list(runs[0].history)
    table = _table("epoch", "side", *names)
    epochs = len(runs[0].history["loss"])
    skipped = range(SHOWN_AT_EACH_END, epochs - SHOWN_AT_EACH_END)
    fold = not full and len(skipped) > 1
    for epoch in range(epochs):
        if fold and epoch in skipped:
            if epoch == skipped[0]:
                table.add_row("...", f"{len(skipped)} epochs", *["..."] * len(names))
                if len(runs) == 2:
                    table.add_section()
            continue
        for run in runs:
            label = str(epoch + 1) if run is runs[0] else ""
            table.add_row(label, run.side, *(_shortest(run.history[n][epoch]) for n in names))
        if len(runs) == 2:
            table.add_row("", "ULP apart", *(_epoch_distance(runs, n, epoch) for n in names))
            table.add_section()
    console.print(table)


def print_checks(console: Console, comparison: Comparison) -> None:
    """One line for each kind of thing compared."""
    table = _table("compared", "values", "ULP apart")
    for check in comparison.checks:
        table.add_row(check.name, f"{check.values:,}", _ulp(check.ulp))
    console.print(table)


def print_evaluation(console: Console, run: Run) -> None:
    """Loss and metrics on the test part."""
    figures = ", ".join(f"{name} {_shortest(value)}" for name, value in run.evaluate.items())
    console.print(f"On the test part: {figures}", highlight=False)


def print_throughput(console: Console, measurement: Measurement) -> None:
    """Median epoch, its quartiles and samples a second of both sides, and the ratio."""
    table = _table("throughput", "epoch, ms", "quartiles, ms", "samples/s")
    for name, timing in measurement.timings.items():
        lower, upper = timing.lower_quartile * 1e3, timing.upper_quartile * 1e3
        table.add_row(
            name,
            f"{timing.median * 1e3:.1f}",
            f"{lower:.1f} to {upper:.1f}",
            f"{timing.samples_per_second:,.0f}",
        )
    console.print(table)
    first, second = measurement.timings
    low, high = measurement.interval
    counted = len(measurement.timings[first].seconds)
    console.print(
        f"{second} trains {measurement.ratio:.2f} times as fast as {first} "
        f"(95 % interval {low:.2f} to {high:.2f}; {counted} epochs of {measurement.samples:,} "
        "samples a side, run in turns).\n",
        highlight=False,
    )


def print_verdict(console: Console, comparison: Comparison) -> None:
    """The verdict in words."""
    style = "bold green" if comparison.match else "bold red"
    console.print(comparison.verdict, style=style, markup=False, highlight=False)


def print_tolerance(
    console: Console, comparison: Comparison, apart: float, tolerance: float, match: bool
) -> None:
    """The verdict where a tolerance is stated: 0 is none."""
    if tolerance == 0 or not match:
        print_verdict(console, comparison)
        if comparison.match and not match:
            console.print("MISMATCH: the workers differ.", style="bold red")
        return
    console.print(
        f"MATCH: history, variables, evaluate and predict are at most {apart:.1g} apart; the "
        f"stated tolerance is {tolerance:g}.",
        style="bold green",
        highlight=False,
    )


def plain_table(headers: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is text, and whose others are figures."""
    table = _table(*headers)
    for row in rows:
        table.add_row(*row)
    return table


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, header in enumerate(headers):
        text = place == 0 or header == "side"
        table.add_column(header, justify="left" if text else "right", overflow="fold")
    return table


def _shortest(value: float) -> str:
    """The fewest digits that name this float32 and no other."""
    return str(np.float32(value))


def _epoch_distance(runs: list[Run], name: str, epoch: int) -> str:
    a, b = (run.history.get(name, []) for run in runs)
    missing = epoch >= min(len(a), len(b))
    return _ulp(np.inf if missing else log_distance(a[epoch], b[epoch]))


def _ulp(distance: float) -> str:
    return f"{distance:,.0f}"
