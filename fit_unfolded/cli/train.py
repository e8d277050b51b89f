"""`fit-unfolded train`."""

import dataclasses
import os
import pickle
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fit_unfolded.cli import options
from fit_unfolded.cli.job import Job, check_replicas, prepare, run
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, check_file, created
from fit_unfolded.common.tf_import import import_tensorflow


def _former_name(value: options.Implementation | None) -> options.Implementation | None:
    if value is not None:
        print(
            "warning: the option --side is now called --implementation; the former name will be "
            "removed in the next version.",
            file=sys.stderr,
        )
    return value


def train(
    workload: options.Workload = "digits",
    implementation: Annotated[
        options.Implementation,
        typer.Option(
            metavar="keras_fit|manual_loop",
            parser=options.implementation,
            help="Implementation to train with.",
        ),
    ] = options.Implementation.manual_loop,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    memory_growth: options.MemoryGrowth = False,
    replicas: options.Replicas = 1,
    data: options.DataFile = None,
    steps_per_execution: options.StepsPerExecution = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to write train.json to.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the model (.keras or .h5).")
    ] = None,
    backup: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Back up after every epoch (.npz), and resume from it if it exists.",
        ),
    ] = None,
    full: options.Full = False,
    side: Annotated[
        options.Implementation | None,
        typer.Option(hidden=True, parser=options.implementation, callback=_former_name),
    ] = None,
    keep_run: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train WORKLOAD with one implementation, and save the model if asked.

    WORKLOAD is a name from `fit-unfolded workloads`, or FILE.py, a file with your own model; the
    default is digits.

    If TF_CONFIG is set, this process is one of several workers; the chief prints and writes the
    results.

    Exit status: 0 if trained, 1 if another worker failed, 2 for invalid arguments.
    """
    implementation = side or implementation
    options.check_data(workload, data)
    fit = options.fit_arguments(workload, epochs, batch_size)
    check_replicas(replicas, options.batch_size(fit))
    if save is not None:
        _check_suffix(save, "--save", ".keras", ".h5")
    if backup is not None:
        _check_suffix(backup, "--backup", ".npz")
    if output is not None:
        check_directory(output, "--output")
    placed = device, memory_growth, replicas
    strategy = _join_workers(
        {
            "WORKLOAD": workload,
            "--implementation": implementation.value,
            "--epochs": epochs,
            "--batch-size": batch_size,
            "--seed": seed,
            "--steps-per-execution": steps_per_execution,
            "--backup": backup is not None,
        },
        placed,
    )
    compile_arguments = options.compile_arguments(steps_per_execution)
    job = prepare(workload, seed, *placed, data, fit, compile_arguments)
    trained = _train(job, implementation.value, strategy, backup)
    if strategy is not None:
        job = dataclasses.replace(job, device=f"{job.device}, {_workers(strategy)} workers")
    if keep_run is not None:
        _keep_run(trained, keep_run, strategy)
    if _is_chief(strategy):
        _show(job, trained, save, output, full)
    else:
        print("Trained. The chief prints and writes the results.")


def _check_suffix(path: Path, option: str, *suffixes: str) -> None:
    if path.suffix not in suffixes:
        raise InputError(f"{option}: {path.name} must end in {' or '.join(suffixes)}.")
    check_file(path, option)


def _join_workers(options_of_all: dict[str, Any], placed: tuple[str, bool, int]) -> Any:
    """The strategy of the workers that TF_CONFIG names, once all are there; None without it.

    Args:
        options_of_all: options that must be equal on all workers.
    """
    if "TF_CONFIG" not in os.environ:
        return None
    if options_of_all["--implementation"] != options.Implementation.manual_loop:
        raise InputError(
            "--implementation: Keras's own fit fails under several workers; use manual_loop."
        )
    import_tensorflow()
    from fit_unfolded.common.device import use
    from manual_loop.distribution.multi_worker import multi_worker_strategy

    use(*placed)
    try:
        return multi_worker_strategy(options_of_all)
    except ValueError as error:
        raise InputError(str(error)) from error


def _is_chief(strategy: Any) -> bool:
    from manual_loop.distribution.multi_worker import cluster_of

    cluster = cluster_of(strategy)
    return cluster is None or cluster.is_chief


def _workers(strategy: Any) -> int:
    from manual_loop.distribution.multi_worker import cluster_of

    cluster = cluster_of(strategy)
    return 1 if cluster is None else len(cluster.addresses)


def _train(job: Job, implementation: str, strategy: Any, backup: Path | None) -> Any:
    from fit_unfolded.common.progress_bars import progress_bars

    callbacks = []
    if backup is not None:
        from manual_loop.saving.backup import Backup

        callbacks.append(Backup(backup))
    with progress_bars() as bars:
        return run(job, implementation, bars, strategy, callbacks)


def _keep_run(trained: Any, path: Path, strategy: Any) -> None:
    """Writes what `compare` compares to `path`, to which the worker's number is added."""
    from fit_unfolded.common.files import replacing
    from manual_loop.distribution.multi_worker import cluster_of

    with replacing(path.with_name(f"{path.name}-{cluster_of(strategy).place}")) as partial:
        partial.write_bytes(pickle.dumps(dataclasses.replace(trained, trainer=None)))


def _show(job: Job, trained: Any, save: Path | None, directory: Path | None, full: bool) -> None:
    from rich.console import Console

    from fit_unfolded.common import results
    from fit_unfolded.comparison import report

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    report.print_epochs(console, [trained], full)
    report.print_evaluation(console, trained, job.data.test_name)
    if save is not None:
        trained.trainer.save(save)
        console.print(f"Saved: {save}", markup=False, highlight=False)
    if directory is not None:
        figures = {"implementation": trained.side} | trained.figures()
        with created(directory):
            results.write_json(
                directory / "train.json", job.figures() | results.circumstances() | figures
            )
        console.print(f"Written: {directory}/train.json", markup=False, highlight=False)
