"""`fit-unfolded gap`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fit_unfolded.cli import options
from fit_unfolded.cli.job import Job, prepare, run
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, created

RESULTS = Path("results/gap")
REPLAYS = 6  # of most models; only for the progress bar


def gap(
    workload: options.Workload = "digits",
    epoch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=options.integer(1),
            help="Epoch to examine, counted from 1.  [default: the last]",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    data: options.DataFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the results.  [default: results/gap/WORKLOAD]"
        ),
    ] = None,
) -> None:
    """Take the difference between loss, evaluate and val_loss apart, cause by cause.

    WORKLOAD is a name from `fit-unfolded workloads`, or FILE.py, a file with your own model; the
    default is digits. It is trained by fit; then the epoch is replayed, each time with one thing
    changed. The results are gap.json and gap.png in --output.

    Exit status: 0 if the replay equals fit's log, 1 if it does not or if a loss is not finite, 2
    for invalid arguments.
    """
    options.check_data(workload, data)
    fit = options.fit_arguments(workload, None, None)
    if "epochs" in fit:  # of a file, only if it is a literal
        _check_epoch(epoch, fit)
    directory = output or RESULTS / Path(workload).stem
    check_directory(directory, "--output", create_parents=output is None)

    job = prepare(workload, seed, device, False, 1, data, fit, {})
    _check_epoch(epoch, job.fit)
    if not _gap(job, epoch, directory):
        raise typer.Exit(1)


def _check_epoch(epoch: int | None, fit: dict[str, Any]) -> None:
    first, last = fit.get("initial_epoch", 0) + 1, fit.get("epochs", 1)
    if epoch is not None and not first <= epoch <= last:
        raise InputError(
            f"--epoch: the workload trains epochs {first} to {last}; use one of them, not {epoch}."
        )


def _gap(job: Job, epoch: int | None, directory: Path) -> bool:
    """Trains, takes apart, prints and writes; whether the replay equals fit's log."""
    from rich.console import Console

    from fit_unfolded.common.progress_bars import progress_bars
    from fit_unfolded.gap import Snapshots, decompose
    from fit_unfolded.gap.decompose import NotFinite
    from fit_unfolded.gap.page import print_page
    from fit_unfolded.gap.snapshots import State

    console = Console()
    snapshots = Snapshots(epoch)
    with progress_bars() as bars:
        trained = run(job, "keras_fit", bars, callbacks=[snapshots])
        _check_trained(epoch, snapshots.epoch)
        left = State(*([value for _, value in w] for w in (trained.weights, trained.optimizer)))
        task = bars.add_task("replays", total=REPLAYS, note=f"epoch {snapshots.epoch}")
        try:
            found = decompose(
                trained.trainer.model,
                snapshots,
                job.new_data(),
                job.workload.fit | job.fit,
                job.seed,
                left=left if epoch in (None, job.fit.get("epochs", 1)) else None,
                advance=lambda: bars.advance(task),
            )
        except NotFinite as error:
            console.print(f"Epoch {snapshots.epoch}: {error}", markup=False, highlight=False)
            return False
    print_page(console, job.heading(), found)
    _write(console, job, directory, found)
    return found.replay_ulp == 0


def _check_trained(epoch: int | None, last: int) -> None:
    """Refuses an epoch after the one at which a callback stopped the training."""
    if not last:
        number = "any epoch" if epoch is None else f"epoch {epoch}"
        raise InputError(f"--epoch: a callback in FIT stopped the training before {number}.")


def _write(console: Any, job: Job, directory: Path, found: Any) -> None:
    """Writes gap.json and gap.png."""
    from fit_unfolded.common import results
    from fit_unfolded.common.files import replacing
    from fit_unfolded.gap import plot
    from fit_unfolded.gap.page import verdict

    figures = {"verdict": verdict(found)} | found.figures()
    figures = job.figures() | results.circumstances() | figures
    with created(directory):
        results.write_json(directory / "gap.json", figures)
        with replacing(directory / "gap.png") as partial:
            title = f"{job.workload.name}, seed {job.seed}, {job.device}"
            plot.draw(partial, title, found)
    console.print(f"Written: {directory}/gap.json, gap.png", markup=False, highlight=False)
