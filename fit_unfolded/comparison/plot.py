"""`compare.png`: the loss curves of both implementations, their distance, their throughput."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fit_unfolded.bench.measure import Measurement
from fit_unfolded.common.colors import FIT, GUIDE, LOOP
from fit_unfolded.comparison.compare import Run
from fit_unfolded.comparison.ulp import log_distance

# The first run wide and light, the second thin and dark on top: where they agree, both are visible,
# also in gray and with any color vision.
ERROR_BARS = LOOP, GUIDE  # half of each lies on a bar in a color of STYLES
STYLES: tuple[dict[str, Any], ...] = (
    {"color": FIT, "linewidth": 5.0, "markersize": 12, "linestyle": "-"},
    {"color": LOOP, "linewidth": 1.4, "markersize": 5, "linestyle": (0, (4, 2))},
)
LOGARITHMIC_FROM = 50  # times the smallest loss
FARTHEST = 2.0**25  # no float32 numbers are farther apart; shown for inf


def draw(path: Path, title: str, a: Run, b: Run, measurement: Measurement | None) -> None:
    """Writes a PNG, 7.2 x 4.2 inches at 300 dpi; without a measurement, no throughput."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[3, 1.2], height_ratios=[3, 1])
    loss = figure.add_subplot(grid[0, 0])
    ulp = figure.add_subplot(grid[1, 0], sharex=loss)
    _draw_losses(loss, (a, b))
    _draw_distances(ulp, a, b)
    if measurement is not None:
        _draw_throughput(figure.add_subplot(grid[:, 1]), measurement)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=300, format="png")


def _draw_losses(axes: Axes, runs: tuple[Run, Run]) -> None:
    for run, style in zip(runs, STYLES, strict=True):
        for name in ("loss", "val_loss"):
            if name in run.history:
                losses = run.history[name]
                marker = "o" if len(losses) == 1 else ""
                label = run.side if name == "loss" else None
                axes.plot(range(1, len(losses) + 1), losses, marker=marker, label=label, **style)
    _label_ends(axes, runs[0].history)
    losses = [
        loss for run in runs for name in ("loss", "val_loss") for loss in run.history.get(name, [])
    ]
    if min(losses) > 0 and max(losses) > LOGARITHMIC_FROM * min(losses):
        axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_ylabel("loss", fontsize=9)
    axes.tick_params(labelbottom=False)
    axes.legend(frameon=False, fontsize=9, handlelength=3.5)


def _label_ends(axes: Axes, history: dict[str, list[float]]) -> None:
    words = {"loss": "training", "val_loss": "validation"}
    ends = sorted((history[name][-1], words[name]) for name in words if name in history)
    for (loss, word), up in zip(ends, (-6, 6), strict=False):  # apart, in case the curves meet
        axes.annotate(
            word,
            (len(history["loss"]), loss),
            xytext=(6, up),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )


def _draw_distances(axes: Axes, a: Run, b: Run) -> None:
    epochs, distances = _batch_distances(a, b)
    axes.plot(epochs, np.minimum(distances, FARTHEST), color=LOOP, linewidth=1.2)
    if max(distances, default=0.0) > 0:
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(-0.5, 1.5)
        axes.set_yticks([0, 1])
        axes.annotate(
            f"0 ULP after each of {len(distances):,} batches",
            (0.5, 0.55),
            xycoords="axes fraction",
            ha="center",
            fontsize=8,
        )
    axes.set_ylabel("ULP apart", fontsize=9)
    axes.set_xlabel("epoch", fontsize=9)


def _batch_distances(a: Run, b: Run) -> tuple[list[float], list[float]]:
    """For each training batch: its place in epochs, and the distance of its logs in ULP."""
    ends: list[list[float]] = []
    for call_a, call_b in zip(a.calls, b.calls, strict=False):
        if call_a.method == "on_epoch_begin":
            ends.append([])
        elif call_a.method == "on_train_batch_end" == call_b.method:
            logs_a, logs_b = call_a.logs or {}, call_b.logs or {}
            ends[-1].append(max(log_distance(logs_a[name], logs_b.get(name)) for name in logs_a))
    epochs = [
        epoch + (batch + 1) / len(batches)
        for epoch, batches in enumerate(ends)
        for batch in range(len(batches))
    ]
    return epochs, [distance for batches in ends for distance in batches]


def _draw_throughput(axes: Axes, measurement: Measurement) -> None:
    samples = measurement.samples
    for place, timing in enumerate(measurement.timings.values()):
        fast, slow = samples / timing.lower_quartile, samples / timing.upper_quartile
        middle = timing.samples_per_second
        axes.bar(
            place,
            middle,
            width=0.6,
            color=STYLES[place]["color"],
            yerr=[[middle - slow], [fast - middle]],
            error_kw={"ecolor": ERROR_BARS[place], "capsize": 4},
        )
        axes.annotate(
            f"{middle:,.0f}",
            (place, fast),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_xticks(range(len(measurement.timings)), list(measurement.timings))
    axes.set_xlim(-0.6, len(measurement.timings) - 0.4)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("samples/s (median and quartiles)", fontsize=9)
    low, high = measurement.interval
    axes.set_xlabel(f"speedup {measurement.ratio:.2f}\n(95 %: {low:.2f} to {high:.2f})", fontsize=9)
