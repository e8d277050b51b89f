"""`gap.png`: the parts as a waterfall from `loss` to `val_loss`."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fit_unfolded.common.colors import FIT, GUIDE, LOOP, MISTAKE
from fit_unfolded.gap import page
from fit_unfolded.gap.decompose import Gap

LOWER, HIGHER = FIT, MISTAKE  # lighter and darker in gray, too
WIDTH = 0.62


def draw(path: Path, title: str, gap: Gap) -> None:
    """Writes a PNG, 7.2 x 4.2 inches at 200 dpi."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.use_sticky_edges = False  # else no margin below the lowest bar
    names = ["loss"]
    value = _draw_loss(axes, 0, gap.loss, gap)
    for part in gap.parts:
        if part.name == "rows":
            _connect(axes, len(names), value)
            value = _draw_loss(axes, len(names), gap.evaluate, gap)
            names.append("evaluate\n(train)")
        place = len(names)
        _connect(axes, place, value)
        color = LOWER if part.change < 0 else HIGHER
        axes.bar(place, part.value - value, WIDTH, bottom=value, color=color)
        _write(axes, place, max(value, part.value), page.change(gap, part))
        names.append(part.title.replace(" ", "\n"))
        value = part.value
    _connect(axes, len(names), value)
    _draw_loss(axes, len(names), gap.last, gap)
    names.append("evaluate\n(train)" if gap.val_loss is None else "val_loss")
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.15)
    axes.set_ylabel(f"loss, epoch {gap.epoch}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=200, format="png")


def _draw_loss(axes: Axes, place: int, value: float, gap: Gap) -> float:
    """A line and not a bar, since the axis does not begin at 0."""
    ends = [place - WIDTH / 2, place + WIDTH / 2]
    axes.plot(ends, [value, value], color=LOOP, linewidth=3, solid_capstyle="butt")
    _write(axes, place, value, page.value(gap, value))
    return value


def _connect(axes: Axes, place: int, value: float) -> None:
    axes.plot([place - 1, place], [value, value], color=GUIDE, linewidth=0.7, zorder=0)


def _write(axes: Axes, place: int, top: float, text: str) -> None:
    axes.annotate(text, (place, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)
