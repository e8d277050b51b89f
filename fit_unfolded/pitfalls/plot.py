"""`NAME.png`: what the pitfall does to the loss, epoch by epoch."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fit_unfolded.common import colors
from fit_unfolded.pitfalls.experiment import FIT, RIGHT, WRONG, Result

# fit wide and light, the right loop thin and dark on top of it, the wrong one in a colour of its
# own: it also differs in grey, by its dots.
STYLES: dict[str, dict[str, Any]] = {
    FIT: {"color": colors.FIT, "linewidth": 5.0, "linestyle": "-"},
    RIGHT: {"color": colors.LOOP, "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 4},
    WRONG: {
        "color": colors.MISTAKE,
        "linewidth": 1.6,
        "linestyle": "-",
        "marker": "o",
        "markersize": 4,
    },
}
LOGARITHMIC_FROM = 50  # times the smallest loss


def draw(path: Path, result: Result) -> None:
    """Writes the picture as PNG, 7.2 x 4.2 inches at 200 dpi."""
    metrics = [name for name in ("loss", "val_loss") if name in result.runs[FIT].history]
    last = _draw_counts if result.counts else _draw_alive if result.alive.get(FIT) else None
    columns = len(metrics) + bool(last)
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    widths = [3] * len(metrics) + [1.3] * bool(last)
    grid = figure.add_gridspec(2, columns, height_ratios=[2.2, 1], width_ratios=widths)
    for column, metric in enumerate(metrics):
        values = figure.add_subplot(grid[0, column])
        _draw_values(values, result, metric)
        _draw_distance(figure.add_subplot(grid[1, column], sharex=values), result, metric)
    if last:
        last(figure.add_subplot(grid[:, -1]), result)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(frameon=False, fontsize=8, handlelength=3.5)
    figure.suptitle(result.pitfall.title, fontsize=10)
    figure.savefig(path, dpi=200, format="png")


def _draw_values(axes: Axes, result: Result, metric: str) -> None:
    values = [value for run in result.runs.values() for value in run.history[metric]]
    for name, run in result.runs.items():
        axes.plot(result.epochs, run.history[metric], label=name, **STYLES[name])
    finite = [value for value in values if np.isfinite(value)]
    if min(finite) > 0 and max(finite) > LOGARITHMIC_FROM * min(finite):
        axes.set_yscale("log")
    axes.set_ylabel({"loss": "loss", "val_loss": "validation loss"}[metric], fontsize=9)
    axes.tick_params(labelbottom=False)


def _draw_distance(axes: Axes, result: Result, metric: str) -> None:
    fit = np.array(result.runs[FIT].history[metric])
    for name in (RIGHT, WRONG):
        apart = np.abs(np.array(result.runs[name].history[metric]) - fit)
        axes.plot(result.epochs, apart, **STYLES[name])
    if not np.any(np.nan_to_num(apart, nan=1.0)):
        axes.set_yticks([0])
        axes.set_ylim(0, 1)
        _write(axes, "0 after every epoch")
    elif not np.all(np.isfinite(apart)):
        axes.set_yticks([0])
        axes.set_ylim(0, 1)
        _write(axes, "the wrong loop's loss is not finite")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("difference from fit", fontsize=9)
    axes.set_xlabel("epoch", fontsize=9)


def _write(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8)


def _draw_counts(axes: Axes, result: Result) -> None:
    names = list(result.counts)
    colors = [STYLES[name]["color"] for name in names]
    bars = axes.bar(names, list(result.counts.values()), color=colors, width=0.6)
    axes.bar_label(bars, fontsize=8, padding=2)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(result.pitfall.counted or "", fontsize=9)


def _draw_alive(axes: Axes, result: Result) -> None:
    for name in (FIT, RIGHT, WRONG):
        axes.plot(result.epochs, [alive.tensors for alive in result.alive[name]], **STYLES[name])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("tensors alive", fontsize=9)
