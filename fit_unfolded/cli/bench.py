"""`fit-unfolded bench`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded.bench.suite import check_suite
from fit_unfolded.cli import options
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory
from fit_unfolded.common.tf_import import import_tensorflow

QUICK = Path("results/bench")


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure the main speedups only, in about 3 minutes.")
    ] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Compare with PyTorch and JAX.")] = False,
    device: options.Device = "auto",
    memory_growth: options.MemoryGrowth = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the results.  [default: benchmarks/results/MACHINE; with --quick, "
            "results/bench]",
        ),
    ] = None,
) -> None:
    """Measure the throughput of both implementations on this machine, and write a report.

    Exit status: 0, or 1 if a figure was refused because the computed losses differ; 2 for invalid
    arguments.
    """
    if quick and peers:
        raise InputError("--peers: not part of --quick; leave one out.")
    if not quick:
        check_suite(peers)
    if output is not None:
        check_directory(output, "--output")
    import_tensorflow()
    from fit_unfolded.common.device import environment, use

    use(device, memory_growth)
    if quick:
        from fit_unfolded.bench import run

        complete = run.quick(output or QUICK)
    else:
        from fit_unfolded.bench.suite import default_directory, suite

        directory = output or default_directory()
        check_directory(directory, "--output", create_parents=output is None)
        complete = suite(directory.resolve(), peers, environment(device, memory_growth))
    if not complete:
        raise typer.Exit(1)
