"""`fit-unfolded compare`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from fit_unfolded import workloads
from fit_unfolded.cli import options
from fit_unfolded.cli.job import Job, check_replicas, prepare, run
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, created

RESULTS = Path("results/compare")


def compare(
    workload: options.Workload = "digits",
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    memory_growth: options.MemoryGrowth = False,
    replicas: options.Replicas = 1,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=options.integer(1),
            help="Number of processes of the loop on this machine; see `launch`.",
        ),
    ] = 1,
    data: options.DataFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the results.  [default: results/compare/WORKLOAD]"
        ),
    ] = None,
    steps_per_execution: options.StepsPerExecution = None,
    jit: Annotated[
        bool | None, typer.Option("--jit/--no-jit", help="Compile with XLA, or without.")
    ] = None,
    eager: Annotated[
        bool, typer.Option("--eager", help="Run eagerly, without tf.function.")
    ] = False,
    full: options.Full = False,
    ways: Annotated[
        bool,
        typer.Option(
            "--ways", help="Compare fit, a custom train_step, train_on_batch and the manual loop."
        ),
    ] = False,
) -> None:
    """Train WORKLOAD with both implementations and compare every observable value.

    WORKLOAD is a name from `fit-unfolded workloads`, or FILE.py, a file with your own model; the
    default is digits. Both implementations
    start from the same seed. The results are compare.json and compare.png in --output.

    With --workers, the loop runs in several processes, and fit, which fails there, in one process
    with as many replicas.

    With --ways, the same model is trained in four ways, and one table compares them with fit:
    values, throughput, graphs, lines of code. The results are in ways.json, and the exit status is
    1 if the custom train_step or the manual loop differs from fit.

    Exit status: 0 if nothing differs, 1 if anything does, 2 for invalid arguments.
    """
    compile_arguments = options.compile_arguments(steps_per_execution, jit, eager)
    options.check_data(workload, data)
    fit = options.fit_arguments(workload, epochs, batch_size)
    if ways and (workers > 1 or replicas > 1 or full):
        raise InputError("--ways: cannot be combined with --workers, --replicas and --full.")
    if workers > 1:
        _check_workers(replicas, device, compile_arguments)
    parts = max(replicas, workers)
    if parts > 1:
        _check_parts(parts, options.batch_size(fit), compile_arguments)
    directory = output or RESULTS / Path(workload).stem
    check_directory(directory, "--output", create_parents=output is None)

    job = prepare(workload, seed, device, memory_growth, parts, data, fit, compile_arguments)
    if ways:
        match = _compare_ways(job, directory)
    elif workers > 1:
        match = _compare_workers(job, workers, data, directory, full)
    else:
        match = _compare(job, directory, full)
    if not match:
        raise typer.Exit(1)


def _check_parts(parts: int, batch_size: int, compile_arguments: dict[str, Any]) -> None:
    """Refuses that for which Keras's own fit fails on several replicas."""
    given = {
        "--jit": compile_arguments.get("jit_compile"),
        "--steps-per-execution": compile_arguments.get("steps_per_execution", 1) > 1,
    }
    for option, is_given in given.items():
        if is_given:
            raise InputError(
                f"{option}: fit fails with it on several replicas, so there is nothing to compare "
                f"the loop with; leave out {option} or the replicas."
            )
    check_replicas(parts, batch_size)
    if batch_size % parts:
        raise InputError(
            f"--batch-size: fit fails if a batch does not divide evenly among {parts} replicas; "
            f"use a multiple of {parts}, not {batch_size}."
        )


def _check_workers(replicas: int, device: str, compile_arguments: dict[str, Any]) -> None:
    if replicas > 1:
        raise InputError("--replicas: cannot be combined with --workers; leave one out.")
    if compile_arguments:
        raise InputError(
            "--workers: the loop runs as a graph, one step per call; leave out --eager, --jit, "
            "--no-jit and --steps-per-execution."
        )
    if device not in ("auto", "cpu"):
        raise InputError("--workers: several workers of one machine train on its CPU.")


def _compare(job: Job, directory: Path, full: bool) -> bool:
    """Trains both, prints the report and writes the results; whether they match."""
    from rich.console import Console

    from fit_unfolded.bench.measure import LossesDiffer
    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.comparison import report
    from fit_unfolded.comparison.compare import IMPLEMENTATIONS
    from fit_unfolded.comparison.compare import compare as compare_runs

    with progress_bars() as bars:
        a, b = (run(job, implementation, bars) for implementation in IMPLEMENTATIONS)
        comparison = compare_runs(a, b)
        try:
            measurement, unmeasured = _measure(job, [a, b], bars), ""
        except LossesDiffer as error:
            measurement, unmeasured = None, f"No throughput: the losses differ, {error}."

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    report.print_epochs(console, [a, b], full)
    report.print_checks(console, comparison)
    if measurement is not None:
        report.print_throughput(console, measurement)
    else:
        console.print(unmeasured, markup=False, highlight=False)
    report.print_verdict(console, comparison)
    _write(console, job, directory, comparison, measurement, (a, b))
    return comparison.match


def _compare_workers(
    job: Job, workers: int, data: Path | None, directory: Path, full: bool
) -> bool:
    """As `_compare`, with the loop on several workers and fit on as many replicas."""
    from rich.console import Console

    from fit_unfolded.common import launch
    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.comparison import report
    from fit_unfolded.comparison.compare import FirstReplica, apart
    from fit_unfolded.comparison.compare import compare as compare_runs

    arguments = ["train", job.workload.name, f"--seed={job.seed}", "--device=cpu"]
    epochs, batch_size = job.fit.get("epochs", 1), options.batch_size(job.fit)
    arguments += [f"--epochs={epochs}", f"--batch-size={batch_size}"]
    arguments += [] if data is None else [f"--data={data}"]
    with created(directory):
        runs = launch.train(arguments, workers, directory)
    with progress_bars() as bars:
        fit = run(job, "keras_fit", bars, callbacks=[FirstReplica()])
    job = dataclasses.replace(job, device=f"{workers} workers, CPU")
    comparison = compare_runs(fit, runs[0])
    others = [compare_runs(runs[0], other) for other in runs[1:]]
    # with more than two, the order in which gradients are summed differs
    tolerance = 0.0 if workers == 2 else launch.TOLERANCE
    distance = apart(fit, runs[0])
    match = all(other.match for other in others) and distance <= tolerance

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    console.print(
        "Keras's own fit fails under several workers. It is trained here in one process with "
        f"{workers} replicas, the loop with {workers} workers; the global batch is the same.",
        highlight=False,
    )
    report.print_epochs(console, [fit, runs[0]], full)
    report.print_checks(console, comparison)
    for place, other in enumerate(others, start=1):
        console.print(f"Worker {place} against worker 0: {other.verdict}", highlight=False)
    report.print_tolerance(console, comparison, distance, tolerance, match)
    _write(console, job, directory, comparison, None, (fit, runs[0]))
    return match


def _compare_ways(job: Job, directory: Path) -> bool:
    """Trains in every way, prints the table and writes ways.json; whether they match.

    The rounding of train_on_batch's graphs does not count, see `ways_table.LEGEND`.
    """
    from rich.console import Console

    from fit_unfolded.bench.measure import LossesDiffer
    from fit_unfolded.common import results
    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.comparison import ways_table
    from fit_unfolded.comparison.ways import WAYS, check_arguments, ways_of
    from fit_unfolded.workloads.user_file import try_batch

    check_arguments(job.fit)
    ways = ways_of(job.workload.build())
    remarks, measurement = [], None
    if ways.keys() != WAYS.keys():
        remarks.append("The model has steps of its own, which all ways run: fit is a custom step.")
    if workloads.is_file(job.workload.name):
        given = {"x": job.data.x, "y": job.data.y} | job.data.extra
        for way in [way for way in ways if way not in ("fit", "manual loop")]:  # those were tried
            trainer, path = ways[way].trainer, Path(job.workload.name)
            try:
                try_batch(path, way, trainer, job.workload, given, job.fit)
            except InputError as error:
                remarks.append(f"Without {way}: {error}")
                del ways[way]
    counts = {way: ways_table.CountGraphs() for way in ways}
    with progress_bars() as bars:
        runs = {
            way: run(job, way, bars, callbacks=[counts[way]], make_trainer=how.trainer)
            for way, how in ways.items()
        }
        found = ways_table.compare_ways(runs, {way: count.graphs for way, count in counts.items()})
        task = bars.add_task("throughput", total=None, note="alternating")
        try:
            measurement = ways_table.measure_ways(
                found,
                job.new_data(),
                job.fit.get("batch_size"),
                job.seed,
                each_turn=lambda: bars.advance(task),
            )
        except LossesDiffer as error:
            remarks.append(f"No throughput: the losses differ, {error}.")

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    for words in remarks:
        console.print(words, markup=False, highlight=False)
    ways_table.print_table(console, found, measurement)
    figures = {row.way: row.figures(measurement) for row in found}
    with created(directory):
        results.write_json(
            directory / "ways.json", job.figures() | results.circumstances() | {"ways": figures}
        )
    console.print(f"Written: {directory}/ways.json", markup=False, highlight=False)
    return all(row.comparison.match for row in found if row.way != "on batch")


def _measure(job: Job, runs: list[Any], bars: Any) -> Any:
    from fit_unfolded.bench.measure import TURNS, measure

    task = bars.add_task("throughput", total=TURNS * len(runs), note="alternating")
    data = job.new_data()
    extra = {name: value for name, value in data.extra.items() if name != "validation_data"}
    return measure(
        {run.side: run.trainer for run in runs},
        data.x,
        data.y,
        batch_size=job.fit.get("batch_size"),
        seed=job.seed,
        extra=extra,
        each_turn=lambda: bars.advance(task),
    )


def _write(
    console: Any,
    job: Job,
    directory: Path,
    comparison: Any,
    measurement: Any,
    runs: tuple[Any, Any],
) -> None:
    """Writes compare.json and compare.png."""
    from fit_unfolded.common import results
    from fit_unfolded.common.files import replacing
    from fit_unfolded.comparison import plot

    figures = {
        "implementations": {run.side: run.figures() for run in runs},
        "throughput": None if measurement is None else dataclasses.asdict(measurement),
    }
    figures = job.figures() | results.circumstances() | comparison.figures() | figures
    with created(directory):
        results.write_json(directory / "compare.json", figures)
        with replacing(directory / "compare.png") as partial:
            title = f"{job.workload.name}, seed {job.seed}, {job.device}"
            plot.draw(partial, title, *runs, measurement)
    console.print(f"Written: {directory}/compare.json, compare.png", markup=False, highlight=False)
