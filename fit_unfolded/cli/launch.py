"""`fit-unfolded launch`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded.cli import options
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, created

LOGS = Path("results/launch")


def launch(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", hidden=True)],
    workers: Annotated[
        int, typer.Option(metavar="N", parser=options.integer(1), help="Number of workers.")
    ] = 2,
    logs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the workers' logs.  [default: results/launch]"
        ),
    ] = None,
) -> None:
    """Train with several workers on this machine, to try out multi-worker training.

    Each worker runs COMMAND, which must be `train`:
    fit-unfolded launch --workers 2 -- train digits --epochs 2

    If one fails, or on Ctrl-C, all are ended.

    Exit status: 0, or that of the first worker that failed; 2 for invalid arguments.
    """
    from fit_unfolded.common import launch as launcher

    if command[0] != "train":
        raise InputError(f"launch: only `train` can be launched, not `{command[0]}`.")
    directory = logs or LOGS
    check_directory(directory, "--logs", create_parents=logs is None)
    with created(directory):
        status = launcher.launch(command, workers, directory)
    if status:
        raise typer.Exit(status)
    print((directory / "worker-0.log").read_text(encoding="utf-8"), end="")
    print(f"Written: {directory}/worker-*.log")
