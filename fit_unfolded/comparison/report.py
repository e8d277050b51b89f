"""The terminal report: losses and metrics, what was compared, throughput, verdict."""

import numpy as np
from rich.console import Console

from fit_unfolded.bench.measure import Measurement
from fit_unfolded.common.tables import plain_table
from fit_unfolded.comparison.compare import Comparison, Run
from fit_unfolded.comparison.ulp import log_distance

SHOWN_AT_EACH_END = 5


def print_epochs(console: Console, runs: list[Run], full: bool) -> None:
    """The loss and the metrics of each epoch: of one run, or of two side by side.

    An epoch that is equal in both runs has one row; one that differs has a row for each run, and
    one for the distances in ULP. If there are more than eleven epochs, the middle is left out,
    unless `full`.
    """
    names = list(runs[0].history)
    rows: list[list[str]] = []
    epochs = len(runs[0].history["loss"])
    skipped = range(SHOWN_AT_EACH_END, epochs - SHOWN_AT_EACH_END)
    fold = not full and len(skipped) > 1
    for epoch in range(epochs):
        if fold and epoch in skipped:
            if epoch == skipped[0]:
                rows.append(["...", _skipped(runs, names, skipped), *["..."] * len(names)])
        else:
            rows += _epoch_rows(runs, names, epoch)
    console.print(plain_table(["epoch", "implementation", *names], rows, text=("implementation",)))


def _epoch_rows(runs: list[Run], names: list[str], epoch: int) -> list[list[str]]:
    distances = [_epoch_distance(runs, name, epoch) for name in names]
    equal = len(runs) > 1 and not any(distances)
    rows = [[run.side, *(_shortest(run.history[n][epoch]) for n in names)] for run in runs]
    if equal:
        rows = [["both, 0 ULP", *rows[0][1:]]]
    elif len(runs) > 1:
        rows.append(["ULP apart", *map(_ulp, distances)])
    return [[str(epoch + 1) if place == 0 else "", *row] for place, row in enumerate(rows)]


def _skipped(runs: list[Run], names: list[str], epochs: range) -> str:
    differing = sum(any(_epoch_distance(runs, n, epoch) for n in names) for epoch in epochs)
    return f"{len(epochs)} epochs" + (f", {differing} differ" if differing else "")


def print_checks(console: Console, comparison: Comparison) -> None:
    """One row for each kind of value compared."""
    rows = [[check.name, f"{check.values:,}", _ulp(check.ulp)] for check in comparison.checks]
    console.print(plain_table(["compared", "values", "ULP apart"], rows))


def print_evaluation(console: Console, run: Run, test_name: str) -> None:
    """Loss and metrics on the test set, under its name."""
    figures = ", ".join(f"{name} {_shortest(value)}" for name, value in run.evaluate.items())
    console.print(f"{test_name}: {figures}", markup=False, highlight=False)


def print_throughput(console: Console, measurement: Measurement) -> None:
    """Time per epoch and samples per second of both, and the speedup."""
    rows = [
        [
            name,
            f"{timing.median * 1e3:.1f}",
            f"{timing.lower_quartile * 1e3:.1f} to {timing.upper_quartile * 1e3:.1f}",
            f"{timing.samples_per_second:,.0f}",
        ]
        for name, timing in measurement.timings.items()
    ]
    headers = ["throughput", "ms per epoch", "quartiles", "samples/s"]
    console.print(plain_table(headers, rows))
    first, second = measurement.timings
    low, high = measurement.interval
    counted = len(measurement.timings[first].seconds)
    console.print(
        f"Speedup of {second} over {first}: {measurement.ratio:.2f} (95 % interval {low:.2f} to "
        f"{high:.2f}), from {counted} epochs of {measurement.samples:,} samples each, run "
        "alternately.\n",
        highlight=False,
    )


def print_verdict(console: Console, comparison: Comparison) -> None:
    """The verdict in words."""
    style = "bold green" if comparison.match else "bold red"
    console.print(comparison.verdict, style=style, markup=False, highlight=False)


def print_tolerance(
    console: Console, comparison: Comparison, apart: float, tolerance: float, match: bool
) -> None:
    """The verdict with a tolerance; 0 means bit-identical."""
    if tolerance == 0 or not match:
        print_verdict(console, comparison)
        if comparison.match and not match:
            console.print("MISMATCH: the workers differ.", style="bold red")
        return
    console.print(
        f"MATCH: history, variables, evaluate and predict differ by at most {apart:.1g}; the "
        f"tolerance is {tolerance:g}.",
        style="bold green",
        highlight=False,
    )


def _shortest(value: float) -> str:
    """The fewest digits that identify this float32."""
    return str(np.float32(value))


def _epoch_distance(runs: list[Run], name: str, epoch: int) -> float:
    """In ULP, between two runs; 0 for one."""
    a, b = (run.history.get(name, []) for run in (runs[0], runs[-1]))
    missing = epoch >= min(len(a), len(b))
    return np.inf if missing else log_distance(a[epoch], b[epoch])


def _ulp(distance: float) -> str:
    return f"{distance:,.0f}"
