"""The plots of the report: PNG, 200 dpi; every color has a contrast of at least 3:1 to white."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fit_unfolded.bench.limit import Limits, Work
from fit_unfolded.bench.measure import Ratio
from fit_unfolded.common.colors import FIT, GUIDE, LOOP, MISTAKE

COLORS = {"fit": FIT, "loop": LOOP, "PyTorch": "#6a51a3", "JAX": "#41733f"}
MARKERS = {"fit": "s", "loop": "o", "PyTorch": "D", "JAX": "^"}
LIMIT, LINE = MISTAKE, GUIDE
DPI = 200


class Point(NamedTuple):
    """One point of a sweep: the value of what varies, samples per second, and the speedup."""

    value: int
    fit: float
    loop: float
    ratio: Ratio


def ratios(path: Path, found: Mapping[str, Mapping[str, Ratio]]) -> None:
    """A dot for each speedup, with its interval; open if it is wider than 5 %."""
    rows = [
        (f"{model}, {mode}", ratio)
        for model, modes in found.items()
        for mode, ratio in modes.items()
    ]
    figure = Figure(figsize=(7.2, 1.0 + 0.26 * max(1, len(rows))), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, ratio) in enumerate(rows):
        axes.plot([ratio.low, ratio.high], [place, place], color=LINE, linewidth=3)
        face = "white" if ratio.unstable else COLORS["loop"]
        axes.plot(
            ratio.value, place, "o", color=COLORS["loop"], markerfacecolor=face, markersize=8,
            markeredgewidth=2,
        )  # fmt: skip
        axes.annotate(
            f"{ratio.value:.2f}", (ratio.high, place), (8, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.axvline(1, color=LINE, linewidth=1.5, linestyle="--")
    if rows:
        axes.set_xlim(
            min(0.8, min(ratio.low for _, ratio in rows) * 0.9),
            max(ratio.high for _, ratio in rows) * 1.4,
        )
    _log(axes, "x")
    axes.set_xlabel(
        "speedup, time of fit / time of loop (95 % interval; open: wider than 5 %)", fontsize=9
    )
    _save(figure, path)


def modes(path: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    """Samples per second as bars: fit and loop in each mode, a panel for each model."""
    columns = min(4, max(1, len(found)))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.6, 3.2 * lines), layout="constrained")
    for place, (name, speeds) in enumerate(found.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        labels = list(dict.fromkeys(variant.partition(" ")[2] for variant in speeds))
        for offset, side in ((-0.2, "fit"), (0.2, "loop")):
            heights = [speeds[f"{side} {label}"] for label in labels]
            places = [number + offset for number in range(len(labels))]
            axes.bar(places, heights, 0.38, color=COLORS[side], label=side)
        axes.set_xticks(
            range(len(labels)), [label.replace(", ", ",\n") for label in labels], rotation=45,
            ha="right",
        )  # fmt: skip
        axes.set_xlim(-0.6, max(len(labels), 3) - 0.4)
        axes.set_title(name, fontsize=11)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if place % columns == 0:
            axes.set_ylabel("throughput, samples/s", fontsize=10)
        if place == 0:
            axes.legend(frameon=False, fontsize=10)
    figure.supxlabel(
        "mode. default: no argument about execution · step: a callback reads each batch's loss · "
        "block: one call per epoch",
        fontsize=9,
    )
    _save(figure, path)


def limit(
    path: Path, found: Mapping[str, Mapping[str, float]], limits: Limits, works: Mapping[str, Work]
) -> None:
    """Time per step: the best of each implementation and peer, and the machine limit."""
    columns = min(4, max(1, len(found)))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.6, 2.6 * lines), layout="constrained")
    for place, (name, steps) in enumerate(found.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        times = {kind: seconds * 1e3 for kind, seconds in steps.items()}
        order = sorted(times, key=lambda kind: -times[kind])
        least = works[name].seconds(limits) * 1e3
        axes.axvline(least, color=LIMIT, linewidth=2, linestyle="--")
        for kind in order:
            axes.plot(times[kind], kind, MARKERS[kind], color=COLORS[kind], markersize=9)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_ylim(-0.6, len(order) - 0.4)
        ends = [least, *times.values()]
        axes.set_xlim(min(ends) / 1.6, max(ends) * 1.6)
        axes.set_title(f"{name}\nlimit {least:,.3g} ms", fontsize=11)
        _log(axes, "x")
        axes.tick_params(axis="x", labelrotation=45)
        axes.set_xlabel("time per step, ms", fontsize=10)
    _save(figure, path)


def sweeps(path: Path, found: Mapping[str, list[Point]]) -> None:
    """Samples per second of both, and their ratio, for each quantity that was varied."""
    units = {"batch size": "batch size, samples", "width": "width of the hidden layer, units"}
    figure = Figure(figsize=(1.0 + 3.6 * max(1, len(found)), 5.0), layout="constrained")
    for place, (name, points) in enumerate(found.items()):
        speed = figure.add_subplot(2, len(found), place + 1)
        ratio = figure.add_subplot(2, len(found), len(found) + place + 1, sharex=speed)
        values = [point.value for point in points]
        for side in ("fit", "loop"):
            speeds = [getattr(point, side) for point in points]
            style: dict[str, Any] = {
                "color": COLORS[side],
                "marker": MARKERS[side],
                "lw": 2,
                "ms": 6,
            }
            speed.plot(values, speeds, label=side, **style)
        low, high = ([getattr(p.ratio, end) for p in points] for end in ("low", "high"))
        ratio.fill_between(values, low, high, color=LINE, alpha=0.35, linewidth=0)
        ratio.plot(
            values, [p.ratio.value for p in points], color=COLORS["loop"], marker="o", lw=2, ms=6
        )
        ratio.axhline(1, color=LINE, linewidth=1.5, linestyle="--")
        ratio.set_ylim(0, 2 * max(p.ratio.value for p in points))  # an interval may reach farther
        ratio.set_xlabel(units.get(name, name), fontsize=10)
        ratio.set_xscale("log", base=2)
        ratio.set_xticks(values, [f"{value:,}" for value in values], rotation=45)
        _log(speed, "y")
        speed.tick_params(labelbottom=False)
        if place == 0:
            speed.set_ylabel("throughput, samples/s", fontsize=10)
            speed.legend(frameon=False, fontsize=10)
            ratio.set_ylabel("speedup, fit / loop\n(95 % interval)", fontsize=10)
    _save(figure, path)


def _log(axes: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers; call it after all is drawn."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    figure.savefig(path, dpi=DPI, format="png")
