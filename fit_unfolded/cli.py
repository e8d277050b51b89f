"""The command line `fit-unfolded`: compare, train, launch, bench, explain, pitfalls, gpu-check, ...

TensorFlow takes seconds to import: a command makes its quick checks first, and imports inside.
"""

import dataclasses
import os
import pickle
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fit_unfolded import workloads
from fit_unfolded.errors import InputError
from fit_unfolded.files import writable_directory
from fit_unfolded.quiet import import_tensorflow

app = typer.Typer(
    help="Train the same Keras model by compile + fit and by an explicit loop, and compare.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Side(StrEnum):
    """The two ways to train."""

    keras_fit = "keras_fit"
    manual_loop = "manual_loop"


Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help="See `fit-unfolded workloads`.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Instead of the workload's own.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Instead of the workload's own.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of data, weights and shuffles.")]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|gpu|gpu:N", help="Where to train; auto: the first GPU, or CPU."),
]
MemoryGrowth = Annotated[
    bool, typer.Option("--memory-growth", help="Take a GPU's memory as needed, not all at once.")
]
Replicas = Annotated[int, typer.Option(min=1, help="Devices that share each batch.")]
DataFile = Annotated[Path | None, typer.Option(metavar="FILE", help="A .npz file, for mnist.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Batches in one call of the step.")]
Jit = Annotated[bool | None, typer.Option("--jit/--no-jit", help="With XLA, or without.")]
Eager = Annotated[bool, typer.Option("--eager", help="Without tf.function.")]
Full = Annotated[bool, typer.Option("--full", help="Show every epoch.")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Also a page to walk through.")]
Output = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where figures go; results/compare/WORKLOAD.")
]
Record = Annotated[Path | None, typer.Option(metavar="DIR", help="Write train.json there.")]
Backup = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A .npz: back up every epoch, go on from a backup."),
]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes for the loop, on this machine; see `launch`.")
]
KeepRun = Annotated[Path | None, typer.Option(metavar="FILE", hidden=True)]
Save = Annotated[Path | None, typer.Option(metavar="PATH", help="A .keras or .h5 file.")]


@app.command("workloads")
def list_workloads() -> None:
    """List the workloads."""
    for name in workloads.names():
        print(f"{name:<16}{workloads.description(name)}")


@app.command()
def compare(
    workload: Name = "digits",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "auto",
    memory_growth: MemoryGrowth = False,
    replicas: Replicas = 1,
    workers: Workers = 1,
    data: DataFile = None,
    output: Output = None,
    steps_per_execution: Steps = None,
    jit: Jit = None,
    eager: Eager = False,
    full: Full = False,
) -> None:
    """Train WORKLOAD on both sides from one seed; show and write what differs, if anything does.

    With --workers, the loop runs in so many processes, and fit, which cannot, in one, on so many
    replicas.

    Exit status: 0 when nothing differs, 1 when something does, 2 for unusable input.
    """
    workloads.check(workload)
    compile_arguments = _compile_arguments(steps_per_execution, jit, eager)
    if workers > 1:
        _check_workers(replicas, device, compile_arguments)
    parts = max(replicas, workers)
    if parts > 1:
        _check_fit_on_replicas(compile_arguments)
    placed = device, memory_growth, parts
    job = _prepare(workload, seed, placed, data, epochs, batch_size, compile_arguments)
    if job.fit["batch_size"] % parts:
        raise InputError(
            f"--batch-size: Keras's own fit fails where {parts} parts of a batch have different "
            f"sizes; take a multiple of {parts}, not {job.fit['batch_size']}."
        )
    directory = writable_directory(output or Path("results/compare", workload), "--output")
    if workers > 1:
        match = _compare_workers(job, workers, data, directory, full)
    else:
        match = _compare(job, directory, full)
    if not match:
        raise typer.Exit(1)


@app.command()
def train(
    workload: Name = "digits",
    side: Annotated[Side, typer.Option(help="The side to train.")] = Side.manual_loop,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "auto",
    memory_growth: MemoryGrowth = False,
    replicas: Replicas = 1,
    data: DataFile = None,
    steps_per_execution: Steps = None,
    output: Record = None,
    save: Save = None,
    backup: Backup = None,
    keep_run: KeepRun = None,
    full: Full = False,
) -> None:
    """Train WORKLOAD on one side, and save the model if asked.

    With TF_CONFIG set, as one of several workers; the first of them writes and prints.
    """
    workloads.check(workload)
    if save is not None:
        _check_save(save)
    if backup is not None:
        _check_backup(backup)
    placed = device, memory_growth, replicas
    strategy = _meet_workers(
        {
            "WORKLOAD": workload,
            "--side": side.value,
            "--epochs": epochs,
            "--batch-size": batch_size,
            "--seed": seed,
            "--steps-per-execution": steps_per_execution,
            "--backup": backup is not None,
        },
        placed,
    )
    compile_arguments = _compile_arguments(steps_per_execution, None, False)
    job = _prepare(workload, seed, placed, data, epochs, batch_size, compile_arguments)
    directory = None if output is None else writable_directory(output, "--output")
    run = _train(job, side.value, strategy, backup)
    if strategy is not None:
        job = dataclasses.replace(job, device=f"{job.device}, {_workers(strategy)} workers")
    if keep_run is not None:
        _keep_run(run, keep_run, strategy)
    if _is_chief(strategy):
        _show(job, run, save, directory, full)
    else:
        print("Trained. The chief shows and writes the results.")


@app.command("launch")
def launch_workers(
    command: Annotated[
        list[str], typer.Argument(metavar="-- train WORKLOAD ...", help="What each is to run.")
    ],
    workers: Annotated[int, typer.Option(min=1, help="How many.")] = 2,
    logs: Annotated[Path, typer.Option(metavar="DIR", help="One log a worker.")] = Path(
        "results/launch"
    ),
) -> None:
    """Train with several workers on this machine, to try out a training on many.

    When one fails, or on Ctrl-C, all are ended. Exit status: 0, or that of the first that failed.
    """
    from fit_unfolded.launch import launch

    if command[0] != "train":
        raise InputError(f"launch: only `train` can be launched, not `{command[0]}`.")
    directory = writable_directory(logs, "--logs")
    status = launch(command, workers, directory)
    if status:
        raise typer.Exit(status)
    print((directory / "worker-0.log").read_text(encoding="utf-8"), end="")
    print(f"Written: {directory}/worker-*.log")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="The main ratios, in 3 minutes.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="PyTorch and JAX beside them.")] = False,
    device: Device = "auto",
    memory_growth: MemoryGrowth = False,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where figures go.")] = None,
) -> None:
    """Measure the throughput of both sides on this machine, and write a report.

    Exit status: 0, or 1 when a figure was refused because the sides computed different losses.
    """
    if quick and peers:
        raise InputError("--peers: not part of --quick; leave one out.")
    if not quick:
        _check_suite(peers)
    import_tensorflow()
    from fit_unfolded.bench import run
    from fit_unfolded.device import environment, use

    use(device, memory_growth)
    if quick:
        directory = writable_directory(output or Path("results/bench"), "--output")
        complete = run.quick(directory)
    else:
        directory = writable_directory(output or run.default_directory(), "--output")
        complete = run.suite(directory, peers, environment(device, memory_growth))
    if not complete:
        raise typer.Exit(1)


@app.command()
def explain(
    workload: Name = "digits",
    seed: Seed = 0,
    device: Device = "auto",
    data: DataFile = None,
    full: Annotated[bool, typer.Option("--full", help="Unfold what repeats.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="What tf.function makes of it.")] = False,
    html: Html = None,
) -> None:
    """Show what compile and fit do, event by event, beside the loop that does the same.

    Exit status: 0 when both sides do the same, 1 when they do not, 2 for unusable input.
    """
    workloads.check(workload)
    if html is not None:
        from fit_unfolded.explain.html import check

        check(html)
    job = _prepare(workload, seed, (device, False, 1), data, None, None, {})
    if not _explain(job, full, graph, html):
        raise typer.Exit(1)


@app.command("pitfalls")
def list_pitfalls(
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its picture goes; results/pitfalls.")
    ] = None,
) -> None:
    """Known ways to write the loop wrong: each is run against fit, and its effect measured.

    Exit status: 0 when the comparison catches each of them, and finds the right loop equal to fit;
    1 when not, 2 for unusable input.
    """
    from fit_unfolded import pitfalls

    if name is None and output is not None:
        raise InputError("--output: the table has no picture; name a pitfall, or leave it out.")
    if name is not None:
        pitfalls.check(name)
        directory = writable_directory(output or Path("results/pitfalls"), "--output")
    import_tensorflow()
    from fit_unfolded.pitfalls import run

    if not (run.table() if name is None else run.one(name, directory)):
        raise typer.Exit(1)


@app.command("gpu-check")
def check_gpu(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The report, in Markdown.")] = Path(
        "results/gpu-check.md"
    ),
    device: Device = "gpu",
    memory_growth: MemoryGrowth = False,
    data: DataFile = None,
) -> None:
    """Check parity, tolerances and throughput on this machine's GPU; write one report to send.

    mnist is among the workloads if its --data are given.

    Exit status: 0 when all is as it should be, 1 when not, 2 for unusable input or without a GPU.
    """
    if out.is_dir():
        raise InputError(f"--out: {out} is a directory; name a file.")
    import_tensorflow()
    from fit_unfolded.device import use

    used = use(device, memory_growth)
    writable_directory(out.parent, "--out")
    from fit_unfolded import gpu_check

    good = gpu_check.check(out, used, data)
    print(f"Written: {out}")
    if not good:
        raise typer.Exit(1)


def main() -> None:
    """Entry point; what cannot be used becomes one line on standard error and exit status 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ConnectionError as error:  # a worker is gone
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(frozen=True)
class Job:
    """What a command was asked to do, ready to run."""

    workload: workloads.Workload
    data: workloads.Data
    seed: int
    device: str
    fit: dict[str, Any]
    compile: dict[str, Any]
    replicas: int

    def heading(self) -> str:
        """The request in words."""
        request = {"seed": self.seed} | self.fit | self.compile
        settings = ", ".join(f"{name}={value}" for name, value in request.items())
        return f"{self.workload.name}: {self.workload.description}\n{settings}, on {self.device}"

    def figures(self) -> dict[str, Any]:
        """The request, for the record."""
        return {
            "workload": self.workload.name,
            "seed": self.seed,
            "device": self.device,
            "replicas": self.replicas,
            "fit_arguments": self.fit,
            "compile_overrides": self.compile,
        }


def _prepare(
    name: str,
    seed: int,
    placed: tuple[str, bool, int],
    data: Path | None,
    epochs: int | None,
    batch_size: int | None,
    compile_arguments: dict[str, Any],
) -> Job:
    device, memory_growth, replicas = placed
    import_tensorflow()
    from fit_unfolded.device import use

    workload = workloads.get(name)
    asked = {"epochs": epochs, "batch_size": batch_size}
    fit = workload.fit | {key: value for key, value in asked.items() if value is not None}
    if fit["batch_size"] < replicas:
        raise InputError(
            f"--replicas: a batch of {fit['batch_size']} cannot be divided among {replicas}; take "
            "fewer, or a larger --batch-size."
        )
    used = use(device, memory_growth, replicas)
    return Job(
        workload=workload,
        data=workload.load(seed, data),
        seed=seed,
        device=used,
        fit=fit,
        compile=compile_arguments,
        replicas=replicas,
    )


def _compile_arguments(steps: int | None, jit: bool | None, eager: bool) -> dict[str, Any]:
    if eager and jit:
        raise InputError("--eager: cannot go with --jit, which compiles a graph; leave one out.")
    asked = {
        "steps_per_execution": steps,
        "jit_compile": jit,
        "run_eagerly": True if eager else None,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _check_fit_on_replicas(compile_arguments: dict[str, Any]) -> None:
    asked = {
        "--jit": compile_arguments.get("jit_compile"),
        "--steps-per-execution": compile_arguments.get("steps_per_execution", 1) > 1,
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise InputError(
                f"{option}: Keras's own fit fails with it on several replicas, so there is nothing "
                "to compare the loop with; leave out either."
            )


def _check_workers(replicas: int, device: str, compile_arguments: dict[str, Any]) -> None:
    if replicas > 1:
        raise InputError("--replicas: cannot go with --workers; leave one out.")
    if compile_arguments:
        raise InputError("--workers: the loop is run as a graph; leave out how to run a step.")
    if device not in ("auto", "cpu"):
        raise InputError("--workers: several workers of one machine train on its CPU.")


def _check_save(path: Path) -> None:
    if path.suffix not in (".h5", ".keras"):
        raise InputError(f"--save: {path.name} must end in .keras or .h5.")
    if path.is_dir():
        raise InputError(f"--save: {path} is a directory; name a file.")
    writable_directory(path.parent, "--save")


def _check_backup(path: Path) -> None:
    if path.suffix != ".npz":
        raise InputError(f"--backup: {path.name} must end in .npz.")
    writable_directory(path.parent, "--backup")


def _check_suite(peers: bool) -> None:
    extra = "peers" if peers else "test"
    needed = ["pytest_benchmark", *(["torch", "jax", "optax"] if peers else [])]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise InputError(
            f"bench: {', '.join(missing)} not installed; install fit-unfolded[{extra}], or take "
            "--quick, which needs nothing more."
        )


def _compare(job: Job, directory: Path, full: bool) -> bool:
    """Runs both sides, prints the page, writes compare.json and compare.png; whether they match."""
    from fit_unfolded import report
    from fit_unfolded.bars import progress_bars
    from fit_unfolded.compare import SIDES
    from fit_unfolded.compare import compare as compare_runs
    from fit_unfolded.measure import LossesDiffer

    with progress_bars() as bars:
        a, b = (_run(job, side, bars) for side in SIDES)
        comparison = compare_runs(a, b)
        try:
            measurement, unmeasured = _measure(job, [a, b], bars), None
        except LossesDiffer as error:
            measurement, unmeasured = None, f"No throughput, for the work differed: {error}."

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    report.print_epochs(console, [a, b], full)
    report.print_checks(console, comparison)
    if measurement is not None:
        report.print_throughput(console, measurement)
    else:
        console.print(unmeasured, markup=False, highlight=False)
    report.print_verdict(console, comparison)
    _write_comparison(job, directory, comparison, a, b, measurement)
    console.print(f"Written: {directory}/compare.json, compare.png", markup=False, highlight=False)
    return comparison.match


def _compare_workers(
    job: Job, workers: int, data: Path | None, directory: Path, full: bool
) -> bool:
    """As `_compare`, the loop on several workers and fit on as many replicas of one process."""
    from fit_unfolded import launch, report
    from fit_unfolded.bars import progress_bars
    from fit_unfolded.compare import FirstReplica, apart
    from fit_unfolded.compare import compare as compare_runs

    arguments = ["train", job.workload.name, f"--seed={job.seed}", "--device=cpu"]
    arguments += [f"--epochs={job.fit['epochs']}", f"--batch-size={job.fit['batch_size']}"]
    arguments += [] if data is None else [f"--data={data}"]
    runs = launch.train(arguments, workers, directory)
    with progress_bars() as bars:
        fit = _run(job, "keras_fit", bars, callbacks=[FirstReplica()])
    job = dataclasses.replace(job, device=f"{workers} workers, CPU")
    comparison = compare_runs(fit, runs[0])
    others = [compare_runs(runs[0], run) for run in runs[1:]]
    alike = all(other.match for other in others)
    # with more than two, the order in which gradients are added up is another
    tolerance = 0.0 if workers == 2 else launch.TOLERANCE
    match = alike and apart(fit, runs[0]) <= tolerance

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    console.print(
        f"Keras's own fit fails under several workers. Beside {workers} workers of the loop it "
        f"trains in one process, on {workers} replicas: the same global batch.",
        highlight=False,
    )
    report.print_epochs(console, [fit, runs[0]], full)
    report.print_checks(console, comparison)
    for place, other in enumerate(others, start=1):
        console.print(f"Worker {place} against worker 0: {other.verdict}", highlight=False)
    report.print_tolerance(console, comparison, apart(fit, runs[0]), tolerance, match)
    _write_comparison(job, directory, comparison, fit, runs[0], None)
    console.print(f"Written: {directory}/compare.json, compare.png", markup=False, highlight=False)
    return match


def _write_comparison(
    job: Job, directory: Path, comparison: Any, a: Any, b: Any, measurement: Any
) -> None:
    """Writes compare.json and compare.png."""
    from fit_unfolded import plot, results
    from fit_unfolded.files import replacing

    results.write_json(
        directory / "compare.json",
        job.figures()
        | results.circumstances()
        | results.comparison_figures(comparison)
        | {
            "sides": {run.side: results.run_figures(run) for run in (a, b)},
            "throughput": results.throughput_figures(measurement),
        },
    )
    with replacing(directory / "compare.png") as partial:
        title = f"{job.workload.name}, seed {job.seed}, {job.device}"
        plot.draw(partial, title, a, b, measurement)


def _explain(job: Job, full: bool, graph: bool, html: Path | None) -> bool:
    """Runs both sides, prints the page, writes the HTML page; whether they do the same."""
    from fit_unfolded.explain import explain as explain_workload
    from fit_unfolded.explain import terminal

    explanation = explain_workload(job.workload, job.data, job.seed)
    console = Console()
    terminal.print_heading(console, explanation)
    terminal.print_decisions(console, explanation.compile)
    terminal.print_events(console, explanation, full)
    if graph:
        from fit_unfolded.explain.graph import print_graphs

        print_graphs(console, job.workload, job.data, job.seed)
    terminal.print_verdict(console, explanation)
    if html is not None:
        from fit_unfolded.explain.html import write

        write(explanation, html)
        console.print(f"Written: {html}", markup=False, highlight=False)
    return explanation.difference is None


def _meet_workers(facts: dict[str, Any], placed: tuple[str, bool, int]) -> Any:
    """The strategy of the workers that TF_CONFIG names, once all are there; None without it.

    Args:
        facts: options that must be alike on all workers.
    """
    if "TF_CONFIG" not in os.environ:
        return None
    if facts["--side"] != Side.manual_loop:
        raise InputError("--side: Keras's own fit fails under several workers; take manual_loop.")
    import_tensorflow()
    from fit_unfolded.device import use
    from manual_loop.distribution.multi_worker import multi_worker_strategy

    use(*placed)
    try:
        return multi_worker_strategy(facts)
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


def _train(job: Job, side: str, strategy: Any, backup: Path | None) -> Any:
    from fit_unfolded.bars import progress_bars

    callbacks = []
    if backup is not None:
        from manual_loop.saving.backup import Backup

        callbacks.append(Backup(backup))
    with progress_bars() as bars:
        return _run(job, side, bars, strategy, callbacks)


def _keep_run(run: Any, path: Path, strategy: Any) -> None:
    """Writes what `compare` looks at to `path`, to which the worker's place is added."""
    from fit_unfolded.files import replacing
    from manual_loop.distribution.multi_worker import cluster_of

    with replacing(path.with_name(f"{path.name}-{cluster_of(strategy).place}")) as partial:
        partial.write_bytes(pickle.dumps(dataclasses.replace(run, trainer=None)))


def _show(job: Job, run: Any, save: Path | None, directory: Path | None, full: bool) -> None:
    from fit_unfolded import report, results

    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    report.print_epochs(console, [run], full)
    report.print_evaluation(console, run)
    if save is not None:
        run.trainer.save(save)
        console.print(f"Saved: {save}", markup=False, highlight=False)
    if directory is not None:
        figures = job.figures() | results.circumstances() | {"side": run.side}
        results.write_json(directory / "train.json", figures | results.run_figures(run))
        console.print(f"Written: {directory}/train.json", markup=False, highlight=False)


def _run(job: Job, side: str, bars: Any, strategy: Any = None, callbacks: Any = ()) -> Any:
    from fit_unfolded.compare import train as train_side
    from fit_unfolded.progress import PROGRESS, EpochProgress, EpochReport
    from manual_loop.distribution.replicas import mirrored_strategy

    if strategy is None and job.replicas > 1:
        strategy = mirrored_strategy(job.replicas)
    epochs = job.fit["epochs"]
    watchers = [EpochProgress(bars, side, epochs), *callbacks]
    if PROGRESS in os.environ:
        watchers.append(EpochReport(epochs))
    arguments = (job.workload, job.data, job.seed, job.fit, job.compile, watchers)
    return train_side(side, *arguments, strategy=strategy)


def _measure(job: Job, runs: list[Any], bars: Any) -> Any:
    from fit_unfolded.measure import TURNS, measure

    task = bars.add_task("throughput", total=TURNS * len(runs), note="in turns")
    return measure(
        {run.side: run.trainer for run in runs},
        job.data.x,
        job.data.y,
        batch_size=job.fit["batch_size"],
        seed=job.seed,
        each_turn=lambda: bars.advance(task),
    )
