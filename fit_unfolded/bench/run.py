"""`fit-unfolded bench --quick`: the main speedups, measured in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import TimeRemainingColumn

from fit_unfolded.bench import cases
from fit_unfolded.bench.environment import environment
from fit_unfolded.bench.measure import LossesDiffer, bootstrap
from fit_unfolded.common import results
from fit_unfolded.common.files import created
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.common.tables import plain_table

HEADERS = ["", "fit", "loop", "speedup", "95 % interval"]
QUICK_SECONDS = 8.0  # per case, without its preparation


def quick(directory: Path) -> bool:
    """Measures the main speedups, prints them, writes `quick.json`; whether none was refused."""
    found = ratios(cases.quick_cases(), QUICK_SECONDS)
    console = Console()
    print_ratios(console, found)
    figures = {"environment": environment(), "cases": found.records, "refused": found.refused}
    with created(directory):
        results.write_json(directory / "quick.json", figures)
    console.print(
        "Samples/s. The intervals are of this one process; `fit-unfolded bench` measures several.\n"
        f"Written: {directory}/quick.json",
        markup=False,
        highlight=False,
    )
    return not found.refused


class Ratios(NamedTuple):
    """What `ratios` measured: records, rows of a table, and which cases were refused and why."""

    records: list[dict[str, Any]]
    rows: list[list[str]]
    refused: list[dict[str, str]]

    def _repr_html_(self) -> str:
        """The table of the terminal page, in the cell of a notebook."""
        from fit_unfolded.common.notebook import printed

        return printed(print_ratios, self)


def print_ratios(console: Console, found: Ratios) -> None:
    """The table, and what was refused."""
    console.print(plain_table(HEADERS, found.rows))
    for entry in found.refused:
        console.print(f"{entry['case']}: refused, {entry['why']}.", highlight=False)


def ratios(chosen: Sequence[cases.Case], seconds: float) -> Ratios:
    """Measures the chosen cases in this process, with a progress bar.

    Args:
        seconds: of each case, without its preparation; at least three turns are measured.
    """
    found = Ratios([], [], [])
    with progress_bars(TimeRemainingColumn()) as bars:
        task = bars.add_task("bench", total=len(chosen), note="")
        for case in chosen:
            bars.update(task, note=case.model.name)
            try:
                result = cases.run(case, seconds)
            except LossesDiffer as refusal:
                found.refused.append({"case": case.model.name, "why": str(refusal)})
            else:
                for mode in case.modes:
                    _enter(found, result, mode)
            bars.advance(task)
    return found


def _enter(found: Ratios, result: cases.Result, mode: str) -> None:
    samples = result.case.model.samples
    seconds = {side: result.seconds(cases.Variant(side, mode)) for side in cases.TRAINERS}
    ratio = bootstrap(seconds["fit"], seconds["loop"])
    speeds = {
        side: samples / sorted(table.ravel())[table.size // 2] for side, table in seconds.items()
    }
    label = f"{result.case.model.name} {mode}"
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}{' unstable' * ratio.unstable}"
    found.rows.append(
        [label, *(f"{speed:,.0f}" for speed in speeds.values()), f"{ratio.value:.2f}", interval]
    )
    found.records.append(
        {
            "model": result.case.model.name,
            "mode": mode,
            "samples": samples,
            "samples_per_second": speeds,
            "speedup": list(ratio),
        }
    )
