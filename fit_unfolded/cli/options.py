"""Arguments and options that several commands share, with the checks that need no TensorFlow."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fit_unfolded import workloads
from fit_unfolded.common import device as devices
from fit_unfolded.common.errors import InputError
from fit_unfolded.workloads.user_file import DEFAULT_BATCH_SIZE


class Implementation(StrEnum):
    """The two ways to train."""

    keras_fit = "keras_fit"
    manual_loop = "manual_loop"


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""
    numbers = (
        f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    )

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise typer.BadParameter(f"must be {numbers}, not '{text}'")
        return number

    return parse


def implementation(text: str) -> Implementation:
    """A parser of the name of an implementation."""
    if text not in list(Implementation):
        names = " or ".join(Implementation)
        raise typer.BadParameter(f"must be {names}, not '{text}'")
    return Implementation(text)


def _check_device(name: str) -> str:
    devices.gpu_number(name)
    return name


Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        callback=workloads.resolve,
        hidden=True,  # described in the text: Typer would show its type, as <str>
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(metavar="N", parser=integer(1), help="Override the workload's default."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", parser=integer(1), help="Override the workload's default."),
]
Seed = Annotated[
    int, typer.Option(metavar="N", parser=integer(0, 2**31), help="Random seed, 0 to 2147483648.")
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|gpu|gpu:N",
        callback=_check_device,
        help="Device to train on; auto is the first GPU if there is one, else the CPU.",
    ),
]
MemoryGrowth = Annotated[
    bool,
    typer.Option("--memory-growth", help="Allocate GPU memory as needed instead of all at once."),
]
Replicas = Annotated[
    int,
    typer.Option(
        metavar="N",
        parser=integer(1),
        help="Number of devices under MirroredStrategy; on a CPU, logical CPUs.",
    ),
]
DataFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Data file (.npz), for the workload mnist.")
]
Details = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Where the page of docs/details.md is, for the links of --html: relative to FILE, or "
        "a URL.",
    ),
]
StepsPerExecution = Annotated[
    int | None, typer.Option(metavar="N", parser=integer(1), help="Number of steps per call.")
]
Full = Annotated[bool, typer.Option("--full", help="Show every epoch.")]


def check_data(workload: str, path: Path | None) -> None:
    """Checks `--data` as far as that needs no TensorFlow.

    Raises:
        InputError: the workload accepts no file, or there is none.
    """
    if path is None:
        return
    if not workloads.summary(workload).reads_data:
        raise InputError(f"--data: workload '{workload}' brings its own data; leave it out.")
    if not path.is_file():
        raise InputError(f"--data: there is no file {path}.")


def fit_arguments(workload: str, epochs: int | None, batch_size: int | None) -> dict[str, Any]:
    """The workload's arguments of fit, with those of the command line in their place."""
    given = {"epochs": epochs, "batch_size": batch_size}
    overrides = {name: value for name, value in given.items() if value is not None}
    return workloads.summary(workload).fit | overrides


def batch_size(fit: dict[str, Any]) -> int:
    """The batch size among the arguments of fit, or fit's default."""
    return fit.get("batch_size") or DEFAULT_BATCH_SIZE


def compile_arguments(
    steps_per_execution: int | None, jit: bool | None = None, eager: bool = False
) -> dict[str, Any]:
    """The arguments of compile that were given.

    Raises:
        InputError: they exclude each other.
    """
    if eager and jit:
        raise InputError("--eager: cannot be combined with --jit; leave one out.")
    given = {
        "steps_per_execution": steps_per_execution,
        "jit_compile": jit,
        "run_eagerly": True if eager else None,
    }
    return {name: value for name, value in given.items() if value is not None}
