"""`fit-unfolded pitfalls`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded import pitfalls
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory
from fit_unfolded.common.tf_import import import_tensorflow

RESULTS = Path("results/pitfalls")


def list_pitfalls(
    name: Annotated[str | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the plot.  [default: results/pitfalls]"),
    ] = None,
) -> None:
    """List common mistakes in training loops by symptom, each run against fit and measured.

    With NAME, one of those listed, show that mistake in full, with a plot.

    Exit status: 0 if the comparison detects every mistake and finds the correct loop equal to fit,
    1 if not, 2 for invalid arguments.
    """
    if name is None and output is not None:
        raise InputError(
            "--output: only a single pitfall has a plot; add its name, or leave it out."
        )
    directory = output or RESULTS
    if name is not None:
        pitfalls.check(name)
        check_directory(directory, "--output", create_parents=output is None)
    import_tensorflow()
    from fit_unfolded.pitfalls import run

    if not (run.index() if name is None else run.one(name, directory)):
        raise typer.Exit(1)
