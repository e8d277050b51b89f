"""Causes of departures in the logs, of the training and of the validation."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fit_unfolded import pitfalls
from fit_unfolded.check import mistakes
from fit_unfolded.check.causes.cause import Cause, cause_of
from fit_unfolded.check.distance import distance
from fit_unfolded.check.history import end_of_epoch, most_ulp_of_logs
from fit_unfolded.check.mistakes import MEAN_LOSS, TRAINER, Mistake
from fit_unfolded.check.reference import floats
from fit_unfolded.check.rows import Rows
from fit_unfolded.check.stages import Comparison, Stage
from fit_unfolded.pitfalls.source import Place
from manual_loop.data.sample_weights import weigh_classes
from manual_loop.steps import test_step

Logs = dict[int, dict[str, float]]  # by epoch
TESTED_EPOCHS = 2
TESTED_EPOCHS_OF_RESETS = 4  # a count of few samples may agree by chance
REPLAYED_SECONDS = 12.0  # mistakes that come later in the list are not tried
RESET = Place(f"{TRAINER}.fit", "self.reset_metrics()")
RESET_BEFORE_VALIDATION = Place(f"{TRAINER}.evaluate", "self.reset_metrics()")
MEAN = Place(f"{TRAINER}.train_step", "self._loss_tracker.update_state(")


@dataclass(frozen=True)
class Candidate:
    """The logs that a mistake makes."""

    mistake: Mistake
    logs: Callable[[list[int]], Logs]
    least_epochs: int = 1


def of_metrics(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Means over batches, resets, updates at another time, in the logs of the training."""
    mine = {n: v for n, v in (found.history or {}).items() if not n.startswith("val_")}
    right = {epoch: found.logs[epoch] for epoch in _epochs(found)}
    candidates = [
        *_of_aggregation(found, lambda epoch: _each_batch(found, epoch)),
        *_of_training(found),
        *_of_resets(found, validation=False),
    ]
    yield from _explained(found, mine, right, candidates)


def of_validation(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Mode, weights, means and resets in the logs of the validation."""
    held = {n: v for n, v in (found.history or {}).items() if n.startswith("val_")}
    mine = {name.removeprefix("val_"): values for name, values in held.items()}
    if found.problem.validation is None:
        return
    if stage.kind == "rows":
        yield Cause(
            "validated-on-training-data",
            "The validation is made on training data",
            stage.says,
            mistakes.VALIDATED,
            "validate on validation_data, or on the rows behind int(n * (1 - validation_split))",
            exact=True,
        )
    if stage.kind == "rows missing":
        title, write = "Validation rows are left out", "validate on all rows"
        place = mistakes.VALIDATED
        yield Cause("validation-rows-left-out", title, stage.says, place, write, exact=True)
    if stage.kind == "training mode" and not _departing(found, mine, _right(found)):
        known = mistakes.of_test_step()  # only the calls show it
        yield from (
            cause_of(m, 0.0, "in the calls of the model")
            for m in known
            if m.name == "evaluating-in-training-mode"
        )
        return
    candidates = [
        *_of_testing(found),
        *_of_aggregation(found, lambda epoch: _each_validation_batch(found, epoch)),
        *_of_resets(found, validation=True),
    ]
    yield from _explained(found, mine, _right(found), candidates)


def _right(found: Comparison) -> Logs:
    return {e: found.validation_logs[e] for e in _epochs(found) if e in found.validation_logs}


def _epochs(found: Comparison) -> list[int]:
    return _complete(found)[:TESTED_EPOCHS]


def _complete(found: Comparison) -> list[int]:
    return [epoch for epoch in range(found.complete) if epoch in found.logs]


def _departing(found: Comparison, mine: dict[str, list[float]], right: Logs) -> list[str]:
    """The names of which the right logs are not the loop's."""
    return [name for name in mine if not _agrees(found, name, mine, right)]


def _agrees(found: Comparison, name: str, mine: dict[str, list[float]], logs: Logs) -> bool:
    return _apart({name: mine[name]}, logs) <= most_ulp_of_logs(found)


def _explained(
    found: Comparison, mine: dict[str, list[float]], right: Logs, candidates: list[Candidate]
) -> Iterator[Cause]:
    """The candidates that make all numbers that depart; else, for each name, the first that does.

    A mistake in one metric need not be in the others, so only those that depart are looked at.
    """
    departing = _departing(found, mine, right)
    begin, epochs = time.monotonic(), _epochs(found)
    single: dict[str, Cause] = {}
    whole = False
    for candidate in candidates:
        if time.monotonic() - begin > REPLAYED_SECONDS:
            break
        if not departing or len(epochs) < candidate.least_epochs:
            continue
        more = _complete(found)[:TESTED_EPOCHS_OF_RESETS]
        logs = candidate.logs(epochs[:1] if candidate.least_epochs == 1 else more)
        made = [name for name in departing if _agrees(found, name, mine, logs)]
        if made and candidate.least_epochs == 1:
            logs = candidate.logs(epochs)
            made = [name for name in made if _agrees(found, name, mine, logs)]
        if not made:
            continue
        worst = _apart({name: mine[name] for name in made}, logs)
        names = ", ".join(made)
        cause = cause_of(candidate.mistake, worst, f"on {len(epochs)} epochs, of {names}")
        if made == departing:
            whole = True
            yield cause
        for name in made:
            single.setdefault(name, cause)
    if not whole and single.keys() == set(departing):
        yield from dict.fromkeys(single.values())


def _apart(mine: dict[str, list[float]], logs: Logs) -> float:
    """In ULP over all names and epochs; inf if there is nothing to compare."""
    apart = [
        distance([np.float32(values[epoch])], [np.float32(theirs[name])])
        for name, values in mine.items()
        for epoch, theirs in logs.items()
        if name in theirs and epoch < len(values)
    ]
    return max(apart, default=np.inf)


# Means over batches ---------------------------------------------------------------------------

# By name: title, and what is made of the batches' values, sizes and the size of a full batch.
AGGREGATIONS: dict[str, tuple[str, Callable[[Any, Any, int], float]]] = {
    "mean-of-batches": (
        "Mean over batches of different sizes",
        lambda v, n, size: v.mean(),
    ),
    "last-batch-logged": ("The last batch is logged for the epoch", lambda v, n, size: v[-1]),
    "sum-logged": ("The sum over the batches is logged", lambda v, n, size: v.sum()),
    "divided-by-batch-size": (
        "Each batch counts as a full one in the divisor",
        lambda v, n, size: (v * n).sum() / (len(v) * size),
    ),
    "divided-by-full-batches": (
        "The divisor is the number of full batches",
        lambda v, n, size: v.sum() / max(1, n.sum() // size),
    ),
    "sum-over-samples-logged": (
        "The sum over the samples is logged",
        lambda v, n, size: (v * n).sum(),
    ),
}


def _of_aggregation(
    found: Comparison, each: Callable[[int], tuple[list[dict[str, float]], list[int]]]
) -> Iterator[Candidate]:
    cache: dict[int, tuple[list[dict[str, float]], list[int]]] = {}

    def logs_of(aggregate: Callable) -> Callable[[list[int]], Logs]:
        def logs(epochs: list[int]) -> Logs:
            made: Logs = {}
            for epoch in epochs:
                if epoch not in cache:
                    cache[epoch] = each(epoch)
                batches, sizes = cache[epoch]
                n = np.array(sizes, np.float64)
                names = batches[0] if batches else ()
                made[epoch] = {
                    name: aggregate(
                        np.array([batch[name] for batch in batches]), n, found.problem.batch_size
                    )
                    for name in names
                }
            return made

        return logs

    for name, (title, aggregate) in AGGREGATIONS.items():
        place = pitfalls.get(name).keras if name in pitfalls.names() else MEAN
        yield Candidate(Mistake(name, title, (), place, MEAN_LOSS), logs_of(aggregate))


def _each_batch(found: Comparison, epoch: int) -> tuple[list[dict[str, float]], list[int]]:
    """The logs of each batch alone, and its size."""
    logs, sizes = [], []
    for step in found.steps_of(epoch):
        found.reference.model.reset_metrics()
        before = step.block.before or []
        logs.append(found.reference.logs_of(before, step.slots, step.data))
        sizes.append(_size(step.data))
    return logs, sizes


def _each_validation_batch(
    found: Comparison, epoch: int
) -> tuple[list[dict[str, float]], list[int]]:
    logs, sizes = [], []
    for data in _validation_batches(found, epoch, found.problem.validation):
        found.reference.model.reset_metrics()
        logs.append(_test(found, test_step, data))
        sizes.append(_size(data))
    return logs, sizes


def _size(data: Any) -> int:
    while isinstance(data, tuple | list | dict):
        data = next(iter(data.values())) if isinstance(data, dict) else data[0]
    return int(data.shape[0])


# Wrong steps ----------------------------------------------------------------------------------


def _of_training(found: Comparison) -> Iterator[Candidate]:
    for mistake in mistakes.of_logs():
        if found.problem.train.sample_weight is None and "weight" in mistake.name:
            continue
        changed = mistake.change(found.reference, found.problem.batch_size)
        if changed is not None:
            replay = functools.partial(_replay, found, function=changed[0])
            yield Candidate(mistake, functools.partial(_by_epoch, replay))


def _of_testing(found: Comparison) -> Iterator[Candidate]:
    rows = found.problem.validation
    assert rows is not None
    for mistake in mistakes.of_test_step():
        if rows.sample_weight is None and mistake.name == "weights-left-out":
            continue
        assert mistake.edit is not None
        evaluate = functools.partial(_evaluate, found, function=mistake.edit.wrong_function())
        yield Candidate(mistake, functools.partial(_by_epoch, evaluate))
    if found.problem.class_weight is not None and rows.sample_weight is None:
        weighted = replace(rows, sample_weight=_class_weights(rows, found.problem.class_weight))
        pitfall = pitfalls.get("class-weight-in-validation")
        write = "leave class_weight out of the validation"
        yield Candidate(
            Mistake(pitfall.name, pitfall.title, (), pitfall.keras, write),
            lambda epochs: {e: _evaluate(found, e, test_step, rows=weighted) for e in epochs},
        )


def _class_weights(rows: Rows, class_weight: dict[int, float]) -> np.ndarray:
    return np.array(weigh_classes(rows.y, class_weight))


def _by_epoch(logs_of: Callable[[int], dict[str, float]], epochs: list[int]) -> Logs:
    return {epoch: logs_of(epoch) for epoch in epochs}


def _replay(
    found: Comparison, epoch: int, function: Callable | None, reset: bool = True
) -> dict[str, float]:
    """The logs of an epoch, by this project's loop from the state before each batch."""
    if reset:
        found.reference.model.reset_metrics()
    logs: dict[str, float] = {}
    for step in found.steps_of(epoch):
        before = step.block.before or []
        logs = found.reference.logs_of(before, step.slots, step.data, function)
    return logs


def _evaluate(
    found: Comparison,
    epoch: int,
    function: Callable,
    reset: bool = True,
    rows: Rows | None = None,
) -> dict[str, float]:
    """The logs of a validation by this project's step, or a wrong one."""
    if reset:
        found.reference.model.reset_metrics()
    logs: dict[str, float] = {}
    for data in _validation_batches(found, epoch, rows or found.problem.validation):
        logs = _test(found, function, data)
    return logs


def _validation_batches(found: Comparison, epoch: int, rows: Rows | None) -> Iterator[Any]:
    """The batches, with the model in the state that it had after the epoch."""
    state = end_of_epoch(found, epoch)
    if state is None or rows is None:
        return
    found.reference.restore(state, None)
    size = found.fit.get("validation_batch_size") or found.problem.batch_size
    yield from rows.batches(size)


def _test(found: Comparison, function: Callable, data: Any) -> dict[str, float]:
    reference = found.reference
    configuration = reference.configuration
    return floats(function(reference.model, configuration.loss, configuration.metrics, data))


# Resets ---------------------------------------------------------------------------------------


def _of_resets(found: Comparison, validation: bool) -> Iterator[Candidate]:
    """Metrics that go on from the epoch before, from the training or from the validation."""
    place = RESET_BEFORE_VALIDATION if validation else RESET
    where = "validation" if validation else "epoch"
    pitfall = pitfalls.get("metrics-not-reset")
    write = f"metric.reset_state() before each {where}"
    mistake = Mistake(pitfall.name, pitfall.title, (), place, write)

    def shared(before_epoch: bool, before_validation: bool) -> Callable[[list[int]], Logs]:
        """One set of metrics for both."""

        def logs(epochs: list[int]) -> Logs:
            made: Logs = {}
            for epoch in epochs:
                training = _replay(found, epoch, None, reset=before_epoch or not epoch)
                tested = _evaluate(found, epoch, test_step, reset=before_validation)
                made[epoch] = tested if validation else training
            return made

        return logs

    def own(epochs: list[int]) -> Logs:
        """A set of metrics for the one, never reset."""
        if validation:
            return {e: _evaluate(found, e, test_step, reset=not e) for e in epochs}
        return {e: _replay(found, e, None, reset=not e) for e in epochs}

    yield Candidate(mistake, own, least_epochs=2)
    if found.problem.validation is not None:
        for resets in ((False, True), (False, False), (True, False)):
            yield Candidate(mistake, shared(*resets), least_epochs=2 - (resets == (True, False)))
