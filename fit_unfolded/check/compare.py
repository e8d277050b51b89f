"""Compares a loop with fit, stage by stage."""

from dataclasses import replace
from typing import Any

import numpy as np

from fit_unfolded.check.batches import compare_data
from fit_unfolded.check.history import compare_end, compare_history
from fit_unfolded.check.mistakes import Mistake
from fit_unfolded.check.observe import Observer, State
from fit_unfolded.check.reference import Reference
from fit_unfolded.check.rows import Problem
from fit_unfolded.check.stages import Comparison
from fit_unfolded.check.steps import compare_steps

COMPARED_SECONDS = 15.0  # for the steps of fit; later steps are not compared
COMPARED_AGAIN_SECONDS = 5.0  # for the same with a mistake


def compare(
    problem: Problem,
    reference: Reference,
    seen: Observer,
    history: dict[str, list[float]] | None,
    fit: dict[str, Any],
    initial: State,
    whole: bool,
) -> Comparison:
    """Compares all stages.

    Args:
        initial: the variables of the model that `train` was given.
        whole: whether the loop was observed to its end.
    """
    found = Comparison(problem, reference, seen, history, fit, initial, whole)
    _compare_all(found, COMPARED_SECONDS)
    return found


def compare_with(found: Comparison, mistake: Mistake) -> Comparison | None:
    """The same with a mistake in fit's step: what still departs has another cause.

    Returns:
        None where the mistake cannot be made.
    """
    changed = mistake.change(found.reference, found.problem.batch_size)
    if changed is None:
        return None
    again = Comparison(
        problem=replace(found.problem),
        reference=found.reference.mistaken(*changed, mistake.edit),
        seen=found.seen,
        history=found.history,
        fit=found.fit,
        initial=found.initial,
        whole=found.whole,
        mistake=mistake,
    )
    _compare_all(again, COMPARED_AGAIN_SECONDS)
    return again


def _compare_all(found: Comparison, seconds: float) -> None:
    _compare_initial(found)
    batches = compare_data(found)
    compare_steps(found, batches, seconds)
    compare_end(found)
    compare_history(found)


def _compare_initial(found: Comparison) -> None:
    stage = found.stages["initial_weights"]
    block = found.seen.steps[0].blocks[0] if found.seen.steps[0].blocks else None
    if block is None or block.before is None:
        return
    variables = found.reference.model.variables
    for v, mine, theirs in zip(variables, block.before, found.initial, strict=True):
        if not np.array_equal(mine, theirs, equal_nan=True):
            says = f"{v.path} is changed before the first step"
            stage.depart("changed before", says, 1, block.line)
            return
    stage.agree(0.0)
