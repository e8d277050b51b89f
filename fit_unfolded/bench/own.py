"""`fit-unfolded bench WORKLOAD`: how much faster one model trains in each execution mode."""

import itertools
import logging
import math
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from rich.console import Console

import keras_fit
import manual_loop
from fit_unfolded.bench.environment import environment
from fit_unfolded.bench.measure import LossesDiffer, Measurement, Ratio, measure
from fit_unfolded.cli.job import Job
from fit_unfolded.common import results
from fit_unfolded.common.files import created
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.common.tables import plain_table
from fit_unfolded.workloads.user_file import (
    DEFAULT_BATCH_SIZE,
    first_batches,
    is_dataset,
    keras_seed,
    one_line,
    rows,
)

# It advises against many traces of one function; here each is a new model's, and wanted.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

TRAINERS: dict[str, Any] = {"fit": keras_fit.Trainer, "loop": manual_loop.Trainer}
MOST_BATCHES = 64  # of a timed epoch, and of a multi-step call
LEAST_TURNS, MOST_TURNS = 3, 15
TURN_SECONDS = 8.0  # of one turn of all variants, at most
TURNS_SECONDS = 40.0  # no turn begins later, once there are enough
QUICK_STEP, PROBED_BATCHES = 0.5, 8  # a step below so many seconds is timed over so many batches
START_SECONDS = 50.0  # no further mode is traced and compiled later
HEADERS = ["", "steps", "samples/s", "speedup", "interval", "start", "pays after"]
LEGEND = """\
Steps: per call. Speedup: over fit with one step per call, without XLA; its 95 % interval.
Start: seconds from compile to the end of the first batch. Pays after: {unit} until the mode
is ahead of fit, its start included; unclear where the interval contains 1."""


class Variant(NamedTuple):
    """One implementation in one execution mode."""

    side: str
    steps: int
    xla: bool

    def __str__(self) -> str:
        words = f"{self.side} XLA" if self.xla else self.side
        return f"{words}, {self.steps} steps per call" if self.steps > 1 else words


@dataclass(frozen=True)
class Row:
    """What was found of one variant.

    Attributes:
        speedup: over fit with one step per call without XLA.
        first_step: seconds from compile to the end of the first batch.
        step: median seconds of one step.
        pays_after: steps after which it is ahead of fit, its first step included; 0 if at once,
            None if it is not faster.
    """

    variant: Variant
    samples_per_second: float
    speedup: Ratio
    first_step: float
    step: float
    pays_after: int | None


class Start(NamedTuple):
    """Seconds from compile to the end of the first batch, and about those of a later step."""

    first_step: float
    step: float


def bench(job: Job, directory: Path) -> bool:
    """Measures `job`'s model in all modes, prints a table, writes `bench.json`.

    Returns:
        Whether fit and loop were equal in every mode, so that there are figures.
    """
    data = job.new_data()
    given = {"x": data.x, "y": data.y} | data.extra
    batch_size = job.fit.get("batch_size")
    size = batch_size or DEFAULT_BATCH_SIZE
    given = first_batches(given, MOST_BATCHES, size)
    with progress_bars() as bars:
        task = bars.add_task("bench", total=None, note="first steps")
        batches = _batches(given, size)
        starts, left_out = _start_all(job, given, size, batches)
        names = [str(variant) for variant in starts]
        batches = _timed_batches(batches, [start.step for start in starts.values()])
        seconds = batches * sum(start.step for start in starts.values())
        bars.update(task, note="alternating")
        try:
            measurement = measure(
                {str(variant): _trainer(job, variant) for variant in starts},
                given["x"],
                given.get("y"),
                batch_size,
                job.seed,
                turns=MOST_TURNS,
                at_least=LEAST_TURNS,
                seconds=TURNS_SECONDS,
                epochs_per_turn=6 if seconds < 1 else 2,
                batches=batches,
                pairs=[(a, b) for a, b in itertools.pairwise(names) if b == _twin(a)],
                extra={n: v for n, v in given.items() if n not in ("x", "y", "shuffle")},
            )
        except LossesDiffer as refusal:
            print(f"No figures: fit and the loop differ, {refusal}.")
            return False
    found = table(measurement, starts, batches)
    epoch = _epoch_steps(job, data)
    _print(job, found, left_out, batches, epoch)
    figures = {
        "environment": environment(),
        "steps_per_epoch": epoch,
        "samples_per_timed_epoch": measurement.samples,
        "turns": measurement.turns,
        "variants": [_figures(row) for row in found],
        "left_out": {str(variant): why for variant, why in left_out.items()},
    }
    with created(directory):
        results.write_json(
            directory / "bench.json", job.figures() | results.circumstances() | figures
        )
    print(f"Written: {directory}/bench.json")
    return True


def variants(block: int) -> list[Variant]:
    """All variants: fit, then the loop, for each mode; multi-step calls if `block` is above 1."""
    steps = [1, block] if block > 1 else [1]
    return [Variant(side, n, xla) for xla in (False, True) for n in steps for side in TRAINERS]


def _twin(name: str) -> str:
    """The loop's name in the same mode."""
    return name.replace("fit", "loop", 1)


def _start_all(
    job: Job, given: Mapping[str, Any], size: int, block: int
) -> tuple[dict[Variant, Start], dict[Variant, str]]:
    """Traces and compiles each variant; those left out, and why.

    fit without XLA must run: an error of it is raised.
    """
    found: dict[Variant, Start] = {}
    left_out: dict[Variant, str] = {}
    begin = time.perf_counter()
    for variant in variants(block):
        twin = Variant("fit", variant.steps, variant.xla)
        if twin in left_out:  # nothing to compare the loop with
            left_out[variant] = left_out[twin]
        elif variant == twin and time.perf_counter() - begin > START_SECONDS:
            left_out[variant] = "no time left"
        else:
            try:
                found[variant] = _start(job, variant, given, size)
            except Exception as error:
                if not variant.xla:
                    raise
                left_out[variant] = one_line(error)
                found.pop(twin, None)
                left_out.setdefault(twin, one_line(error))
    return found, left_out


def _trainer(job: Job, variant: Variant, compiled: bool = True) -> Any:
    """A new trainer, with the same weights each time."""
    keras_seed(job.seed)
    trainer = TRAINERS[variant.side](job.workload.build())
    if compiled:
        trainer.compile(**_compile_arguments(job, variant))
    return trainer


def _compile_arguments(job: Job, variant: Variant) -> dict[str, Any]:
    how = {"run_eagerly": False, "jit_compile": variant.xla, "steps_per_execution": variant.steps}
    return job.workload.compile() | how


def _start(job: Job, variant: Variant, given: Mapping[str, Any], size: int) -> Start:
    trainer = _trainer(job, variant, compiled=False)
    arguments = _compile_arguments(job, variant)

    def seconds(batches: int, before: Callable[[], Any] = lambda: None) -> float:
        part = first_batches(given, batches, size)
        if is_dataset(part["x"]):
            for _ in part["x"]:  # the time of the pipeline itself is not that of the step
                pass
        begin = time.perf_counter()
        before()
        trainer.fit(**part, batch_size=job.fit.get("batch_size"), verbose=0)
        tf.test.experimental.sync_devices()
        return time.perf_counter() - begin

    first_step = seconds(1, lambda: trainer.compile(**arguments))
    step = seconds(1)
    more = min(PROBED_BATCHES, _batches(given, size))
    if step < QUICK_STEP and more > 1:  # mostly the start of fit
        seconds(more)  # traces for this size
        step = max((seconds(more) - step) / (more - 1), step / 10)
    return Start(first_step, step)


def _batches(given: Mapping[str, Any], size: int) -> int:
    if is_dataset(given["x"]):
        return sum(1 for _ in given["x"])
    return math.ceil(rows(given["x"]) / size)


def _timed_batches(batches: int, steps: list[float]) -> int:
    """So many that a turn, two epochs of each variant, does not take too long."""
    return max(1, min(batches, int(TURN_SECONDS / (2 * sum(steps)))))


def _epoch_steps(job: Job, data: Any) -> int | None:
    """Steps of an epoch of the whole training; None for a dataset of unknown length."""
    if job.fit.get("steps_per_epoch"):
        return job.fit["steps_per_epoch"]
    if is_dataset(data.x):
        cardinality = int(data.x.cardinality())
        return cardinality if cardinality > 0 else None
    samples = math.floor(rows(data.x) * (1.0 - (job.fit.get("validation_split") or 0.0)))
    return math.ceil(samples / (job.fit.get("batch_size") or DEFAULT_BATCH_SIZE))


def table(measurement: Measurement, starts: Mapping[Variant, Start], batches: int) -> list[Row]:
    """One row for each variant; the first is fit with one step per call without XLA."""
    reference, *_ = starts
    found = []
    for variant, start in starts.items():
        timing = measurement.timings[str(variant)]
        step = timing.median / batches
        first = starts[reference].first_step
        saved = measurement.timings[str(reference)].median / batches - step
        found.append(
            Row(
                variant,
                timing.samples_per_second,
                measurement.faster(str(variant), str(reference)),
                start.first_step,
                step,
                pays_after(start.first_step - first, saved),
            )
        )
    return found


def pays_after(later: float, saved: float) -> int | None:
    """Steps until a mode that starts `later` seconds, and saves so many per step, is ahead."""
    if saved <= 0:
        return None
    return max(0, math.ceil(later / saved))


def _print(
    job: Job, found: list[Row], left_out: Mapping[Variant, str], batches: int, epoch: int | None
) -> None:
    console = Console()
    console.print(job.heading(), markup=False, highlight=False)
    lines = []
    for row in found:
        ratio = row.speedup
        interval = f"{ratio.low:.3g} to {ratio.high:.3g}"
        reference = row is found[0]
        lines.append(
            [
                row.variant.side + " XLA" * row.variant.xla,
                str(row.variant.steps),
                f"{row.samples_per_second:,.0f}",
                f"{ratio.value:.2f}",
                "" if reference else interval,
                f"{row.first_step:.1f}",
                "" if reference else _after(row, epoch),
            ]
        )
    console.print(plain_table(HEADERS, lines))
    print(textwrap.fill(LEGEND.format(unit="steps" if epoch is None else "epochs"), 80))
    if any(row.speedup.unstable for row in found):
        print("Unstable: an interval extends more than 5 % from its ratio; measure again.")
    for variant, why in left_out.items():
        console.print(f"{variant}: left out, {why.rstrip('.')}.", markup=False, highlight=False)
    best = max(found, key=lambda row: row.speedup.value)
    console.print(
        f"Fastest: {best.variant}, with a speedup of {best.speedup.value:.1f} over fit.",
        highlight=False,
    )
    epochs = job.fit.get("epochs", 1)
    if epoch is not None:
        totals = {row: row.first_step + epochs * epoch * row.step for row in found}
        least = min(found, key=lambda row: totals[row])
        console.print(
            f"Estimated for {_count(epochs, 'epoch')} of {_count(epoch, 'step')}, without "
            "validation: "
            f"{totals[found[0]]:.1f} s with fit, {totals[least]:.1f} s with {least.variant}.",
            highlight=False,
        )
    console.print(
        f"Each timed epoch has the first {batches} batches. In each mode, fit and the loop gave "
        "the same losses and weights, to the last bit.",
        highlight=False,
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _after(row: Row, epoch: int | None) -> str:
    steps = row.pays_after
    if row.speedup.low <= 1 <= row.speedup.high:
        return "unclear"
    if steps is None:
        return "never"
    if steps == 0:
        return "at once"
    return f"{steps:,}" if epoch is None else f"{steps / epoch:,.1f}"


def _figures(row: Row) -> dict[str, Any]:
    return {
        "name": str(row.variant),
        "implementation": row.variant.side,
        "steps_per_execution": row.variant.steps,
        "jit_compile": row.variant.xla,
        "samples_per_second": row.samples_per_second,
        "speedup": list(row.speedup),
        "first_step": row.first_step,
        "step": row.step,
        "pays_after_steps": row.pays_after,
    }
