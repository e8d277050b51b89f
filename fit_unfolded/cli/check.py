"""`fit-unfolded check`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded.cli import options
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, check_file
from fit_unfolded.common.tf_import import import_tensorflow
from fit_unfolded.workloads import user_file


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    seed: options.Seed = 0,
    device: options.Device = "auto",
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write an HTML page with the source of all three."),
    ] = None,
    details: options.Details = "",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to write check.json to.")
    ] = None,
) -> None:
    """Compare a training loop of your own with fit, and show where it departs and why.

    FILE is a Python file that defines build(), data(), COMPILE, FIT and train(model, ...).

    Exit status: 0 if the loop trains like fit, to the last bit or to rounding, 1 if it does not or
    if that cannot be decided, 2 for a file that cannot be used.
    """
    user_file.summarize(file)
    if html is not None:
        check_file(html, "--html")
    elif details:
        raise InputError("--details: needs --html FILE, the page that links to them.")
    if output is not None:
        check_directory(output, "--output")
    import_tensorflow()
    from rich.console import Console

    from fit_unfolded.check import check as compare_with_fit
    from fit_unfolded.check.page import print_page
    from fit_unfolded.common.device import use
    from fit_unfolded.common.files import created
    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.common.results import circumstances, write_json

    used = use(device)
    with progress_bars() as bars:
        bars.add_task("check", total=None, note=file.name)
        report = compare_with_fit(file, seed, time_fit=True)
    console = Console()
    print_page(console, report)
    if html is not None:
        from fit_unfolded.check.html import write

        write(report, html, details)
        console.print(f"Written: {html}", markup=False, highlight=False)
    if output is not None:
        with created(output):
            figures = report.figures() | {"seed": seed, "device": used} | circumstances()
            write_json(output / "check.json", figures)
        console.print(f"Written: {output / 'check.json'}", markup=False, highlight=False)
    if not report.passed:
        raise typer.Exit(1)
