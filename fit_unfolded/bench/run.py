"""`fit-unfolded bench`: the whole suite by pytest, or the main ratios at once."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import TimeRemainingColumn

from fit_unfolded import results
from fit_unfolded.bars import progress_bars
from fit_unfolded.bench import cases
from fit_unfolded.bench.environment import environment, machine_name
from fit_unfolded.bench.record import record
from fit_unfolded.bench.report import BENCH, PEERS, write_report
from fit_unfolded.errors import InputError
from fit_unfolded.files import replacing
from fit_unfolded.measure import LossesDiffer, Ratio
from fit_unfolded.report import plain_table

SUITE = Path(__file__).parents[2] / "benchmarks"
HEADERS = ["", "fit", "loop", "loop / fit", "95 % interval"]
QUICK_SECONDS = 3.0  # a case, besides its preparation


def default_directory() -> Path:
    """`benchmarks/results/<machine>` of the checkout.

    Raises:
        InputError: where the package was installed without it.
    """
    if not (SUITE / "pytest.ini").exists():
        raise InputError(
            "bench: the suite lies in the folder benchmarks/ of a checkout, which is not here; "
            "take --quick."
        )
    return SUITE / "results" / machine_name()


def suite(directory: Path, peers: bool, variables: Mapping[str, str]) -> bool:
    """Runs the suite, writes its JSON and the report; whether no figure was refused.

    Args:
        directory: where `bench.json` or, with `peers`, `peers.json` goes, and `report.md`.
        variables: the environment of its process, which says on which device it runs.
    """
    default_directory()
    directory = directory.resolve()
    own = ["test_limit.py", "test_training.py", "test_anatomy.py", "test_memory.py"]
    selected = ["test_peers.py"] if peers else own
    with replacing(directory / (PEERS if peers else BENCH)) as partial:
        command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", *selected]
        command.append(f"--benchmark-json={partial}")
        done = subprocess.run(command, cwd=SUITE, env=variables, check=False)
        if done.returncode not in (0, 1) or not partial.exists():
            raise InputError(f"bench: pytest ended with {done.returncode}; nothing was written.")
    if (directory / BENCH).exists():
        print(f"Written: {write_report(directory)}")
    return done.returncode == 0


def quick(directory: Path) -> bool:
    """Measures the main ratios, prints them and writes `quick.json`; whether none was refused."""
    found = ratios()
    console = Console()
    console.print(plain_table(HEADERS, found.rows))
    for entry in found.refused:
        console.print(f"{entry['case']}: refused, {entry['why']}.", highlight=False)
    figures = {"environment": environment(), "cases": found.records, "refused": found.refused}
    results.write_json(directory / "quick.json", figures)
    console.print(f"Samples/s. Written: {directory}/quick.json", markup=False, highlight=False)
    return not found.refused


class Ratios(NamedTuple):
    """What `ratios` measured: for the record, for the page, and what was refused and why."""

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
