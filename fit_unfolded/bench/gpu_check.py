"""`fit-unfolded gpu-check`: parity, tolerances and throughput on one machine's GPU, in one report.

Every workload is trained in every execution mode: by `fit`, by the loop, and by `fit` again from
the same seed, since a GPU may sum in another order each time. It was written without a GPU; with
`--device cpu` all of it runs on a CPU.
"""

import datetime
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fit_unfolded import workloads
from fit_unfolded.bench import cases
from fit_unfolded.bench import run as bench
from fit_unfolded.bench.environment import environment
from fit_unfolded.bench.report import table
from fit_unfolded.common.files import created, replacing
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.comparison.compare import TRAINERS, Comparison, Run, compare, train
from fit_unfolded.workloads import Data, Workload

SEED = 0
EPOCHS = 2
BLOCK = 10


class Way(NamedTuple):
    """One way to train, and the tolerance between fit and the loop.

    Attributes:
        compile: arguments of compile that override the workload's.
        policy: Keras's dtype policy.
        deterministic: under `tf.config.experimental.enable_op_determinism`.
        on_gpu: relative tolerance of the losses of the first epoch on a GPU; None for 0 ULP in
            everything that `compare` compares, as always on a CPU.
    """

    name: str
    compile: dict[str, Any]
    policy: str = "float32"
    deterministic: bool = False
    on_gpu: float | None = 1e-5

    def tolerance(self, device: str) -> float | None:
        """The tolerance on `device`, a name from `device.use`."""
        return self.on_gpu if device.startswith("GPU") else None


GRAPH = {"jit_compile": False}
XLA = {"jit_compile": True}
MULTI_STEP = {"steps_per_execution": BLOCK}
# Determinism comes last, since it cannot be switched off again; under it Keras switches XLA off.
# None of the tolerances on a GPU was measured.
WAYS = (
    Way("eager", {"run_eagerly": True}),
    Way("graph", GRAPH),
    Way("multi-step", GRAPH | MULTI_STEP),
    Way("XLA", XLA),
    Way("XLA, multi-step", XLA | MULTI_STEP),
    Way("mixed_float16", GRAPH, "mixed_float16", on_gpu=1e-2),
    Way("mixed_bfloat16", GRAPH, "mixed_bfloat16", on_gpu=1e-2),
    Way("mixed_float16, XLA", XLA, "mixed_float16", on_gpu=1e-2),
    Way("graph, deterministic", GRAPH, deterministic=True, on_gpu=None),
    Way("multi-step, deterministic", GRAPH | MULTI_STEP, deterministic=True, on_gpu=None),
)


class Parity(NamedTuple):
    """The result for one workload in one way.

    Attributes:
        ulp: the largest distance between fit and loop in anything that `compare` compares.
        again: the same between two runs of fit.
        losses: see `losses_apart`.
        first: the first difference between fit and loop, or the error that ended them; else None.
        tolerance: None for 0 ULP, else of `losses`.
        devices: of the loop's arrays and their order.
        failed: ended by a TensorFlow error.
    """

    workload: str
    way: str
    ulp: float
    again: float
    losses: float
    first: str | None
    tolerance: float | None
    devices: frozenset[str]
    failed: bool = False

    @property
    def within(self) -> bool:
        """Whether fit and the loop differ by no more than the tolerance."""
        return self.ulp == 0 if self.tolerance is None else self.losses <= self.tolerance


def check(path: Path, device: str, mnist: Path | None = None) -> bool:
    """Trains and times everything, and writes the report; whether every check passed.

    Args:
        path: the Markdown file to write.
        device: its name from `device.use`.
        mnist: data file of the workload mnist, which is skipped without one.
    """
    names = [name for name in workloads.names() if name != "mnist" or mnist]
    found = {name: workloads.get(name) for name in names}
    jobs = [(w, w.load(SEED, mnist if name == "mnist" else None)) for name, w in found.items()]
    rows = _parities(jobs, [way for way in WAYS if not way.deterministic], device)
    by_auto = xla_by_auto(jobs[0][0])
    ratios = bench.ratios(cases.quick_cases(), bench.QUICK_SECONDS)
    tf.config.experimental.enable_op_determinism()
    rows += _parities(jobs, [way for way in WAYS if way.deterministic], device)

    # a GPU may sum in another order each time: a figure refused for that is reported, no failure
    right = by_auto == has_gpu() and (device.startswith("GPU") or not ratios.refused)
    good = right and all(row.within for row in rows)
    text = report(device, rows, by_auto, ratios, good)
    with created(path.parent), replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return good


def _parities(jobs: list[tuple[Workload, Data]], ways: Iterable[Way], device: str) -> list[Parity]:
    pairs = [(way, *job) for way in ways for job in jobs]
    rows = []
    with progress_bars() as bars:
        task = bars.add_task("parity", total=len(pairs), note="")
        for way, workload, data in pairs:
            bars.update(task, note=f"{workload.name}, {way.name}")
            try:
                rows.append(parity(workload, data, way, way.tolerance(device)))
            except tf.errors.OpError as error:  # what a GPU cannot run belongs in the report, too
                rows.append(_failed(workload, way, error))
            bars.advance(task)
    return rows


def _failed(workload: Workload, way: Way, error: tf.errors.OpError) -> Parity:
    why = f"{type(error).__name__}: {(error.message or '').partition(chr(10))[0]}"
    return Parity(workload.name, way.name, np.inf, np.inf, np.inf, why, None, frozenset(), True)


def parity(workload: Workload, data: Data, way: Way, tolerance: float | None) -> Parity:
    """Trains by fit, by the loop and by fit again, and compares."""
    with cases.precision(way.policy):

        def trained(side: str) -> Run:
            return train(side, workload, data, SEED, {"epochs": EPOCHS}, way.compile)

        fit, loop, again = map(trained, ("keras_fit", "manual_loop", "keras_fit"))
        comparison = compare(fit, loop)
        return Parity(
            workload=workload.name,
            way=way.name,
            ulp=_largest(comparison),
            again=_largest(compare(fit, again)),
            losses=losses_apart(fit, loop),
            first=None if comparison.match else comparison.verdict,
            tolerance=tolerance,
            devices=_devices(loop.trainer),
        )


def losses_apart(a: Run, b: Run) -> float:
    """The largest relative difference of a loss returned by a call of the first epoch."""
    first, second = (
        np.array([c.logs["loss"] for c in _first_epoch(run) if c.logs]) for run in (a, b)
    )
    if len(first) != len(second):
        return np.inf
    differ = (first != second) & ~(np.isnan(first) & np.isnan(second))
    apart = np.abs(first - second)[differ] / np.abs(first)[differ]
    return float(np.max(np.nan_to_num(apart, nan=np.inf), initial=0.0))


def _first_epoch(run: Run) -> list[Any]:
    end = next(i for i, call in enumerate(run.calls) if call.method == "on_epoch_end")
    return [call for call in run.calls[:end] if call.method == "on_train_batch_end"]


def _largest(comparison: Comparison) -> float:
    return max(check.ulp for check in comparison.checks)


def _devices(trainer: Any) -> frozenset[str]:
    """Of the arrays and the permutation that are bound to the loop's graphs."""
    if not hasattr(trainer, "_function"):
        return frozenset()
    bound_steps = trainer._function("train")._on_arrays.values()
    variables = [v for bound in bound_steps for v in bound._variables]
    return frozenset(v.device.rpartition("device:")[2] for v in variables if v is not None)


def xla_by_auto(workload: Workload) -> bool:
    """Whether `jit_compile="auto"` means XLA here."""
    trainer = TRAINERS["manual_loop"](workload.build())
    trainer.compile(**workload.compile() | {"jit_compile": "auto"})
    return bool(trainer.model.jit_compile)


def has_gpu() -> bool:
    """Whether the machine has one, used or not, from which Keras decides what "auto" means."""
    return bool(tf.config.list_physical_devices("GPU"))


def report(device: str, rows: list[Parity], by_auto: bool, ratios: bench.Ratios, good: bool) -> str:
    """The report in Markdown."""
    on_gpu = device.startswith("GPU")
    what = "a GPU" if on_gpu else "a CPU: nothing here was measured on a GPU"
    seeds = f"{EPOCHS} epochs from seed {SEED}"
    differing = [f"- {row.workload}, {row.way}: {row.first}" for row in rows if row.first]
    refused = [f"- {entry['case']}: refused, {entry['why']}." for entry in ratios.refused]
    parts = [
        f"# Parity and throughput on {device}",
        f"Measured on {what}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, by `fit-unfolded "
        f"gpu-check`, version {version('fit-unfolded')}.",
        "All checks passed." if good else "**Some checks failed, see below.**",
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in machine(device).items()),
        f'- `jit_compile="auto"`: {"XLA" if by_auto else "no XLA"}, which is '
        f"{'right' if by_auto == has_gpu() else '**wrong**'} {'with' if has_gpu() else 'without'} "
        "a GPU in the machine",
        "## Parity",
        f"Each row: {seeds}. ULP: the largest distance in anything that `compare` compares, of "
        "fit from the loop, and of fit from a second run of fit. Losses: the largest relative "
        "difference of a loss of the first epoch between fit and the loop. Arrays: the device of "
        "the loop's arrays.",
        table(
            ["", "ULP", "fit again", "losses", "allowed", "within", "arrays"],
            [_parity_row(row) for row in rows],
        ),
        "\n".join(differing),
        "## Throughput",
        "Samples per second, as in `fit-unfolded bench --quick`. Both read every loss, and the "
        "clock is read after `tf.test.experimental.sync_devices()`.",
        table(bench.HEADERS, ratios.rows),
        "\n".join(refused),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parity_row(row: Parity) -> list[str]:
    if row.failed:
        return [f"{row.workload}, {row.way}", *["failed"] * 3, "", "**no**", ""]
    return [
        f"{row.workload}, {row.way}",
        f"{row.ulp:,.0f}",
        f"{row.again:,.0f}",
        f"{row.losses:.1g}",
        "0 ULP" if row.tolerance is None else f"losses {row.tolerance:g}",
        "yes" if row.within else "**no**",
        ", ".join(sorted(row.devices)) or "eager",
    ]


def machine(device: str) -> dict[str, str]:
    """Hardware and versions, for the report; no host name, no path."""
    found = environment()
    lines = {"processor": f"{found['cpu']}, {found['cores']} cores", "system": found["system"]}
    for gpu in tf.config.get_visible_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ("unknown",))))
        lines[device] = f"compute capability {capability}, {driver()}"
    built = tf.sysconfig.get_build_info()
    for name in ("cuda_version", "cudnn_version"):
        if name in built:
            lines[f"{name.replace('_version', '')} that TensorFlow was built for"] = built[name]
    packages = [f"{name} {number}" for name, number in found["versions"].items()]
    lines["versions"] = ", ".join([*packages, f"Python {found['python']}"])
    lines["flags"] = ", ".join(f"{k}={v}" for k, v in found["flags"].items()) or "none"
    return lines


def driver() -> str:
    """Memory and driver of the GPUs, as `nvidia-smi` reports them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "driver unknown, no nvidia-smi"
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "driver unknown, nvidia-smi failed"
    return "nvidia-smi: " + "; ".join(done.stdout.strip().splitlines())
