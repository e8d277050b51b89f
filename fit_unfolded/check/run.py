"""Runs the user's loop, unchanged and under observation, and draws up the verdict."""

import contextlib
import copy
import inspect
import io
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded import pitfalls
from fit_unfolded.check import costs, stages
from fit_unfolded.check.causes import Cause, Departure, find
from fit_unfolded.check.compare import compare
from fit_unfolded.check.costs import Cost
from fit_unfolded.check.frozen import values_frozen
from fit_unfolded.check.meter import Meter
from fit_unfolded.check.mistakes import TRAINER
from fit_unfolded.check.observe import Enough, Observer, State, state_of
from fit_unfolded.check.reference import Reference
from fit_unfolded.check.rows import Problem, problem_of
from fit_unfolded.check.stages import DIFFERENT, NOT_COMPARED, ROUNDING, Comparison, Stage
from fit_unfolded.common.errors import InputError
from fit_unfolded.pitfalls.source import Place
from fit_unfolded.workloads import user_file
from fit_unfolded.workloads.user_file import UserFile

UNDECIDED = "undecided"
FROZEN = Place(f"{TRAINER}._make_function", "one_step_on_data = tf.function(")
OBSERVED_SECONDS = 20.0  # of the loop run eagerly; the steps after them are not compared
# What the loop as a graph may differ by from the same loop run eagerly, relative to the way that
# the weights went: rounding that grows from step to step.
MOST_APART = 0.05


@dataclass
class Report:
    """What was found.

    Attributes:
        path: of the user's file.
        verdict: "equal", "rounding", "different" or "undecided".
        departures: the stages that depart, each with the known mistakes that make its numbers.
        stages: all of them.
        notes: further sentences.
        steps, compared: updates of the loop, and how many were compared with fit's.
        seconds: of the loop as it is, and of the whole check.
        costs: known mistakes that cost time or memory.
        measured: figures of time and memory, by name.
        comparison: all that was compared; None if nothing could be.
    """

    path: Path
    description: str
    verdict: str
    departures: list[Departure] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: int = 0
    compared: int = 0
    epochs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = field(default=None, repr=False)

    @property
    def stage(self) -> Stage | None:
        """The first stage that departs; None if none."""
        return self.departures[0].stage if self.departures else None

    @property
    def causes(self) -> list[Cause]:
        """All causes, those of the first departure first, each once."""
        causes = [cause for departure in self.departures for cause in departure.causes]
        return list({cause.name: cause for cause in reversed(causes)}.values())[::-1]

    @property
    def passed(self) -> bool:
        """Whether the loop trains like fit."""
        return self.verdict in (stages.EQUAL, ROUNDING)

    def _repr_html_(self) -> str:
        """The terminal page and, folded, the HTML page, in the cell of a notebook."""
        from fit_unfolded.check.html import page
        from fit_unfolded.check.page import print_page
        from fit_unfolded.common.notebook import framed, printed

        walk = framed(page(self), f"{self.path.name}, checked")
        return (
            f"{printed(print_page, self)}<details><summary>Step by step</summary>{walk}</details>"
        )

    def figures(self) -> dict[str, Any]:
        """For `check.json`."""
        return {
            "verdict": self.verdict,
            "stage": self.stage.name if self.stage else None,
            "causes": [cause.name for cause in self.causes],
            "file": str(self.path),
            "line": self.stage.line if self.stage else None,
            "stages": [asdict(stage) for stage in self.stages],
            "departures": [
                {
                    "stage": departure.stage.name,
                    "causes": [
                        {"name": c.name, "title": c.title, "exact": c.exact, "says": c.says}
                        for c in departure.causes
                    ],
                }
                for departure in self.departures
            ],
            "costs": [asdict(cost) for cost in self.costs],
            "measured": self.measured,
            "notes": self.notes,
            "epochs": self.epochs,
            "steps": self.steps,
            "steps_compared": self.compared,
            "seconds": self.seconds,
        }


@dataclass
class Trained:
    """One run of the user's loop; `whole` unless it was ended early."""

    history: dict[str, list[float]] | None
    initial: State
    final: State
    trainable: list[int]
    whole: bool


def check(path: Path | str, seed: int = 0, time_fit: bool = False) -> Report:
    """Compares the training loop of a file with fit.

    The file's `train` runs twice: as it is, and with its `tf.function`s run eagerly, while its
    calls of Keras and TensorFlow are recorded.

    Args:
        path: a file with `build`, `data`, `COMPILE` or `compile`, `FIT` and `train`.
        seed: the random seed.
        time_fit: whether to measure fit's time for a batch too, where the loop wastes time.

    Raises:
        InputError: the file cannot be used, or `train` raises or trains nothing.
    """
    begin = time.monotonic()
    file = user_file.load(path)
    if file.train is None:
        raise InputError(f"{file.path}: there is no train; define train(model, x, y, ...).")
    user_file.build_model(file, seed)
    data = _copied(user_file.read_data(file, seed))
    _arguments(file, data)  # before anything runs
    problem = problem_of(data, file.fit)
    plain_begin = time.monotonic()
    plain, meter = _measure(file, seed, problem)
    plain_seconds = time.monotonic() - plain_begin
    observed, seen = _observe(file, seed)
    _check_trained(file, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = _report(file, problem, Reference(file, seed), seen, plain, observed)
        if report.verdict == UNDECIDED and any(f.frozen for f in meter.functions.values()):
            report = _frozen(file, problem, seed, plain, meter) or report
        if report.verdict == UNDECIDED and any(f.jit for f in meter.functions.values()):
            _check_jit(report, file, problem, seed, observed)
        _add_costs(report, file, meter, seen)
        if time_fit and any(cost.kind == costs.TIME for cost in report.costs):
            report.measured["fit_step_ms"] = costs.fit_milliseconds(file, data, seed)
    report.seconds = {"loop": plain_seconds, "check": time.monotonic() - begin}
    return report


def assert_trains_like_fit(path: Path | str, seed: int = 0) -> None:
    """Fails unless `check` finds the loop equal to fit, or equal to rounding.

    Raises:
        AssertionError: with the page of `fit-unfolded check` as its message.
        InputError: as `check`.
    """
    report = check(path, seed)
    if not report.passed:
        from rich.console import Console

        from fit_unfolded.check.page import print_page

        text = io.StringIO()
        print_page(Console(file=text, width=80), report)
        raise AssertionError(f"{path} does not train like fit\n\n{text.getvalue()}")


# Running the loop -----------------------------------------------------------------------------


def _arguments(file: UserFile, data: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `train` other than the model, by name."""
    assert file.train is not None
    try:
        parameters = list(inspect.signature(file.train).parameters.values())
    except (TypeError, ValueError) as error:
        raise InputError(f"{file.path}: the parameters of train cannot be read.") from error
    known = (*user_file.DATA_ARGUMENTS, *user_file.FIT_ARGUMENTS)
    defaults = inspect.signature(keras.Model.fit).parameters
    given = {**data, **file.fit}
    if not parameters:
        raise InputError(f"{file.path}: train has no parameter for the model.")
    arguments: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= {name: value for name, value in given.items() if name not in arguments}
        elif parameter.name in given:
            arguments[parameter.name] = given[parameter.name]
        elif parameter.name not in known and parameter.default is parameter.empty:
            raise InputError(
                f"{file.path}: train has the parameter '{parameter.name}', which fit does not "
                f"have; name it as in fit, or give it a default."
            )
        elif parameter.default is parameter.empty:
            arguments[parameter.name] = defaults[parameter.name].default
    return arguments


def _copied(data: Any) -> Any:
    """Arrays of their own: a loop may shuffle in place."""
    if isinstance(data, dict):
        return {name: _copied(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_copied(value) for value in data)
    return np.array(data) if isinstance(data, np.ndarray) else data


def _train(file: UserFile, seed: int, observe: Any = None) -> Trained:
    """Runs `train`; what it prints is dropped."""
    assert file.train is not None
    keras.utils.set_random_seed(seed)
    given = _arguments(file, _copied(file.data()))
    if "callbacks" in given:
        given["callbacks"] = copy.deepcopy(given["callbacks"])
    keras.utils.set_random_seed(seed)
    model = file.build()
    keras.utils.set_random_seed(seed)
    initial = state_of(model)
    trainable = [place for place, v in enumerate(model.variables) if v.trainable]
    with (
        observe(model) if observe else contextlib.nullcontext(),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        user_file.user_code(file.path, "train()"),
    ):
        warnings.simplefilter("ignore")
        try:
            returned, whole = file.train(model, **given), True
        except Enough:
            returned, whole = None, False
    return Trained(_history(file, returned), initial, state_of(model), trainable, whole)


def _measure(
    file: UserFile, seed: int, problem: Problem, jit: bool = True
) -> tuple[Trained, Meter]:
    """The loop as it is, or without XLA."""
    meters: list[Meter] = []
    batches = problem.steps * (file.fit.get("epochs", 1) - file.fit.get("initial_epoch", 0))

    @contextlib.contextmanager
    def observe(model: Any) -> Iterator[None]:
        with Meter(model, str(file.path.resolve()), batches, jit) as meter:
            meters.append(meter)
            yield

    return _train(file, seed, observe), meters[0]


def _observe(file: UserFile, seed: int, meter: Meter | None = None) -> tuple[Trained, Observer]:
    """The loop run eagerly; with a meter, its functions see the values that their graphs have."""
    seen: list[Observer] = []
    module = sys.modules.get(getattr(file.train, "__module__", ""))

    @contextlib.contextmanager
    def observe(model: Any) -> Iterator[None]:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            path = str(file.path.resolve())
            frozen = values_frozen(meter, model) if meter else contextlib.nullcontext()
            with frozen, Observer(model, path, module, OBSERVED_SECONDS) as observer:
                seen.append(observer)
                yield
        finally:
            tf.config.run_functions_eagerly(before)

    return _train(file, seed, observe), seen[0]


def _history(file: UserFile, returned: Any) -> dict[str, list[float]] | None:
    """What `train` returned, as a dict of lists of floats; None if it is no history."""
    returned = getattr(returned, "history", returned)
    if not isinstance(returned, dict) or not returned:
        return None
    history = {}
    for name, values in returned.items():
        try:
            history[str(name)] = [float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{file.path}: train() returns a history whose '{name}' is not a list of numbers."
            ) from error
    return history


def _check_trained(file: UserFile, run: Trained) -> None:
    places = run.trainable
    if all(np.array_equal(run.initial[p], run.final[p], equal_nan=True) for p in places):
        raise InputError(
            f"{file.path}: train() changes no weight of the model that it is given; train that "
            "model in place."
        )


# Verdict --------------------------------------------------------------------------------------


def _report(
    file: UserFile,
    problem: Problem,
    reference: Reference,
    seen: Observer,
    plain: Trained,
    observed: Trained,
) -> Report:
    report = Report(file.path, file.description, UNDECIDED, steps=len(seen.steps))
    apart = _apart(plain, observed) if observed.whole else 0.0
    if not any(block.gradients for step in seen.steps for block in step.blocks):
        report.notes.append(
            "No call of GradientTape.gradient was seen, so no step can be compared."
        )
        return report
    history = observed.history if observed.whole else plain.history
    arguments = (problem, reference, seen, history, file.fit, plain.initial)
    found = compare(*arguments, whole=observed.whole)
    _check_history(file, found)
    report.comparison = found
    report.stages = list(found.stages.values())
    report.compared, report.epochs = len(found.steps), len(found.epochs)
    if found.departed:
        report.verdict, report.departures = DIFFERENT, find(found)
    elif not found.steps:
        report.notes.append("None of the steps could be compared with fit's.")
    elif apart > MOST_APART:
        report.notes.append(
            "Each step is fit's when the loop runs eagerly, but with its tf.functions the loop "
            f"trains other weights: {apart:.2g} of the way that they went. A value may be frozen "
            "when the function is traced, or its random numbers are others in a graph."
        )
    else:
        rounded = any(stage.status == ROUNDING for stage in report.stages)
        report.verdict = ROUNDING if rounded else stages.EQUAL
    _add_notes(report, found, observed)
    return report


def _frozen(
    file: UserFile, problem: Problem, seed: int, plain: Trained, meter: Meter
) -> Report | None:
    """The report on the loop with the values that its graphs froze; None if they do not explain it.

    Run eagerly with these values, the loop must train the weights that it trains as graphs.
    """
    frozen, seen = _observe(file, seed, meter)
    if not frozen.whole or _apart(plain, frozen) > MOST_APART:
        return None
    report = _report(file, problem, Reference(file, seed), seen, plain, frozen)
    if not report.departures:
        return None
    function = next(f for f in meter.functions.values() if f.frozen)
    changed = "; ".join(
        f"{name} is {now!r} later, {then!r} in the graph"
        for name, (then, now) in function.frozen.items()
    )
    worst = "to the last bit" if _apart(plain, frozen) == 0 else "to rounding"
    cause = Cause(
        "value-frozen-at-tracing",
        "A Python value is frozen when the function is traced",
        f"{changed}; run eagerly with the values in the graph, the loop trains its weights {worst}",
        FROZEN,
        "keep the value in a tf.Variable, or pass it as a tensor",
        exact=worst == "to the last bit",
    )
    first, *_ = report.departures
    report.departures = [Departure(first.stage, [cause])]
    return report


def _check_jit(
    report: Report, file: UserFile, problem: Problem, seed: int, observed: Trained
) -> None:
    """Names XLA if it alone makes the weights that the loop trains: it draws other random numbers.

    Where fit uses XLA too, the loop is compared without it, and that is all that differs.
    """
    plain, meter = _measure(file, seed, problem, jit=False)
    if report.comparison is None or _apart(plain, observed) > MOST_APART:
        return
    report.notes = []
    if file.compile().get("jit_compile") is True:
        report.verdict = ROUNDING
        report.notes.append("Loop and fit both use XLA; they are compared without it.")
        return
    stage = report.comparison.stages["forward"]
    line = next(f.line for f in meter.functions.values() if f.jit)
    says = "with jit_compile=True other random numbers are drawn; without, the weights are fit's"
    stage.depart("jit", says, None, line)
    pitfall = pitfalls.get("other-jit-compile")
    write = "@tf.function without jit_compile, or jit_compile=True in COMPILE too"
    cause = Cause(pitfall.name, pitfall.title, says, pitfall.keras, write, exact=True)
    report.verdict, report.departures = DIFFERENT, [Departure(stage, [cause])]


def _add_costs(report: Report, file: UserFile, meter: Meter, seen: Observer) -> None:
    report.costs = costs.find(meter, seen, file.path, max(1, report.epochs))
    grows = costs.growth(meter.samples)
    report.measured = {
        "step_ms": costs.step_milliseconds(meter),
        "batches_without_graph": meter.eager,
        "graphs": {
            f.name: {"line": f.line, "graphs": len(f.traces), "calls": f.calls}
            for f in meter.functions.values()
        },
        "host_reads": {str(line): count for line, count in sorted(meter.reads.items())},
        "grows_by_batch": grows,
    }


def _apart(plain: Trained, observed: Trained) -> float:
    """How far the weights of both runs are apart, relative to the way that they went."""
    places = plain.trainable
    way = max(float(np.max(np.abs(plain.final[p] - plain.initial[p]), initial=0)) for p in places)
    apart = max(
        float(np.max(np.abs(plain.final[p] - observed.final[p]), initial=0)) for p in places
    )
    return apart / way if np.isfinite(apart) and np.isfinite(way) else 0.0


def _check_history(file: UserFile, found: Comparison) -> None:
    """Names and lengths, once fit's logs are known."""
    if found.history is None or not found.logs:
        return
    names = list(next(iter(found.logs.values())))
    if found.problem.validation is not None:
        names += [f"val_{name}" for name in names]
    for name, values in found.history.items():
        if name not in names:
            raise InputError(
                f"{file.path}: train() returns a history with '{name}', which fit does not log; "
                f"it logs {', '.join(names)}."
            )
        of_training = not name.startswith("val_")
        if found.whole and of_training and len(values) != len(found.epochs):
            raise InputError(
                f"{file.path}: train() returns {len(values)} values of '{name}' for "
                f"{len(found.epochs)} epochs; return one for each epoch."
            )


def _add_notes(report: Report, found: Comparison, observed: Trained) -> None:
    if not all(np.all(np.isfinite(v)) for v in observed.final if v.dtype.kind == "f"):
        report.notes.append("The weights are NaN or infinite at the end.")
    batches = sum(bool(block.gradients) for step in found.seen.steps for block in step.blocks)
    if not observed.whole:
        report.notes.append(
            f"The loop was observed for its first {OBSERVED_SECONDS:.0f} seconds, run eagerly: "
            f"{len(found.seen.steps)} steps."
        )
    if report.compared < batches:
        report.notes.append(f"Compared: {report.compared} of {batches} batches.")
    if found.fit.get("callbacks") and found.ends is None:
        report.notes.append("FIT has callbacks; when they end the training was not compared.")
    report.notes += _oddities(found)
    left = [stage.name for stage in report.stages if stage.status == NOT_COMPARED]
    if left and report.verdict in (stages.EQUAL, ROUNDING):
        report.notes.append(f"Not compared: {', '.join(left)}.")


def _oddities(found: Comparison) -> list[str]:
    """Where fit itself is odd, so that a right loop may train other weights than it."""
    notes = []
    epochs = len(found.epochs)
    if found.problem.unknown_length:
        steps = len(found.seen.steps)
        notes.append(
            "The data do not tell how many batches they have. On such data, fit as a graph runs "
            "one step more than there are batches in each epoch (docs/details.md, 26): at the end "
            f"its optimizer.iterations is {steps + epochs}, after {steps} batches. Each batch is "
            "compared with fit's step; the additional steps are not held against the loop."
        )
    orders = [[row for step in found.steps_of(e) for row in step.rows] for e in range(epochs)]
    if not found.problem.shuffles or len(orders) < 2 or len(orders[0]) != len(orders[1]):
        return notes
    if found.stages["data"].kind == "one permutation":
        notes.append(
            "Under a global seed, fit has one permutation for all epochs too (docs/details.md, 11)."
        )
    if found.stages["data"].status == DIFFERENT:
        return notes
    notes.append(
        "The loop draws a new permutation of the rows for each epoch. Under a global seed, fit has "
        "the same one in all epochs (docs/details.md, 11), so its weights are others."
    )
    return notes
