"""The check as the page of `explain`: the user's line, Keras's line and this project's line."""

from collections.abc import Iterator
from html import escape
from importlib.metadata import version
from pathlib import Path

import keras

from fit_unfolded.check.mistakes import (
    FORWARD,
    LOSS_CALLED,
    METRICS,
    TRAINER,
    VALIDATED,
)
from fit_unfolded.check.page import verdict_of
from fit_unfolded.check.run import Report
from fit_unfolded.check.stages import Compared
from fit_unfolded.common.files import check_file, replacing
from fit_unfolded.explain import columns
from fit_unfolded.explain.columns import Chapter, Entry, Segment
from fit_unfolded.explain.events import Line
from fit_unfolded.explain.excerpts import Stop
from fit_unfolded.explain.kinds import Kind, of_event
from fit_unfolded.pitfalls.source import Place

STEPS = "manual_loop.steps"
BUILT = Place(f"{TRAINER}.fit", "self._maybe_symbolic_build(iterator")
EPOCHS = Place(f"{TRAINER}.fit", "for epoch in range(initial_epoch, epochs):")
# By stage: what the list of events calls it, Keras's line, this project's line.
PLACES: dict[str, tuple[str, Place, Place | None]] = {
    "initial_weights": (
        "data",
        Place(f"{TRAINER}.fit", "self._maybe_symbolic_build(iterator"),
        None,
    ),
    "data": (
        "data",
        Place(f"{TRAINER}.fit", "for begin_step, end_step, iterator in epoch_iterator:"),
        Place(f"{STEPS}:train_step", "x, y, sample_weight = keras.utils"),
    ),
    "forward": ("layer", FORWARD, Place(f"{STEPS}:train_step", "y_pred = forward(")),
    "loss": ("loss", LOSS_CALLED, Place(f"{STEPS}:train_step", "loss = compiled_loss(")),
    "gradients": (
        "tape",
        Place(f"{TRAINER}.train_step", "gradients = tape.gradient("),
        Place(f"{STEPS}:train_step", "gradients = tape.gradient("),
    ),
    "update": (
        "optimizer",
        Place(f"{TRAINER}.train_step", "self.optimizer.apply_gradients("),
        Place(f"{STEPS}:train_step", "optimizer.apply_gradients("),
    ),
    "metrics": ("metric", METRICS, Place(f"{STEPS}:train_step", "compiled_metrics.update_state(")),
    "epoch": (
        "callback",
        Place(f"{TRAINER}.fit", "for epoch in range(initial_epoch, epochs):"),
        None,
    ),
    "validation": ("layer", VALIDATED, Place(f"{STEPS}:test_step", "y_pred = forward(")),
}
# What each stage is, in terms of the events of fit.
EVENTS = {
    "data": ("data", "batch"),
    "forward": ("layer", ""),
    "loss": ("loss", ""),
    "gradients": ("tape", "gradient"),
    "update": ("optimizer", "apply"),
    "metrics": ("metric", "update_state"),
    "epoch": ("callback", "on_epoch_end"),
    "validation": ("callback", "on_test_begin"),
}
ABOUT = {
    "initial_weights": Kind("The weights that the training starts from."),
    "cause": Kind("A known mistake that makes the numbers of your loop."),
    "cost": Kind("It changes no number, but costs time or memory."),
}
STEP_STAGES = ("data", "forward", "loss", "gradients", "update")
SHOWN_STEPS = 3  # of each epoch, and any that departs
SHOWN_EPOCHS = 2


def write(report: Report, path: Path, details: str = "") -> None:
    """Writes the page to `path`.

    Args:
        details: as in `page`.

    Raises:
        InputError: as in `check_file`.
    """
    check_file(path, "--html")
    with replacing(path) as partial:
        partial.write_text(page(report, details), encoding="utf-8")


def page(report: Report, details: str = "") -> str:
    """The page as text.

    Args:
        details: address of docs/details.md as a page, see `fit_unfolded.explain.html.page`.
    """
    kind = "agreeing" if report.passed else "parting"
    return columns.page(
        title=f"{report.path.name}: where the loop departs from fit",
        heading=f"{report.path.name}, checked",
        summary=(
            f"<p>{escape(report.description)}</p>"
            f'<p class="{kind}" role="status">{escape(verdict_of(report))}</p>'
        ),
        chapters=list(_Pages(report).chapters()),
        columns=[
            ("own", f"Your loop: {report.path.name}"),
            ("fit", f"fit: Keras {keras.__version__}"),
            ("loop", f"The loop here: manual_loop {version('fit-unfolded')}"),
        ],
        details=details,
    )


class _Pages:
    """Numbers the entries while it makes them."""

    def __init__(self, report: Report):
        self._report, self._number = report, 0

    def chapters(self) -> Iterator[Chapter]:
        report = self._report
        causes = [
            self._entry(
                "cause",
                cause.name,
                cause.title,
                cause.keras,
                departure.stage.line,
                stage=departure.stage.name,
            )
            for departure in report.departures
            for cause in departure.causes
        ]
        stages = [self._stage(stage.name) for stage in report.stages]
        costs = [
            self._entry(cost.kind, cost.name, cost.says, None, cost.line) for cost in report.costs
        ]
        parts = [("causes", causes), ("stages", stages), ("costs", costs)]
        segments = [
            Segment(heading, "", "Verdict", f"Verdict, {heading}", entries)
            for heading, entries in parts
            if entries
        ]
        if segments:
            yield Chapter("Verdict", segments)
        found = report.comparison
        seen: dict[tuple, str] = {}  # what steps hold -> the first of them
        for epoch in range(SHOWN_EPOCHS if found else 0):
            steps = found.steps_of(epoch) if found else []
            shown = [s for at, s in enumerate(steps) if at < SHOWN_STEPS or s.departs]
            segments = [self._step(epoch, step, seen) for step in shown[: 2 * SHOWN_STEPS]]
            if segments:
                yield Chapter(f"Epoch {epoch + 1}", segments)

    def _stage(self, name: str) -> Entry:
        stage = next(stage for stage in self._report.stages if stage.name == name)
        kind, place, _ = PLACES[name]
        says = stage.says or (f"up to {stage.ulp:.2g} ULP" if stage.ulp else "")
        line = stage.line or self._usual_line(name)
        return self._entry(kind, name, says, place, line, result=stage.status, stage=name)

    def _usual_line(self, name: str) -> int:
        found = self._report.comparison
        steps = found.steps if found else []
        return _line_of(steps[0], name) if steps else 0

    def _step(self, epoch: int, step: Compared, seen: dict[tuple, str]) -> Segment:
        entries = []
        for name in STEP_STAGES:
            kind, keras_place, _ = PLACES[name]
            line = _line_of(step, name)
            differs = "differs from fit" if step.departs == name else ""
            entries.append(
                self._entry(kind, name, _detail(step, name), keras_place, line, differs, name)
            )
        heading = f"step {step.number}"
        place = f"Epoch {epoch + 1}, {heading}"
        equal = tuple((entry.result, *entry.repeated) for entry in entries)
        first = seen.setdefault(equal, heading)
        repeats = "" if first == heading else f"as in {first}"
        return Segment(heading, str(step.number), f"Epoch {epoch + 1}", place, entries, repeats)

    def _entry(
        self,
        kind: str,
        name: str,
        detail: str,
        place: Place | None,
        line: int,
        result: str = "",
        stage: str = "",
    ) -> Entry:
        self._number += 1
        anchor = f"e{self._number}"
        loop = PLACES[stage][2] if stage else None
        own = _own(self._report.path, line) if line else None
        lines = (own, place and _line_at(place), loop and _line_at(loop))
        stops = tuple(Stop(anchor, found) if found else None for found in lines)
        return Entry(anchor, kind, name, result, detail, stops, _about(kind, stage))


def _about(kind: str, stage: str) -> Kind:
    if kind == "cause":
        return ABOUT["cause"]
    if not stage:
        return ABOUT["cost"]
    return of_event(*EVENTS[stage]) if stage in EVENTS else ABOUT[stage]


def _own(path: Path, number: int) -> Line:
    return Line(path.name, number, "train", str(path.resolve()))


def _line_at(place: Place) -> Line:
    found = place.find()
    return Line(found.file, found.first, found.function, str(place.path()))


def _line_of(step: Compared, stage: str) -> int:
    """The user's line for a stage of a step; 0 where none was seen."""
    block, updates = step.block, step.step.updates
    if stage in ("data", "forward", "initial_weights"):
        return step.line
    if stage == "loss" and block.losses:
        return block.losses[-1].line
    if stage in ("loss", "gradients"):
        return block.gradients[0].line
    if stage == "update" and updates:
        return updates[-1].line
    updated = [call.line for call in step.step.metrics if call.method == "update_state"]
    return updated[-1] if stage == "metrics" and updated else 0


def _detail(step: Compared, stage: str) -> str:
    if stage == "data":
        rows = ", ".join(map(str, step.rows[:6])) + (", ..." if len(step.rows) > 6 else "")
        return f"{len(step.rows)} rows: {rows}" if step.rows else "rows unknown"
    if stage == "forward":
        calls = [call for call in step.block.calls if call.whole] or step.block.calls
        given = calls[0].training
        return "without training" if given is None else f"training={given}"
    if stage == "loss":
        return f"{step.block.gradients[0].loss:.7g}; fit: {step.made.loss:.7g}"
    if stage == "gradients":
        return f"{len(step.gradients)} weights"
    updates = step.step.updates
    return type(updates[-1].optimizer).__name__ if updates else "by hand"
