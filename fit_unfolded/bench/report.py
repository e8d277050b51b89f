"""`report.md`, with its pictures, from the JSON files of the suite; and the speedups in them."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fit_unfolded.bench import plots
from fit_unfolded.bench.environment import BUSY
from fit_unfolded.bench.limit import Limits, Work
from fit_unfolded.bench.measure import Ratio, across
from fit_unfolded.bench.suite import BENCH, PEERS
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import read_bytes, replacing

Process = dict[str, Any]

# Speedups that were aimed at, on two cores of a CPU.
TARGETS = {
    "default": {"lesson": 6.0, "mlp": 2.0, "cnn": 1.3, "transformer": 1.4, "digits": 2.2},
    "default, verbose=1": {
        "lesson": 6.0, "mlp": 2.0, "cnn": 1.3, "transformer": 1.4, "digits": 2.2,
    },
    "short fit": {"lesson": 3.0},
}  # fmt: skip
# The best loop over the best of a peer's variants.
PEER_TARGETS = {"JAX": {"lesson": 1.15, "mlp": 1.0}, "PyTorch": {"mlp": 1.25, "cnn": 1.1}}
FIRST_STEP = 1.1  # time of the loop / time of fit, at most, in any mode

# Modes among which the best of each implementation is sought, see `cases.MODES`.
EXPLICIT = ("step", "block", "block XLA")
FAMILIES = ("fit", "PyTorch", "JAX")

TERMS = """\
- **default**: neither `compile` nor `fit` gets an argument about execution; no callback watches
  batches. `verbose=0`, or `verbose=1` with the progress bar on a terminal. fit runs one step in a
  call; the loop joins as many as take some 50 ms, though not around convolutions
  (`manual_loop/execution/steps_tuner.py`). It does so after 500 single steps, which are trained
  before the clock starts.
- **step**: the same with a callback that reads the loss after each batch, so that each step is a
  call of its own in both.
- **block**: one call for an epoch (`steps_per_execution`), without XLA; **block XLA**: with it.
- **short fit**: a whole call of `fit` with two epochs on 100 rows, by a trainer that has trained
  on them before; the loop still runs single steps there.
- **best**: each implementation in the fastest of step, block and block XLA."""

STEP = """\
One step per call, without XLA. Each part is timed alone in an empty `for` loop, alternating with
whole epochs. The loop adds to its graph only Python: a counter, the callbacks, two logs converted
to floats. A graph called as a function runs its ops in parallel on other threads; called by an op,
it runs them one after the other on the calling thread
(`manual_loop/execution/dispatch.py`). Forward and backward, called as a function here, are the same
ops in both graphs."""

EPOCH = "One epoch in one XLA program, and what is done before and after it."

HOW = """\
## Method

- A case runs in at least three fresh processes, spread over the whole run. In each, all variants of
  a model take turns (fit, loop, fit, loop, ...). A turn is one call of `fit` with four epochs, or
  with two where an epoch takes long; the first epoch and tracing are not
  counted. The clock is read after `tf.test.experimental.sync_devices()`.
- A process gives one speedup: the median, over its turns, of the ratio of neighbors in time. The
  figure is the geometric mean of the processes; the 95 % interval is Student's t interval of their
  logarithms, so it contains the variance between processes (`measure.across` states its limits).
- Processes are added until every interval of the case is within 5 % of its ratio, or the stated
  time is used up; a ratio that is wider then is marked `time limit`.
- No throughput without parity: all losses that callbacks read in all timed epochs, and all weights
  and optimizer variables afterwards, are bit-identical in fit and loop, or the case is refused.
- Time to the first step is measured from `compile` to the end of the first batch, with a new model,
  after another model has been trained: tracing, compilation, start of the input pipeline.
- Peak memory is the resident memory of a separate process; `idle` is its memory before the model
  was built, with TensorFlow and the data loaded.
"""


# Figures --------------------------------------------------------------------------------------


def ratio(processes: Sequence[Process], slow: str, fast: str) -> Ratio:
    """How much faster one variant is than another, from several processes."""
    tables = [(np.array(p["seconds"][slow]), np.array(p["seconds"][fast])) for p in processes]
    return across(tables)


def measured(processes: Sequence[Process]) -> list[Process]:
    """Those that were not refused."""
    return [process for process in processes if "seconds" in process]


def seconds_of(processes: Sequence[Process], name: str) -> float:
    """Median seconds of an epoch: of the medians of the processes."""
    return median(float(np.median(p["seconds"][name])) for p in processes)


def names_of(processes: Sequence[Process]) -> list[str]:
    """The variants that all processes measured."""
    return [n for n in processes[0]["seconds"] if all(n in p["seconds"] for p in processes)]


def fastest(processes: Sequence[Process], names: Sequence[str]) -> str:
    """The variant with the shortest epochs."""
    return min(names, key=lambda name: seconds_of(processes, name))


def speedups(name: str, processes: Sequence[Process]) -> dict[str, Ratio]:
    """The figures of a task for which there are intervals; empty for fewer than two processes.

    Of a model and of a sweep: loop over fit by mode or point, and "best". Of peers: the best loop
    over the best of each family. Of a time to an accuracy: the seconds.
    """
    if name.startswith("target "):
        times = [p["seconds"] for p in processes if "seconds" in p]
        tables = [(np.array([[time]]), np.ones([1, 1])) for time in times]
        return {"seconds": across(tables)} if len(tables) > 1 else {}
    found = measured(processes)
    if len(found) < 2:
        return {}
    names = names_of(found)
    if "apart" in found[0]:
        loop = fastest(found, [n for n in names if n.startswith("loop")])
        families = {f: [n for n in names if n.startswith(f)] for f in FAMILIES}
        best = {family: fastest(found, own) for family, own in families.items() if own}
        return {family: ratio(found, other, loop) for family, other in best.items()}
    modes = [n.removeprefix("fit ") for n in names if n.startswith("fit ")]
    ratios = {mode: ratio(found, f"fit {mode}", f"loop {mode}") for mode in modes}
    if all(mode in modes for mode in EXPLICIT):
        fit, loop = (fastest(found, [f"{s} {m}" for m in EXPLICIT]) for s in ("fit", "loop"))
        ratios["best"] = ratio(found, fit, loop)
    return ratios


@dataclass(frozen=True)
class Suite:
    """The files of one folder of results."""

    bench: dict[str, Any]
    peers: dict[str, Any] | None

    @classmethod
    def read(cls, directory: Path) -> "Suite":
        """Reads `bench.json`, and `peers.json` where it is.

        Raises:
            InputError: a file cannot be read, is no JSON, or no report can be made of it; the
                message names it.
        """
        bench, peers = directory / BENCH, directory / PEERS
        found: list[Any] = []
        try:
            for file in (bench, peers) if peers.exists() else (bench,):
                found.append(json.loads(read_bytes(file, "results", "a JSON file")))
                found[-1]["tasks"]  # an empty list would pass as no peers
                suite = cls(found[0], found[1] if len(found) > 1 else None)
                datetime.date.fromisoformat(suite.bench["date"])
                text(suite)
        except InputError:
            raise
        except Exception as error:  # of any type, where something else is than a report reads
            raise InputError(
                f"{file} is damaged or of another version ({type(error).__name__}: {error}); "
                "measure again, or remove it."
            ) from error
        return suite

    def processes(self, task: str) -> list[Process]:
        """Those of a task that were measured; empty if there are none."""
        return measured(self.bench["tasks"].get(task, {"processes": []})["processes"])

    def only(self, task: str) -> Process:
        """What a task's single process found; empty if it was refused or not run."""
        for process in self.bench["tasks"].get(task, {"processes": []})["processes"]:
            return {} if "refused" in process else process
        return {}

    @cached_property
    def models(self) -> list[str]:
        """Names of the models that were measured, in the order of the suite."""
        return [
            name
            for name, task in self.bench["tasks"].items()
            if any("first_step" in process for process in task["processes"])
        ]

    @cached_property
    def ratios(self) -> dict[str, dict[str, Ratio]]:
        """Loop over fit, by model and mode."""
        return {name: speedups(name, self.processes(name)) for name in self.models}

    @cached_property
    def rivals(self) -> dict[str, list[Process]]:
        """fit, loop and peers, by model."""
        tasks = self.peers["tasks"] if self.peers else {}
        return {
            name: found
            for name, task in tasks.items()
            if not name.startswith("target ") and (found := measured(task["processes"]))
        }

    @cached_property
    def rival_ratios(self) -> dict[str, dict[str, Ratio]]:
        """The best loop over the best of each family, by model."""
        return {name: speedups(name, processes) for name, processes in self.rivals.items()}

    @cached_property
    def targets(self) -> dict[str, list[Process]]:
        """The processes that trained to an accuracy, by implementation."""
        tasks = self.peers["tasks"] if self.peers else {}
        return {
            name.removeprefix("target "): measured(task["processes"])
            for name, task in tasks.items()
            if name.startswith("target ") and measured(task["processes"])
        }

    @cached_property
    def limits(self) -> tuple[Limits, dict[str, Work]]:
        """The machine's own speed, and the work of a step of each model."""
        found = self.only("limit")
        works = {name: Work(**work) for name, work in found.get("work", {}).items()}
        return Limits(found.get("flops", np.nan), found.get("bandwidth", np.nan)), works

    @cached_property
    def unstable(self) -> tuple[int, int]:
        """How many of the ratios are wider than 5 %, and of how many."""
        tables = [*self.ratios.values(), *self.rival_ratios.values()]
        found = [value for table in tables for value in table.values()]
        return sum(value.unstable for value in found), len(found)

    @cached_property
    def refused(self) -> dict[str, str]:
        """Why a figure is missing."""
        found: dict[str, str] = {}
        for file in (self.bench, self.peers or {"tasks": {}}):
            for name, task in file["tasks"].items():
                for process in task["processes"]:
                    why = process.get("refused") or {}
                    found |= {name: why} if isinstance(why, str) else why
        return found


# The page -------------------------------------------------------------------------------------


def write_report(directory: Path) -> Path:
    """Writes `report.md` and its pictures beside the JSON files, and returns its path."""
    suite = Suite.read(directory)
    steps = best_steps(suite) if suite.limits[1] else {}
    pictures = {
        "ratios.png": lambda path: plots.ratios(path, suite.ratios),
        "modes.png": lambda path: plots.modes(path, speeds(suite)),
        "limit.png": lambda path: plots.limit(path, steps, *suite.limits),
        "sweeps.png": lambda path: plots.sweeps(path, sweep_points(suite)),
    }
    for name, draw in pictures.items():
        with replacing(directory / name) as partial:
            draw(partial)
    with replacing(directory / "report.md") as partial:
        partial.write_text(text(suite), encoding="utf-8")
    return directory / "report.md"


def text(suite: Suite) -> str:
    """The report in Markdown."""
    machine = suite.bench["environment"]
    parts = [
        f"# Throughput on {machine['cpu']}, {machine['cores']} cores",
        _circumstances(suite.bench),
        "## Speedup of the loop over fit",
        TERMS,
        _stability(suite),
        _ratios(suite),
        _targets_met(suite),
        "![Speedups with their intervals](ratios.png)",
        "The two larger models show where the speedup tends to 1: their steps take a good part of "
        "a second, of which little is overhead.",
        "## Throughput",
        _throughput(suite),
        "![Samples per second in each mode](modes.png)",
    ]
    if suite.rivals:
        parts += ["## Peers, best against best", _peers(suite)]
    if suite.targets:
        parts += ["## Time to 97 % on digits", _targets(suite)]
    parts += [
        "## Time to the first step",
        _first_steps(suite),
        "## Where the time goes",
        STEP,
        _anatomy(suite, "a step", "µs", 1e6, 0),
        EPOCH,
        _anatomy(suite, "an epoch", "ms", 1e3, 2),
        "## Peak memory, traces",
        _memory(suite),
        _streamed(suite),
        "## Machine limits",
        _limit(suite),
        "![Time per step against the limit](limit.png)",
        "## Where fit's overhead becomes negligible",
        "The mlp, default against default. Unless varied, the batch size is 128 and the width 512. "
        "Varying the width: 2,048 samples; varying the batch size: 32 batches, at most 8,192 "
        "samples.",
        "![Sweeps over batch size and width](sweeps.png)",
        _sweeps(suite),
    ]
    if suite.refused:
        parts += [
            "## Refused",
            "\n".join(f"- {name}: {why}" for name, why in suite.refused.items()),
        ]
    parts.append(HOW)
    if suite.rivals:
        parts.append(_appendix(suite))
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _circumstances(file: dict[str, Any]) -> str:
    machine, start = file["environment"], file["start"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    flags = ", ".join(f"{name}={value}" for name, value in machine["flags"].items()) or "none"
    threads = machine["intra_op_threads"] or "TensorFlow's default"
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return (
        f"Measured {file['date']} in {file['minutes']:.0f} minutes by `{file['command']}`, commit "
        f"{file['commit']}: {packages}, Python {machine['python']} on {machine['system']}; {gpus}; "
        f"threads: {threads}; flags: {flags}. {_start(start, file)}"
        + " **Interrupted**: what is missing was not measured."
        * file.get("interrupted", False)
    )


def _start(start: dict[str, Any], file: dict[str, Any]) -> str:
    if start["busy"] is None:
        return "The system does not tell how busy it was."
    words = (
        f"Other processes used {start['busy']:.0%} of the cores at the start, after a wait of "
        f"{start['waited']} s"
    )
    if (later := _busy_later(file)) is not None:
        words += f", and {later:.0%} in the median before each process"
    if start["frequency"] is not None:
        words += f"; the clock was at {start['frequency']:.0%} of its maximum"
    if is_busy(file):
        words = f"**The machine was busy.** {words}"
    return f"{words}."


def _busy_later(file: dict[str, Any]) -> float | None:
    """The share of the cores that others used before a process, in the median of all of them."""
    shares = [
        process["busy_before"]
        for task in file["tasks"].values()
        for process in task["processes"]
        if process.get("busy_before") is not None
    ]
    return median(shares) if shares else None


def is_busy(file: dict[str, Any]) -> bool:
    """Whether other processes used the cores at the start, although waited for, or later."""
    return max(file["start"]["busy"] or 0.0, _busy_later(file) or 0.0) > BUSY


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column left-aligned, figures right-aligned."""
    rule = [":--", *["--:"] * (len(headers) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headers, rule, *rows])


def _stability(suite: Suite) -> str:
    unstable, count = suite.unstable
    if not unstable:
        return f"All {count} ratios are stable: no 95 % interval extends more than 5 %."
    return (
        f"{unstable} of {count} ratios have a 95 % interval that extends more than 5 % although "
        "their time was used up: they are marked `time limit`."
    )


def show(value: Ratio | None) -> str:
    """A speedup with its interval."""
    if value is None:
        return ""
    mark = " time limit" if value.unstable else ""
    return f"**{value.value:.2f}** ({value.low:.2f} to {value.high:.2f}){mark}"


def _ratios(suite: Suite) -> str:
    modes = list(dict.fromkeys(mode for ratios in suite.ratios.values() for mode in ratios))
    rows = [
        [
            name,
            *(show(ratios.get(mode)) for mode in modes),
            str(len(suite.processes(name))),
            f"{task['used']} of {task['limit']:.0f}",
        ]
        for name, ratios in suite.ratios.items()
        for task in [suite.bench["tasks"][name]]
    ]
    return table(["loop / fit", *modes, "processes", "seconds used"], rows)


def _targets_met(suite: Suite) -> str:
    """A row for each target: what it is, the value with its interval, whether it was met."""
    aims = [
        (f"{name}, {mode}", aim, suite.ratios.get(name, {}).get(mode))
        for mode, models in TARGETS.items()
        for name, aim in models.items()
    ]
    aims += [
        (f"{name}, best loop / best {family}", aim, suite.rival_ratios.get(name, {}).get(family))
        for family, models in PEER_TARGETS.items()
        for name, aim in models.items()
    ]
    rows = [
        [what, f"{aim:.2f}", show(found), "met" if found.value >= aim else "missed"]
        for what, aim, found in aims
        if found is not None
    ]
    if times := first_steps(suite):
        name = max(times, key=lambda name: times[name][1] / times[name][0])
        fit, loop, _ = times[name]
        met = "met" if loop / fit <= FIRST_STEP else "missed"
        what = f"time to the first step, loop / fit, worst: {name}"
        rows.append([what, f"at most {FIRST_STEP:.2f}", f"**{loop / fit:.2f}**", met])
    return (
        "What was aimed at on two cores of a CPU, in float32:\n\n"
        + table(["speedup", "aim", "measured", ""], rows)
        if rows
        else ""
    )


def speeds(suite: Suite) -> dict[str, dict[str, float]]:
    """Samples per second, by model and variant."""
    return {
        name: {
            variant: found[0]["samples"] / seconds_of(found, variant)
            for variant in names_of(found)
            if "short fit" not in variant
        }
        for name in suite.models
        for found in [suite.processes(name)]
    }


def _throughput(suite: Suite) -> str:
    rows = []
    for name, by_variant in speeds(suite).items():
        found = suite.processes(name)
        for mode in dict.fromkeys(variant.partition(" ")[2] for variant in by_variant):
            sides = [f"{side} {mode}" for side in ("fit", "loop")]
            steps = [seconds_of(found, side) / found[0]["steps"] * 1e6 for side in sides]
            rows.append(
                [
                    f"{name}, {mode}",
                    *(f"{by_variant[side]:,.0f}" for side in sides),
                    *(f"{microseconds:,.0f}" for microseconds in steps),
                ]
            )
        if "fit short fit" in found[0]["seconds"]:
            whole = [seconds_of(found, f"{side} short fit") * 1e3 for side in ("fit", "loop")]
            rows.append([f"{name}, short fit, ms a call", "", "", *(f"{ms:,.1f}" for ms in whole)])
    headers = ["", "fit, samples/s", "loop, samples/s", "fit, µs per step", "loop, µs per step"]
    return table(headers, rows)


def _anatomy(suite: Suite, what: str, unit: str, scale: float, digits: int) -> str:
    """A row for each piece, a column for each model."""
    found = suite.only("anatomy").get(what, {})
    pieces = dict.fromkeys(piece for seconds in found.values() for piece in seconds)
    rows = [
        [piece, *(f"{seconds[piece] * scale:,.{digits}f}" for seconds in found.values())]
        for piece in pieces
    ]
    return table([f"{what}, {unit}", *found], rows) if rows else ""


def first_steps(suite: Suite) -> dict[str, tuple[float, float, list[float]]]:
    """By model and mode: median seconds to the first step of fit and of the loop, all ratios."""
    times_of = {}
    for name in suite.models:
        found = suite.processes(name)
        for variant in found[0]["first_step"]:
            side, _, mode = variant.partition(" ")
            if side != "fit":
                continue
            times = [
                [p["first_step"].get(f"{side} {mode}") for p in found] for side in ("fit", "loop")
            ]
            if any(time is None for side_times in times for time in side_times):
                continue
            fit, loop = (median(side_times) for side_times in times)
            each = [b / a for a, b in zip(*times, strict=True)]
            times_of[f"{name}, {mode}"] = fit, loop, each
    return times_of


def _first_steps(suite: Suite) -> str:
    rows = [
        [
            name,
            f"{fit:.2f}",
            f"{loop:.2f}",
            f"{loop / fit:.2f} ({min(each):.2f} to {max(each):.2f})",
        ]
        for name, (fit, loop, each) in first_steps(suite).items()
    ]
    return (
        "Medians of the processes, in seconds; in brackets the range of their ratios.\n\n"
        + table(["first step, s", "fit", "loop", "loop / fit"], rows)
    )


def _memory(suite: Suite) -> str:
    tasks = suite.bench["tasks"]
    rows = []
    on_gpu = False
    for name in tasks:
        if not (name.startswith("memory ") and name.endswith(", fit")):
            continue
        title = name.removeprefix("memory ").removesuffix(", fit")
        fit, loop = (suite.only(f"memory {title}, {side}") for side in ("fit", "loop"))
        if not (fit and loop):
            continue
        on_gpu = "device_bytes" in fit
        rows.append(
            [
                title,
                *(_mib(side["peak_bytes"]) for side in (fit, loop)),
                f"{loop['peak_bytes'] / fit['peak_bytes']:.3f}",
                *(_mib(side["peak_bytes"] - side["idle_bytes"]) for side in (fit, loop)),
                *(str(side["traces"]) for side in (fit, loop)),
                *(_mib(s["device_bytes"]) for s in (fit, loop) if on_gpu),
            ]
        )
    headers = ["peak memory, MiB", "fit", "loop", "loop / fit", "fit above idle", "loop above idle"]
    headers += ["fit traces", "loop traces", *(["fit on the GPU", "loop on the GPU"] * on_gpu)]
    return table(headers, rows)


def _streamed(suite: Suite) -> str:
    found = {side: suite.only(f"stream {side}") for side in ("fit", "loop")}
    if not all(found.values()):
        return ""
    above = {side: entry["peak_bytes"] - entry["idle_bytes"] for side, entry in found.items()}
    return (
        f"An epoch of {_mib(found['loop']['data_bytes'])} MiB, four times the limit for "
        f"device-resident arrays, is streamed in batches. In addition to the data, the process "
        f"needs {_mib(above['fit'])} MiB with fit and {_mib(above['loop'])} MiB with the loop."
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"


def best_steps(suite: Suite) -> dict[str, dict[str, float]]:
    """Seconds of a step by model: the best of fit, of the loop and of each peer."""
    found: dict[str, dict[str, float]] = {}
    for name in suite.models:
        both = [suite.processes(name), suite.rivals.get(name, [])]
        for processes in both:
            for family in ("fit", "loop", "PyTorch", "JAX"):
                names = names_of(processes) if processes else []
                own = [n for n in names if n.startswith(family) and "short fit" not in n]
                if own:
                    best = seconds_of(processes, fastest(processes, own)) / processes[0]["steps"]
                    row = found.setdefault(name, {})
                    row[family] = min(best, row.get(family, np.inf))
    return found


def _limit(suite: Suite) -> str:
    limits, works = suite.limits
    if not works:
        return ""
    rows = []
    for name, steps in best_steps(suite).items():
        work = works[name]
        row = [name, f"{work.flops / 1e6:,.1f}", f"{work.bytes / 2**20:,.1f}"]
        row.append(f"{work.seconds(limits) * 1e6:,.0f}")
        for side in ("fit", "loop"):
            row += [f"{steps[side] * 1e6:,.0f}", f"{work.flops / steps[side] / limits.flops:.1%}"]
        rows.append(row)
    headers = ["", "MFLOP per step", "MiB per step", "limit, µs", "best fit, µs", "of peak"]
    return (
        f"Measured in the same run: {limits.flops / 1e9:,.0f} GFLOP/s in a float32 matrix product, "
        f"{limits.bandwidth / 1e9:,.1f} GB/s between memory and cores. Work per step: 2 m k n for "
        "each matrix product, forward and backward, without the gradient for the first layer's "
        "input, which is not needed; 28 bytes per parameter for Adam, and the batch. The limit is "
        "the longer of both times; data that stay in a cache can be faster than the second.\n\n"
        + table([*headers, "best loop, µs", "of peak"], rows)
    )


def sweep_points(suite: Suite) -> dict[str, list[plots.Point]]:
    """The points of each sweep, by the quantity that varies."""
    found = suite.processes("sweep")
    points: dict[str, list[plots.Point]] = {}
    for label, value in speedups("sweep", found).items():
        quantity, _, number = label.removeprefix("default ").rpartition(" ")
        samples = found[0]["samples"][f"{quantity} {number}"]
        fit, loop = (samples / seconds_of(found, f"{side} {label}") for side in ("fit", "loop"))
        points.setdefault(quantity, []).append(plots.Point(int(number), fit, loop, value))
    return points


def _sweeps(suite: Suite) -> str:
    rows = [
        [f"{name} {p.value:,}", f"{p.fit:,.0f}", f"{p.loop:,.0f}", show(p.ratio)]
        for name, points in sweep_points(suite).items()
        for p in points
    ]
    return table(["samples/s", "fit", "loop", "ratio"], rows)


def _peers(suite: Suite) -> str:
    rows = []
    for name, ratios in suite.rival_ratios.items():
        found = suite.rivals[name]
        best = {
            family: fastest(found, [n for n in names_of(found) if n.startswith(family)])
            for family in ("loop", *ratios)
        }
        named = [f"{show(value)}, {_short(best[family])}" for family, value in ratios.items()]
        rows.append([f"{name}, {best['loop']}", *named, str(len(found))])
    families = list(next(iter(suite.rival_ratios.values())))
    return (
        "The fastest variant of each, found in the same processes; all variants are in the "
        "appendix. Same initial weights and batches; the loss is the only metric; the loss of "
        "every batch of the first epoch is within 1e-5 of Keras's, or the figure is refused.\n\n"
        + _circumstances(suite.peers or {})
        + "\n\n"
        + table(["speedup of the best loop over the best", *families, "processes"], rows)
    )


def _short(name: str) -> str:
    """A variant without its family."""
    return name.partition(" ")[2] or name


def _targets(suite: Suite) -> str:
    rows = []
    for name, processes in suite.targets.items():
        epochs = sorted({len(p["accuracies"]) for p in processes})
        value = speedups(f"target {name}", processes).get("seconds")
        last = f"{processes[0]['accuracies'][-1]:.4f}"
        rows.append([name, show(value), "/".join(map(str, epochs)), last, str(len(processes))])
    counts = {row[2] for row in rows}
    words = "All need the same epochs." if len(counts) == 1 else "**The numbers of epochs differ.**"
    return (
        "Seconds, in a fresh process after the imports: from the model with its weights to 97 % of "
        "the 360 test images right. Tracing, compilation and a test after each epoch are in it. "
        "The network of the workload `digits` without BatchNormalization, Dropout and L2, with the "
        f"same weights and batches everywhere. {words}\n\n"
        + table(["", "seconds", "epochs", "test accuracy", "processes"], rows)
    )


def _appendix(suite: Suite) -> str:
    parts = [
        "## Appendix: all variants of the peers",
        "`apart`: the largest relative difference of a batch's loss from Keras's in the first "
        "epoch. Settings: `fit_unfolded/bench/peers/`.",
    ]
    for name, found in suite.rivals.items():
        times = {variant: seconds_of(found, variant) for variant in names_of(found)}
        names = sorted(times, key=times.__getitem__)
        best = next(times[n] for n in names if n.startswith("loop"))
        rows = [
            [
                variant,
                f"{found[0]['samples'] / times[variant]:,.0f}",
                f"{max(p['apart'][variant] for p in found):.0e}",
                f"{times[variant] / best:.2f}",
            ]
            for variant in names
        ]
        parts.append(table([name, "samples/s", "apart", "time / best loop"], rows))
    return "\n\n".join(parts)
