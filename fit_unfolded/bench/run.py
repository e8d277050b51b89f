"""`fit-unfolded bench --quick`: the main speedups, measured in this process."""

from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import TimeRemainingColumn

from fit_unfolded.bench import cases
from fit_unfolded.bench.environment import environment
from fit_unfolded.bench.measure import LossesDiffer, Ratio
from fit_unfolded.bench.record import record
from fit_unfolded.common import results
from fit_unfolded.common.files import created
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.common.tables import plain_table

HEADERS = ["", "fit", "loop", "speedup", "95 % interval"]
QUICK_SECONDS = 3.0  # per case, without its preparation


def quick(directory: Path) -> bool:
    """Measures the main speedups, prints them, writes `quick.json`; whether none was refused."""
    found = ratios()
    console = Console()
    console.print(plain_table(HEADERS, found.rows))
    for entry in found.refused:
        console.print(f"{entry['case']}: refused, {entry['why']}.", highlight=False)
    figures = {"environment": environment(), "cases": found.records, "refused": found.refused}
    with created(directory):
        results.write_json(directory / "quick.json", figures)
    console.print(f"Samples/s. Written: {directory}/quick.json", markup=False, highlight=False)
    return not found.refused


class Ratios(NamedTuple):
    """What `ratios` measured: records, rows of a table, and which cases were refused and why."""

    records: list[dict[str, Any]]
    rows: list[list[str]]
    refused: list[dict[str, str]]


def ratios() -> Ratios:
    """Measures `cases.quick_cases()`, with a progress bar."""
    found = Ratios([], [], [])
    chosen = cases.quick_cases()
    with progress_bars(TimeRemainingColumn()) as bars:
        task = bars.add_task("bench", total=len(chosen), note="")
        for case in chosen:
            bars.update(task, note=str(case))
            try:
                result = cases.run(case, QUICK_SECONDS, at_least=3, first_steps=0)
            except LossesDiffer as refusal:
                found.refused.append({"case": str(case), "why": str(refusal)})
            else:
                found.records.extend(record(result, variant) for variant in case.variants)
                found.rows.extend(_rows(result))
            bars.advance(task)
    return found


def _rows(result: cases.Result) -> list[list[str]]:
    rows = []
    timings = result.measurement.timings
    for xla in result.case.xla:
        ratio = Ratio(*result.ratios["XLA" if xla else ""])
        names = [str(cases.Variant(side, xla)) for side in cases.TRAINERS]
        speeds = [f"{timings[name].samples_per_second:,.0f}" for name in names]
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}{' unstable' * ratio.unstable}"
        label = f"{result.case}{' XLA' * xla}"
        rows.append([label, *speeds, f"{ratio.value:.2f}", interval])
    return rows
