"""`fit-unfolded bench`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded import workloads
from fit_unfolded.bench.suite import RESULTS, check_packages, check_submission
from fit_unfolded.cli import options
from fit_unfolded.cli.job import prepare
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory
from fit_unfolded.common.tf_import import import_tensorflow

OUTPUT = Path("results/bench")


def _resolve(name: str | None) -> str | None:
    return None if name is None else workloads.resolve(name)


def bench(
    workload: Annotated[
        str | None, typer.Argument(metavar="WORKLOAD", callback=_resolve, hidden=True)
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure the main speedups only, in about 2 minutes.")
    ] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Compare with PyTorch and JAX.")] = False,
    submit: Annotated[
        bool,
        typer.Option(
            "--submit",
            help="Write into benchmarks/results/MACHINE of the checkout, ready to be sent.",
        ),
    ] = False,
    device: options.Device = "auto",
    memory_growth: options.MemoryGrowth = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the results.  [default: results/bench; with WORKLOAD, "
            "results/bench/WORKLOAD; with --submit, benchmarks/results/MACHINE]",
        ),
    ] = None,
) -> None:
    """Measure the throughput of both implementations on this machine, and write a report.

    Each figure comes from several fresh processes, until its 95 % interval is within 5 %.

    With WORKLOAD, a name from `fit-unfolded workloads`, or FILE.py, a file with your own model,
    measure that model only, in about two minutes: one step per call and many, with XLA and
    without, and the time to the first step.

    Exit status: 0, or 1 if a figure was refused because the computed losses differ; 2 for invalid
    arguments.
    """
    if workload is not None and (quick or peers or submit):
        option = "--quick" if quick else "--peers" if peers else "--submit"
        raise InputError(f"{option}: measures models of its own; leave it or WORKLOAD out.")
    if quick and (peers or submit):
        option = "--peers" if peers else "--submit"
        raise InputError(f"{option}: not part of --quick; leave one out.")
    if submit and output is not None:
        raise InputError("--submit: has a directory of its own; leave it or --output out.")
    check_packages(peers)
    if submit:
        check_submission()
    if output is not None:
        check_directory(output, "--output")
    if workload is not None:
        fit = options.fit_arguments(workload, None, None)
        job = prepare(workload, 0, device, memory_growth, 1, None, fit, {})
        from fit_unfolded.bench import own

        if not own.bench(job, output or OUTPUT / Path(workload).stem):
            raise typer.Exit(1)
        return
    import_tensorflow()
    from fit_unfolded.common.device import environment, use

    use(device, memory_growth)
    if quick:
        from fit_unfolded.bench import run

        complete = run.quick(output or OUTPUT)
    else:
        from fit_unfolded.bench.environment import machine_name
        from fit_unfolded.bench.suite import suite

        directory = RESULTS / machine_name() if submit else output or OUTPUT
        check_directory(directory, "--output", create_parents=output is None)
        variables = environment(device, memory_growth)
        complete = suite(directory.resolve(), peers, submit, variables)
    if not complete:
        raise typer.Exit(1)
