"""`fit-unfolded explain`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded.cli import options
from fit_unfolded.cli.job import Job, prepare
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_file


def explain(
    workload: options.Workload = "digits",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    data: options.DataFile = None,
    full: Annotated[bool, typer.Option("--full", help="Show repeated batches and epochs.")] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Show traced and optimized graphs.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write an HTML page with the source of both."),
    ] = None,
    details: options.Details = "",
) -> None:
    """Show every call that compile and fit make, beside the same call in the loop.

    WORKLOAD is a name from `fit-unfolded workloads`, or FILE.py, a file with your own model; the
    default is digits.

    Exit status: 0 if both make the same calls, 1 if they differ, 2 for invalid arguments.
    """
    options.check_data(workload, data)
    if html is not None:
        check_file(html, "--html")
    elif details:
        raise InputError("--details: needs --html FILE, the page that links to them.")
    fit = options.fit_arguments(workload, None, None)
    job = prepare(workload, seed, device, False, 1, data, fit, {})
    if graph:
        _check_graph(job)
    if not _explain(job, full, graph, html, details):
        raise typer.Exit(1)


def _check_graph(job: Job) -> None:
    """Refuses data that only a user's file can have."""
    if not hasattr(job.data.x, "shape") or set(job.data.extra) - {"validation_data"}:
        raise InputError(
            f"--graph: {job.workload.name} needs x and y as one array each, without weights; leave "
            "out --graph."
        )


def _explain(job: Job, full: bool, graph: bool, html: Path | None, details: str) -> bool:
    """Runs both, prints the report, writes the HTML page; whether they make the same calls."""
    from rich.console import Console

    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.explain import explain as explain_workload
    from fit_unfolded.explain import terminal

    with progress_bars() as bars:
        bars.add_task("explain", total=None, note=job.workload.name)
        explanation = explain_workload(job.workload, job.data, job.seed)
    console = Console()
    terminal.print_heading(console, explanation)
    terminal.print_decisions(console, explanation.compile)
    terminal.print_events(console, explanation, full)
    if graph:
        from fit_unfolded.explain.graph import print_graphs

        with progress_bars() as bars, console.capture() as captured:
            bars.add_task("graphs", total=None, note=job.workload.name)
            print_graphs(console, job.workload, job.data, job.seed)
        print(captured.get(), end="")
    terminal.print_verdict(console, explanation)
    if html is not None:
        from fit_unfolded.explain.html import write

        write(explanation, html, details)
        console.print(f"Written: {html}", markup=False, highlight=False)
    return explanation.difference is None
