"""The four ways compared with fit, timed in turns, and shown as one table."""

import ast
import io
import tokenize
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from rich.console import Console

from fit_unfolded.bench.measure import Measurement, check_variables, measure
from fit_unfolded.common.tables import plain_table
from fit_unfolded.comparison.compare import Comparison, Run, compare
from fit_unfolded.comparison.ways import WAYS
from fit_unfolded.explain.recorder import become

# After SECONDS no turn begins, once there are LEAST_TURNS.
TURNS, LEAST_TURNS, SECONDS = 10, 3, 25.0
LOGS = ("callback calls", "batch logs", "epoch logs")  # of train_on_batch they are of one batch
HEADERS = ["way", "ULP\napart", "samples/s", "speedup", "graphs", "lines", "you can change"]
LEGEND = """\
ULP apart: the largest distance from fit, in logs, history, weights, optimizer
variables, evaluate and predict. On batch: without the logs, which
train_on_batch returns for one batch alone; it traces a graph for the exact
size of a batch, where fit, if the last batch is smaller, traces one for any
size, and TensorFlow may round differently in the two. Speedup: over fit, with
its 95 % interval. Graphs: how often the model was traced, to train and to
validate. Lines: of code of the page that shows this way. The manual loop that
is trained and timed here is manual_loop.Trainer."""


class CountGraphs(keras.callbacks.Callback):
    """Counts in `graphs` how often Python runs the model in a `tf.function` during a training."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs = 0

    def on_train_begin(self, logs=None):
        self._cls = type(self.model)
        original = self._cls.call

        def call(model, *args, **kwargs):
            self.graphs += not tf.executing_eagerly()
            return original(model, *args, **kwargs)

        become(self.model, {"call": call})

    def on_train_end(self, logs=None):
        object.__setattr__(self.model, "__class__", self._cls)


class Row(NamedTuple):
    """What was found of one way.

    Attributes:
        graphs: how often the model was traced.
        comparison: with fit.
    """

    way: str
    run: Run
    graphs: int
    comparison: Comparison

    @property
    def ulp(self) -> float:
        """The largest distance from fit."""
        return max(check.ulp for check in self.comparison.checks)

    def figures(self, measurement: Measurement | None) -> dict[str, Any]:
        """The same, for the record."""
        found: dict[str, Any] = {"ulp": self.ulp, "graphs": self.graphs}
        found["lines"] = lines_of_code(WAYS[self.way].page)
        if measurement is not None and self.way in measurement.timings:
            found["samples_per_second"] = measurement.timings[self.way].samples_per_second
            found["speedup"] = measurement.faster(self.way, than="fit")._asdict()
        return found | self.comparison.figures() | self.run.figures()


def compare_ways(runs: Mapping[str, Run], graphs: Mapping[str, int]) -> list[Row]:
    """Compares every run with that of fit."""
    found = []
    for way, run in runs.items():
        checks = compare(runs["fit"], run).checks
        if way == "on batch":
            checks = [check for check in checks if check.name not in LOGS]
        found.append(Row(way, run, graphs[way], Comparison(("fit", way), checks)))
    return found


def measure_ways(
    found: list[Row], data: Any, batch_size: int | None, seed: int, each_turn: Callable[[], None]
) -> Measurement:
    """Times the ways in turns, but for those that do not do what fit does.

    Custom step and manual loop are timed only if they are 0 ULP from fit. On batch is always timed,
    since its graphs may round differently.

    Raises:
        LossesDiffer: a way that was 0 ULP from fit is no more after the last turn.
    """
    matching = {row.way for row in found if row.comparison.match}
    trainers = {row.way: row.run.trainer for row in found if row.way in matching | {"on batch"}}
    measurement = measure(
        trainers,
        data.x,
        data.y,
        batch_size,
        seed,
        turns=TURNS,
        at_least=LEAST_TURNS,
        seconds=SECONDS,
        pairs=[("fit", way) for way in trainers if way not in ("fit", "on batch")],
        extra={name: value for name, value in data.extra.items() if name != "validation_data"},
        each_turn=each_turn,
    )
    if "on batch" in matching:  # not one of the pairs, since its losses are of one batch
        check_variables(("fit", trainers["fit"]), ("on batch", trainers["on batch"]))
    return measurement


def print_table(console: Console, found: list[Row], measurement: Measurement | None) -> None:
    """The table, what its columns are, and the verdict."""
    rows = [_cells(row, measurement) for row in found]
    console.print(plain_table(HEADERS, rows, text=("you can change",)))
    console.print(LEGEND, markup=False, highlight=False)
    for row in found:
        if not row.comparison.match:
            style = None if row.way == "on batch" else "bold red"
            words = row.comparison.verdict.replace("MISMATCH:", f"{row.way} differs,")
            console.print(words, style=style, markup=False, highlight=False)
    matching = [row for row in found[1:] if row.comparison.match]
    if matching:
        values = sum(check.values for row in matching for check in row.comparison.checks)
        ways = ", ".join(row.way for row in matching)
        words = f"MATCH: {ways}: 0 ULP from fit in all {values:,} values compared."
        console.print(words, style="bold green", markup=False, highlight=False)


def _cells(row: Row, measurement: Measurement | None) -> list[str]:
    speed = speedup = "-"
    if measurement is not None and row.way in measurement.timings:
        speed = f"{measurement.timings[row.way].samples_per_second:,.0f}"
        ratio = measurement.faster(row.way, than="fit")
        speedup = f"{ratio.value:.2f}\n{ratio.low:.2f}-{ratio.high:.2f}"
    if row.way == "fit":
        speedup = "1"
    page, change = WAYS[row.way][1:]
    lines = str(lines_of_code(page))
    return [row.way, f"{row.ulp:,.0f}", speed, speedup, str(row.graphs), lines, change]


def lines_of_code(path: Path) -> int:
    """The lines of a Python file that are not blank, not comments and not of a docstring."""
    source = path.read_text(encoding="utf-8")
    skipped = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skipped and token.string
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)
