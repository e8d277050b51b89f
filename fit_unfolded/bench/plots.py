"""The plots of the report: PNG, 200 dpi."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fit_unfolded.bench.limit import Limits, Work
from fit_unfolded.comparison.plot import STYLES

COLORS = {"fit": STYLES[0]["color"], "loop": STYLES[1]["color"]}
DPI = 200
Entry = dict[str, Any]


def ratios(path: Path, cases: list[list[Entry]]) -> None:
    """A dot for each ratio loop / fit, with its interval; XLA as open dots."""
    rows = [
        (entries[0], name, values)
        for entries in cases
        for name, values in entries[0]["ratios"].items()
        if name != "best"
    ]
    figure = Figure(figsize=(7.2, 0.8 + 0.22 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, name, (value, low, high)) in enumerate(rows):
        axes.plot([low, high], [place, place], color="#888888", linewidth=1.5)
        face = "white" if name else COLORS["loop"]
        axes.plot(value, place, "o", color=COLORS["loop"], markerfacecolor=face, markersize=5)
        axes.annotate(
            f"{value:.2f}", (high, place), (6, 0), textcoords="offset points", va="center",
            fontsize=7,
        )  # fmt: skip
    labels = [_label(entry, bool(name)) for entry, name, _ in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xlim(
        min(0.8, min(low for *_, (_, low, _) in rows) * 0.9),
        max(high for *_, (_, _, high) in rows) * 1.4,
    )
    _log(axes, "x")
    axes.set_xlabel("speedup, loop / fit (95 % interval)", fontsize=9)
    _save(figure, path)


def _label(entry: Entry, xla: bool) -> str:
    words = [entry["model"], entry["mode"]]
    words += ["XLA"] if xla else []
    words += [] if entry["policy"] == "float32" else [entry["policy"]]
    return " ".join(words)


def modes(path: Path, entries: list[Entry]) -> None:
    """Samples per second in each execution mode: eager, step, block, with XLA and without."""
    order = [("eager", False), ("step", False), ("step", True), ("block", False), ("block", True)]
    names = list(dict.fromkeys(entry["model"] for entry in entries))
    figure = Figure(figsize=(1.0 + 2.0 * len(names), 3.0), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for side, color in COLORS.items():
            found = {
                (e["mode"], e["xla"]): e["samples_per_second"]
                for e in entries
                if (e["model"], e["policy"], e["side"]) == (name, "float32", side)
            }
            speeds = [found.get(mode, np.nan) for mode in order]
            axes.plot(range(len(order)), speeds, "o-", color=color, markersize=4, label=side)
        labels = [f"{mode}{' XLA' * xla}" for mode, xla in order]
        axes.set_xticks(range(len(order)), labels, rotation=45, ha="right", fontsize=8)
        axes.set_title(name, fontsize=9)
        _log(axes, "y")
        if place == 0:
            axes.set_ylabel("samples per second", fontsize=9)
            axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def limit(path: Path, entries: list[Entry], limits: Limits) -> None:
    """Time per step: the best of each implementation and peer, and the machine limit."""
    entries = [entry for entry in entries if entry.get("policy", "float32") == "float32"]
    names = list(dict.fromkeys(entry["model"] for entry in entries))
    figure = Figure(figsize=(1.0 + 2.0 * len(names), 2.8), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        own = [entry for entry in entries if entry["model"] == name]
        times: dict[str, float] = {}
        for entry in own:
            kind = entry["side"] if "side" in entry else entry["name"]
            kind = _family(kind)
            microseconds = median(entry["seconds"]) / entry["steps"] * 1e6
            times[kind] = min(times.get(kind, np.inf), microseconds)
        order = sorted(times, key=lambda kind: -times[kind])
        least = Work(**own[0]["work"]).seconds(limits) * 1e6
        axes.axvline(least, color="#cb181d", linewidth=1.2, linestyle="--")
        for kind in order:
            axes.plot(times[kind], kind, "o", color=COLORS.get(kind, "#888888"), markersize=7)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_ylim(-0.6, len(order) - 0.4)
        ends = [least, *times.values()]
        axes.set_xlim(min(ends) / 1.6, max(ends) * 1.6)
        axes.set_title(f"{name}\nlimit {least:,.0f} µs", fontsize=9)
        _log(axes, "x")
        axes.tick_params(axis="x", labelrotation=45)
        axes.set_xlabel("µs per step", fontsize=8)
    _save(figure, path)


def _family(name: str) -> str:
    """Groups peers by library, except JAX, which has two ways."""
    for family in ("fit", "loop", "PyTorch"):
        if name.startswith(family):
            return family
    return name


def sweeps(path: Path, entries: list[Entry]) -> None:
    """Samples per second of both, and their ratio, for each quantity that was varied."""
    names = list(dict.fromkeys(entry["sweep"] for entry in entries))
    figure = Figure(figsize=(1.0 + 2.6 * len(names), 4.2), layout="constrained")
    for place, name in enumerate(names):
        own = [entry for entry in entries if entry["sweep"] == name]
        speed = figure.add_subplot(2, len(names), place + 1)
        ratio = figure.add_subplot(2, len(names), len(names) + place + 1, sharex=speed)
        for mode, style in (("step", "-"), ("block", ":")):
            for side, color in COLORS.items():
                points = [e for e in own if (e["mode"], e["side"]) == (mode, side)]
                if points:
                    values = [e["value"] for e in points]
                    speeds = [e["samples_per_second"] for e in points]
                    label = f"{side}, {mode}"
                    speed.plot(values, speeds, style, color=color, marker="o", ms=3, label=label)
            points = [e for e in own if (e["mode"], e["side"]) == (mode, "loop")]
            if points:
                values = [e["value"] for e in points]
                middle, low, high = zip(*(e["ratios"][""] for e in points), strict=True)
                ratio.plot(values, middle, style, color=COLORS["loop"], marker="o", ms=3)
                ratio.fill_between(values, low, high, color="#888888", alpha=0.25, linewidth=0)
        ratio.axhline(1, color="#888888", linewidth=0.8, linestyle=":")
        ratio.set_ylim(bottom=0)
        ratio.set_xlabel(name, fontsize=9)
        ratio.set_xscale("log", base=2)
        ticks = sorted({entry["value"] for entry in own})
        ratio.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        _log(speed, "y")
        speed.tick_params(labelbottom=False)
        if place == 0:
            speed.set_ylabel("samples per second", fontsize=9)
            speed.legend(frameon=False, fontsize=7)
            ratio.set_ylabel("loop / fit", fontsize=9)
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
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=DPI, format="png")
