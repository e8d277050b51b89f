"""`fit-unfolded bench`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded import workloads
from fit_unfolded.bench.suite import check_suite
from fit_unfolded.cli import options
from fit_unfolded.cli.job import prepare
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory
from fit_unfolded.common.tf_import import import_tensorflow

QUICK = Path("results/bench")


def _resolve(name: str | None) -> str | None:
    return None if name is None else workloads.resolve(name)


def bench(
    workload: Annotated[
        str | None, typer.Argument(metavar="WORKLOAD", callback=_resolve, hidden=True)
    ] = None,
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
            "results/bench; with WORKLOAD, results/bench/WORKLOAD]",
        ),
    ] = None,
) -> None:
    """Measure the throughput of both implementations on this machine, and write a report.

    With WORKLOAD, a name from `fit-unfolded workloads`, or FILE.py, a file with your own model,
    measure that model only, in about two minutes: one step per call and many, with XLA and
    without, and the time to the first step.

    Exit status: 0, or 1 if a figure was refused because the computed losses differ; 2 for invalid
    arguments.
    """
    if workload is not None and (quick or peers):
        option = "--quick" if quick else "--peers"
        raise InputError(f"{option}: measures models of its own; leave it or WORKLOAD out.")
    if quick and peers:
        raise InputError("--peers: not part of --quick; leave one out.")
    if not quick and workload is None:
        check_suite(peers)
    if output is not None:
        check_directory(output, "--output")
    if workload is not None:
        fit = options.fit_arguments(workload, None, None)
        job = prepare(workload, 0, device, memory_growth, 1, None, fit, {})
        from fit_unfolded.bench import own

        if not own.bench(job, output or QUICK / Path(workload).stem):
            raise typer.Exit(1)
        return
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
