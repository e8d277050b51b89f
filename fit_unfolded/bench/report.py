"""`report.md`, with its pictures, from the JSON files that pytest-benchmark wrote."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from fit_unfolded.bench import plots
from fit_unfolded.bench.limit import Limits, Work
from fit_unfolded.bench.measure import Ratio, bootstrap
from fit_unfolded.common.files import replacing

BENCH, PEERS = "bench.json", "peers.json"
Entry = dict[str, Any]

# The models of earlier results under their present names.
RENAMED = {"chapter": "lesson"}

# The targets on a CPU with two cores, float32: by line and model.
BARS = {
    "one step per call, no XLA: loop / fit": {
        "lesson": 4.0, "mlp": 1.7, "cnn": 1.5, "transformer": 1.5,
    },
    "multi-step call, with XLA or without, whichever is faster: loop / fit": {
        "lesson": 13.0, "mlp": 1.9, "cnn": 1.6, "transformer": 2.0,
    },
    "best loop / best PyTorch": {"lesson": 10.0, "mlp": 1.4, "cnn": 1.2},
    "best loop / JAX lax.scan": {"lesson": 1.0, "mlp": 1.0, "cnn": 3.0},
}  # fmt: skip
MOST_FIRST_STEP, MOST_MEMORY = 1.1, 1.05

STEP = """\
One step per call, without XLA. Each part is timed alone in an empty `for` loop, alternating with
whole epochs. The loop adds to its graph only Python: a counter, the callbacks, two logs converted
to floats. A graph called as a function runs its ops in parallel on other threads; called by an op,
it runs them one after the other on the calling thread. The loop calls its graph as a function, and
by an op from the 500th call on if no tensor in the step is large
(`manual_loop/execution/dispatch.py`).
Forward and backward, called as a function here, are the same ops in both graphs."""

EPOCH = """\
One epoch in one XLA program. As in fit, Python resets the metrics before it and reads them after
it, one op at a time, since a metric may run any Python code."""

HOW = """\
## Method

- All figures in a row come from epochs that alternate in one process (fit, loop, fit, loop, ...):
  medians, and a 95 % bootstrap interval of each ratio over whole turns. If an interval extends
  more than 10 % from its ratio, the ratio is marked `unstable`.
- A turn is one call of `fit` with two epochs, or with six for the lesson, whose epochs take
  milliseconds; the first epoch and tracing are not counted. The clock is read after
  `tf.test.experimental.sync_devices()`.
- Execution modes: `eager` is one step per call without a graph, `step` one step per call, `block`
  a multi-step call of one epoch (`steps_per_execution`). In both implementations a callback reads
  every loss that a call returns.
- No throughput without parity: the loss of every batch of the first epoch, all losses returned in
  all timed epochs and all final variables are bit-identical in fit and loop, or the figure is
  refused. Between XLA and no XLA, a batch's loss may differ by rounding, at most 1e-5 of it.
- Time to the first step is measured from `compile` to the end of the first batch, with a new model
  each time: tracing, compilation, start of the input pipeline; the median.
- Peak memory is the resident memory of a separate process; `idle` is its memory before the model
  was built, with TensorFlow and the data loaded.
"""


@dataclass(frozen=True)
class Suite:
    """The entries of one folder of results."""

    bench: dict[str, Any]
    peers: dict[str, Any] | None

    @classmethod
    def read(cls, directory: Path) -> "Suite":
        """Reads `bench.json`, and `peers.json` where it is."""
        texts = {
            name: (directory / name).read_text(encoding="utf-8")
            for name in (BENCH, PEERS)
            if (directory / name).exists()
        }
        return cls(json.loads(texts[BENCH]), json.loads(texts[PEERS]) if PEERS in texts else None)

    @staticmethod
    def _entries(file: dict[str, Any] | None, kind: str) -> list[Entry]:
        found = [] if file is None else file["benchmarks"]
        return [
            _renamed(entry["extra_info"]) | {"seconds": entry["stats"]["data"]}
            for entry in found
            if entry["extra_info"].get("kind") == kind
        ]

    @cached_property
    def training(self) -> list[Entry]:
        """All variants of all cases."""
        return [e for e in self._entries(self.bench, "training") if "sweep" not in e]

    @cached_property
    def sweeps(self) -> list[Entry]:
        """All variants of all points of the sweeps."""
        return [e for e in self._entries(self.bench, "training") if "sweep" in e]

    @cached_property
    def memory(self) -> list[Entry]:
        """Fresh processes."""
        return self._entries(self.bench, "memory")

    @cached_property
    def streamed(self) -> list[Entry]:
        """Fresh processes with more data than the limit for device-resident arrays."""
        return self._entries(self.bench, "stream")

    @cached_property
    def pieces(self) -> list[Entry]:
        """Where the time of a step goes."""
        return self._entries(self.bench, "anatomy")

    @cached_property
    def rivals(self) -> list[Entry]:
        """fit, loop and peers, measured in alternation."""
        return self._entries(self.peers, "peer")

    @cached_property
    def limits(self) -> Limits:
        """The machine's own speed."""
        (entry,) = self._entries(self.bench, "limit")
        return Limits(entry["flops"], entry["bandwidth"])

    @cached_property
    def models(self) -> list[str]:
        """Names of the models, in the order of the suite."""
        return list(dict.fromkeys(entry["model"] for entry in self.training))

    def cases(self) -> list[list[Entry]]:
        """The variants of each model, mode and precision."""
        keys = dict.fromkeys((e["model"], e["mode"], e["policy"]) for e in self.training)
        return [
            [e for e in self.training if (e["model"], e["mode"], e["policy"]) == key]
            for key in keys
        ]


def _renamed(entry: Entry) -> Entry:
    """An entry with the present name of its model."""
    if "model" not in entry:
        return entry
    return entry | {"model": RENAMED.get(entry["model"], entry["model"])}


def write_report(directory: Path) -> Path:
    """Writes `report.md` and its pictures beside the JSON files, and returns its path."""
    suite = Suite.read(directory)
    pictures = {
        "ratios.png": lambda path: plots.ratios(path, suite.cases()),
        "modes.png": lambda path: plots.modes(path, suite.training),
        "limit.png": lambda path: plots.limit(path, suite.training + suite.rivals, suite.limits),
        "sweeps.png": lambda path: plots.sweeps(path, suite.sweeps),
    }
    for name, draw in pictures.items():
        with replacing(directory / name) as partial:
            draw(partial)
    with replacing(directory / "report.md") as partial:
        partial.write_text(text(suite), encoding="utf-8")
    return directory / "report.md"


def text(suite: Suite) -> str:
    """The report in Markdown."""
    machine = suite.bench["machine_info"]
    parts = [
        f"# Throughput on {machine['cpu']}, {machine['cores']} cores",
        _circumstances(suite.bench),
        "## Speedup",
        "Samples per second, and the ratio loop / fit with its 95 % interval. `best`: each "
        "implementation with XLA or without, whichever is faster, in the same turns.",
        _stability(suite),
        "![Ratios with their intervals](ratios.png)",
        _bars(suite),
        _throughput(suite),
        "![Throughput by execution mode, from eager to XLA](modes.png)",
        _steps(suite),
        "## Where the time goes",
        STEP,
        _anatomy(suite, "a step", "µs", 1e6, 0),
        EPOCH,
        _anatomy(suite, "an epoch", "ms", 1e3, 2),
        "## Time to the first step, peak memory, traces",
        _first_steps(suite),
        _memory(suite),
        _streamed(suite),
        "## Machine limits",
        _limit(suite),
        "![Time per step against the limit](limit.png)",
        "## Where fit's overhead becomes negligible",
        "The mlp, without XLA. Unless varied, the batch size is 128 and the width 512. Varying the "
        "width: 2,048 samples; varying the batch size: 32 batches, at most 8,192 samples.",
        "![Sweeps over batch size, width and number of samples](sweeps.png)",
        _sweeps(suite),
    ]
    if suite.rivals:
        parts += ["## Peers", _peers(suite)]
    refused = suite.bench["refused"] | (suite.peers["refused"] if suite.peers else {})
    if refused:
        parts += ["## Refused", "\n".join(f"- {name}: {why}" for name, why in refused.items())]
    return "\n\n".join(part for part in [*parts, HOW] if part)


def _circumstances(file: dict[str, Any]) -> str:
    machine = file["machine_info"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    flags = ", ".join(f"{name}={value}" for name, value in machine["flags"].items()) or "none"
    threads = machine["intra_op_threads"] or "TensorFlow's default"
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return (
        f"Measured {file['datetime'][:10]} by `make bench`: {packages}, Python "
        f"{machine['python']} on {machine['system']}; {gpus}; threads: {threads}; flags: {flags}; "
        f"load average before: {machine['load_before']:.2f}."
    )


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column left-aligned, figures right-aligned."""
    rule = [":--", *["--:"] * (len(headers) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headers, rule, *rows])


def _stability(suite: Suite) -> str:
    ratios = [Ratio(*v) for entries in suite.cases() for v in entries[0]["ratios"].values()]
    unstable = sum(ratio.unstable for ratio in ratios)
    if not unstable:
        return f"All {len(ratios)} ratios are stable: no interval extends more than 10 %."
    return f"Warning: {unstable} of {len(ratios)} ratios are unstable; the machine was noisy."


def _bars(suite: Suite) -> str:
    """Measured against the targets: minima first, then maxima."""
    found = _measured_for_bars(suite)
    rows = []
    for line, bars in BARS.items():
        marks = {name: f"{value:.2f} of {bars[name]:g}" for name, value in found[line].items()}
        missed = {name for name, value in found[line].items() if value < bars[name]}
        rows.append([line, *(_mark(marks, missed, name) for name in suite.models)])
    for line, most in (("first step", MOST_FIRST_STEP), ("peak memory", MOST_MEMORY)):
        marks = {name: f"{value:.2f} of {most:g}" for name, value in found[line].items()}
        missed = {name for name, value in found[line].items() if value > most}
        title = f"{line}, worst mode: loop / fit, at most"
        rows.append([title, *(_mark(marks, missed, name) for name in suite.models)])
    return "Measured values, with their targets:\n\n" + table(["", *suite.models], rows)


def _mark(marks: dict[str, str], missed: set[str], name: str) -> str:
    return f"{marks.get(name, '')}{' (missed)' * (name in missed)}"


def _measured_for_bars(suite: Suite) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {line: {} for line in BARS}
    found |= {"first step": {}, "peak memory": {}}
    step, block, torch, jax = BARS
    for entries in suite.cases():
        first = entries[0]
        if first["policy"] != "float32" or first["mode"] == "eager":
            continue
        line, ratio = (step, "") if first["mode"] == "step" else (block, "best")
        if ratio in first["ratios"]:
            found[line][first["model"]] = first["ratios"][ratio][0]
        for xla in (False, True):
            starts = {e["side"]: median(e["first_step"]) for e in entries if e["xla"] == xla}
            if starts:
                _keep_worst(found["first step"], first["model"], starts["loop"] / starts["fit"])
    peaks = {(e["model"], e["mode"], e["side"]): e["peak_bytes"] for e in suite.memory}
    for (model, mode, side), peak in peaks.items():
        if side == "loop" and (model, mode, "fit") in peaks:
            _keep_worst(found["peak memory"], model, peak / peaks[model, mode, "fit"])
    for model in dict.fromkeys(entry["model"] for entry in suite.rivals):
        entries = [entry for entry in suite.rivals if entry["model"] == model]
        loop = _best(entries, "loop")
        for line, family in ((torch, "PyTorch"), (jax, "JAX lax.scan")):
            times = _best(entries, family)
            if times.size:
                found[line][model] = bootstrap(times, loop).value
    return found


def _keep_worst(found: dict[str, float], model: str, value: float) -> None:
    found[model] = max(value, found.get(model, value))


def _throughput(suite: Suite) -> str:
    rows = []
    for entries in suite.cases():
        ratios = {name: Ratio(*values) for name, values in entries[0]["ratios"].items()}
        row = [_title(entries[0])]
        for xla in (False, True):
            for side in ("fit", "loop"):
                row.append(_pick(entries, side, xla, lambda e: f"{e['samples_per_second']:,.0f}"))
            row.append(_ratio(ratios.get("XLA" if xla else "")))
        rows.append([*row, _ratio(ratios.get("best"))])
    headers = ["", "fit", "loop", "ratio", "fit XLA", "loop XLA", "ratio XLA", "ratio, best"]
    return table(headers, rows)


def _steps(suite: Suite) -> str:
    def show(entry: Entry) -> str:
        quartiles = quantiles([s / entry["steps"] * 1e6 for s in entry["seconds"]], n=4)
        lower, middle, upper = (f"{value:,.0f}" for value in quartiles)
        return f"{middle} ({lower} to {upper})"

    rows = [
        [
            _title(entries[0]),
            *(_pick(entries, side, xla, show) for xla in (False, True) for side in ("fit", "loop")),
            str(len(entries[0]["seconds"])),
        ]
        for entries in suite.cases()
    ]
    headers = ["µs per step (quartiles)", "fit", "loop", "fit XLA", "loop XLA", "epochs timed"]
    return table(headers, rows)


def _anatomy(suite: Suite, what: str, unit: str, scale: float, digits: int) -> str:
    """A row for each piece, a column for each model."""
    found = {e["model"]: e["pieces"] for e in suite.pieces if e["what"] == what}
    pieces = dict.fromkeys(piece for seconds in found.values() for piece in seconds)
    rows = [
        [piece, *(f"{seconds[piece] * scale:,.{digits}f}" for seconds in found.values())]
        for piece in pieces
    ]
    return table([f"{what}, {unit}", *found], rows)


def _title(entry: Entry) -> str:
    precision = "" if entry["policy"] == "float32" else f", {entry['policy']}"
    return f"{entry['model']}, {entry['mode']}{precision}"


def _pick(entries: list[Entry], side: str, xla: bool, show: Any) -> str:
    found = [entry for entry in entries if (entry["side"], entry["xla"]) == (side, xla)]
    return show(found[0]) if found else ""


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    unstable = " unstable" if ratio.unstable else ""
    return f"**{ratio.value:.2f}** ({ratio.low:.2f} to {ratio.high:.2f}){unstable}"


def _first_steps(suite: Suite) -> str:
    rows = []
    for entries in suite.cases():
        row = [_title(entries[0])]
        for xla in (False, True):
            found = {e["side"]: median(e["first_step"]) for e in entries if e["xla"] == xla}
            row += [f"{found[side]:.2f}" if found else "" for side in ("fit", "loop")]
            row.append(f"{found['loop'] / found['fit']:.2f}" if found else "")
        rows.append(row)
    headers = ["first step, s", "fit", "loop", "loop / fit"]
    return table([*headers, "fit XLA", "loop XLA", "loop / fit"], rows)


def _memory(suite: Suite) -> str:
    rows = []
    keys = dict.fromkeys((entry["model"], entry["mode"]) for entry in suite.memory)
    for model, mode in keys:
        found = {e["side"]: e for e in suite.memory if (e["model"], e["mode"]) == (model, mode)}
        if len(found) < 2:
            continue
        fit, loop = found["fit"], found["loop"]
        rows.append(
            [
                f"{model}, {mode}",
                *(_mib(side["peak_bytes"]) for side in (fit, loop)),
                f"{loop['peak_bytes'] / fit['peak_bytes']:.3f}",
                *(_mib(side["peak_bytes"] - side["idle_bytes"]) for side in (fit, loop)),
                *(str(side["traces"]) for side in (fit, loop)),
                *(_mib(s["device_bytes"]) for s in (fit, loop) if "device_bytes" in s),
            ]
        )
    headers = ["peak memory, MiB", "fit", "loop", "loop / fit", "fit above idle", "loop above idle"]
    headers += ["fit traces", "loop traces"]
    if any("device_bytes" in entry for entry in suite.memory):
        headers += ["fit on the GPU", "loop on the GPU"]
    return table(headers, rows)


def _streamed(suite: Suite) -> str:
    found = {entry["side"]: entry for entry in suite.streamed}
    if len(found) < 2:
        return ""
    above = {side: entry["peak_bytes"] - entry["idle_bytes"] for side, entry in found.items()}
    return (
        f"An epoch of {_mib(found['loop']['data_bytes'])} MiB, four times the limit for "
        f"device-resident arrays, is streamed in batches. In addition to the data, the process "
        f"needs {_mib(above['fit'])} MiB with fit and {_mib(above['loop'])} MiB with the loop."
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"


def _limit(suite: Suite) -> str:
    limits, rows = suite.limits, []
    for model in suite.models:
        entries = [e for e in suite.training if e["model"] == model and e["policy"] == "float32"]
        work = Work(**entries[0]["work"])
        row = [model, f"{work.flops / 1e6:,.1f}", f"{work.bytes / 2**20:,.1f}"]
        row.append(f"{work.seconds(limits) * 1e6:,.0f}")
        for side in ("fit", "loop"):
            best = min(step_seconds(e) for e in entries if e["side"] == side)
            row += [f"{best * 1e6:,.0f}", f"{work.flops / best / limits.flops:.1%}"]
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


def step_seconds(entry: Entry) -> float:
    """Median seconds of one step."""
    return median(entry["seconds"]) / entry["steps"]


def _sweeps(suite: Suite) -> str:
    rows = []
    for key in dict.fromkeys((e["sweep"], e["value"], e["mode"]) for e in suite.sweeps):
        entries = [e for e in suite.sweeps if (e["sweep"], e["value"], e["mode"]) == key]
        speeds = [
            _pick(entries, side, False, lambda e: f"{e['samples_per_second']:,.0f}")
            for side in ("fit", "loop")
        ]
        name, value, mode = key
        rows.append(
            [f"{name} {value:,}, {mode}", *speeds, _ratio(Ratio(*entries[0]["ratios"][""]))]
        )
    return table(["", "fit", "loop", "ratio"], rows)


def _peers(suite: Suite) -> str:
    parts = [
        "Same initial weights and batches. The loss of every batch of the first epoch is within "
        "1e-5 of Keras's, or the figure is refused (`apart`: the largest relative difference). The "
        "loss is the only metric. Samples per second, measured in alternation; the last column is "
        "the time per step relative to the fastest loop. The first table has the speedup of the "
        "best loop over the best of each peer.",
        _circumstances(suite.peers or {}).replace("`make bench`", "`make bench-peers`"),
        _best_loop(suite),
    ]
    for model in dict.fromkeys(entry["model"] for entry in suite.rivals):
        entries = [entry for entry in suite.rivals if entry["model"] == model]
        best = min(median(e["seconds"]) for e in entries if e["name"].startswith("loop"))
        entries.sort(key=lambda entry: median(entry["seconds"]))
        rows = [
            [
                entry["name"],
                f"{entry['samples_per_second']:,.0f}",
                f"{entry['apart']:.0e}",
                f"{median(entry['seconds']) / best:.2f}",
            ]
            for entry in entries
        ]
        parts.append(table([model, "samples/s", "apart", "time / best loop"], rows))
    return "\n\n".join(parts)


def _best_loop(suite: Suite) -> str:
    rivals = ("fit", "PyTorch", "JAX jitted step", "JAX lax.scan")
    rows = []
    for model in dict.fromkeys(entry["model"] for entry in suite.rivals):
        entries = [entry for entry in suite.rivals if entry["model"] == model]
        times = {family: _best(entries, family) for family in ("loop", *rivals)}
        ratios = [
            _ratio(bootstrap(times[family], times["loop"])) if times[family].size else "refused"
            for family in rivals
        ]
        rows.append([model, *ratios])
    return table(["speedup of the best loop over", *rivals], rows)


def _best(entries: list[Entry], family: str) -> np.ndarray:
    """Seconds `[turns, epochs]` of the fastest entry whose name begins so; empty if none does."""
    found = [entry for entry in entries if entry["name"].startswith(family)]
    if not found:
        return np.empty([0, 0])
    fastest = min(found, key=lambda entry: median(entry["seconds"]))
    return np.reshape(fastest["seconds"], [fastest["turns"], -1])
