"""The terminal page: the verdict, the stages, the cause with the lines of the user's file."""

import textwrap
from pathlib import Path

import keras
from rich.console import Console
from rich.text import Text

from fit_unfolded.check import stages
from fit_unfolded.check.causes import Cause, Departure
from fit_unfolded.check.run import UNDECIDED, Report
from fit_unfolded.common.files import read_source
from fit_unfolded.common.tables import plain_table

WIDEST = 100  # columns that running text is set in
AROUND = 2  # lines of the file before and after the one that is meant
STYLES = {
    stages.EQUAL: "bold green",
    stages.ROUNDING: "bold green",
    stages.DIFFERENT: "bold red",
    UNDECIDED: "bold yellow",
}


def print_page(console: Console, report: Report) -> None:
    """The whole page."""
    title = f"{report.path}: {report.description}".rstrip(": ")
    _print_text(console, title, "bold")
    _print_text(console, verdict_of(report), STYLES[report.verdict])
    if report.stages:
        rows = [
            [stage.name, stage.status, str(stage.line or ""), _measured(stage)]
            for stage in report.stages
        ]
        headers = ["stage", "status", "line", "measured"]
        console.print(plain_table(headers, rows, text=("status", "measured")))
    for departure in report.departures:
        _print_departure(console, report.path, departure, len(report.departures) > 1)
    if report.stages:
        _print_costs(console, report)
    for note in report.notes:
        _print_text(console, note)
    if report.stages:
        _print_text(
            console,
            f"{report.compared} batches in {report.epochs} epochs compared with fit's step from "
            f"the same weights, optimizer state and rows. The loop took "
            f"{report.seconds.get('loop', 0):.1f} s, this check "
            f"{report.seconds.get('check', 0):.1f} s.",
        )


def verdict_of(report: Report) -> str:
    """The verdict as one sentence."""
    return f"{report.verdict}: {_verdict(report)}"


def _verdict(report: Report) -> str:
    if report.verdict == stages.EQUAL:
        return "the loop trains like fit; every compared value is equal to the last bit."
    if report.verdict == stages.ROUNDING:
        return "the loop trains like fit; values differ only by the order of sums."
    if report.stage is None:
        return "it cannot be said whether the loop trains like fit."
    where = f" at step {report.stage.step}" if report.stage.step else ""
    line = f", line {report.stage.line}" if report.stage.line else ""
    cause = f" Cause: {report.causes[0].title}." if len(report.causes) == 1 else ""
    return f"the loop departs from fit in the stage {report.stage.name}{where}{line}.{cause}"


def _measured(stage: stages.Stage) -> str:
    if stage.status == stages.ROUNDING:
        rounding = f"up to {stage.ulp:.2g} ULP"
        return f"{rounding}; {stage.says}" if stage.says else rounding
    return stage.says


def _print_lines(console: Console, path: Path, number: int) -> None:
    """The line of the user's file, with those around it."""
    if not number:
        return
    lines = read_source(path, "FILE")[0].splitlines()
    console.print(Text(f"{path}, line {number}", style="bold"), soft_wrap=True)
    for at in range(max(1, number - AROUND), min(len(lines), number + AROUND) + 1):
        sign = ">" if at == number else " "
        text = f"{sign} {at:4} {lines[at - 1]}".rstrip()
        console.print(Text(text, style="red" if at == number else ""), soft_wrap=True)
    console.print()


def _print_departure(console: Console, path: Path, departure: Departure, several: bool) -> None:
    if several:
        _print_text(console, f"Stage {departure.stage.name}", "bold")
    _print_lines(console, path, departure.stage.line)
    causes = departure.causes
    if not causes:
        text = "No known mistake makes these numbers: the cause is undecided."
        _print_text(console, text, "bold")
    if len(causes) > 1:
        text = f"{len(causes)} known mistakes make these numbers; the cause is undecided."
        _print_text(console, text, "bold")
    for cause in causes:
        _print_cause(console, cause)


def _print_cause(console: Console, cause: Cause) -> None:
    _print_text(console, f"Cause: {cause.title} ({cause.name})", "bold")
    _print_text(console, f"{cause.says[:1].upper()}{cause.says[1:]}.")
    place = cause.keras.find()
    console.print(Text(f"In Keras {keras.__version__}", style="bold"))
    console.print(Text(f"  {place.file}:{place.first}, {place.function}"), soft_wrap=True)
    console.print(Text(f"  {place.text}\n"), soft_wrap=True)
    console.print(Text("Write", style="bold"))
    _print_text(console, cause.write, indent="  ")
    if cause.pitfall:
        _print_text(console, f"More: fit-unfolded pitfalls {cause.name}")


def _print_costs(console: Console, report: Report) -> None:
    """Time and memory: what was measured, and what makes it dear."""
    step, fit = report.measured.get("step_ms"), report.measured.get("fit_step_ms")
    if step is not None:
        beside = "" if fit is None else f"; fit, as a graph: {fit:.3g} ms"
        _print_text(console, f"A batch takes {step:.3g} ms{beside}.")
    for cost in report.costs:
        at = f", line {cost.line}" if cost.line else ""
        _print_text(console, f"Cost in {cost.kind}: {cost.title} ({cost.name}){at}", "bold yellow")
        _print_text(console, f"{cost.says[:1].upper()}{cost.says[1:]}. Write: {cost.write}.")
        if cost.pitfall:
            _print_text(console, f"More: fit-unfolded pitfalls {cost.name}")


def _print_text(console: Console, text: str, style: str = "", indent: str = "") -> None:
    width = min(console.width, WIDEST)
    filled = textwrap.fill(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent
    )
    console.print(Text(filled + "\n", style=style), soft_wrap=True)
