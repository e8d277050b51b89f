"""Causes of departures in the update: the optimizer, its arguments, its state."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from fit_unfolded import pitfalls
from fit_unfolded.check.causes.cause import OPTIMIZER, Cause
from fit_unfolded.check.causes.gradients import TRAINED, known, ratio_of
from fit_unfolded.check.causes.step import TESTED_STEPS
from fit_unfolded.check.distance import MOST_ULP_OF_UPDATE, elementwise
from fit_unfolded.check.observe import State, Update
from fit_unfolded.check.reference import Reference
from fit_unfolded.check.stages import Compared, Comparison, Stage, given_tensors
from fit_unfolded.pitfalls.source import Place

STEP = Place(f"{OPTIMIZER}._backend_update_step", "self.update_step(grad, var, learning_rate)")
STATE = Place(f"{OPTIMIZER}.apply", "self._iterations.assign_add(1)")
CONSTRAINED = Place(f"{OPTIMIZER}.apply", "if variable.constraint is not None:")
SCHEDULED = Place(f"{OPTIMIZER}._get_current_learning_rate", "return self._learning_rate(")


def of_update(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Another optimizer, other arguments of it, or none."""
    departed = [step for step in found.steps if step.departs == "update"][:TESTED_STEPS]
    if stage.kind == "frozen":
        write = "tape.gradient(loss, model.trainable_weights)"
        title = "Frozen layers are trained"
        yield Cause("frozen-layers-trained", title, stage.says, TRAINED, write, exact=True)
    if stage.kind != "weights" or not departed:
        return
    unscaled = list(_of_unscaled(found, departed))
    yield from unscaled
    anew = [*_of_new_optimizer(found, departed), *_of_schedule(found, departed)]
    yield from anew
    if not unscaled and not anew:
        yield from _of_other_optimizer(found, departed)
    yield from _of_plain_descent(found, departed)
    yield from _of_constraints(found, departed)
    yield from _of_second_update(found, departed)


def _worst(found: Comparison, steps: list[Compared], made: Callable[[Compared], State]) -> float:
    """How far the trained weights after the update are from those that `made` gives."""
    worst = 0.0
    for step in steps:
        theirs = made(step)
        before, after, _ = _update_of(step)
        for place in found.reference.trainable:
            worst = max(worst, elementwise(after[place], theirs[place], before[place]))
    return worst


def _update_of(step: Compared) -> tuple[State, State, dict[int, Any]]:
    updates = step.step.updates
    if updates:
        before, after = updates[0].before or [], updates[-1].after or []
        return before, after, given_tensors(updates)
    return step.block.before or [], step.step.settled or [], dict(step.gradients)


def _of_new_optimizer(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    def fresh(step: Compared) -> State:
        before, _, gradients = _update_of(step)
        return found.reference.update(before, None, gradients)[0]

    if any(u.slots_before is not None and np.any(u.slots_before[0]) for u in steps[0].step.updates):
        return  # its iterations are not 0
    worst = _worst(found, steps[:1], fresh)
    if steps[0].number > 1 and worst <= MOST_ULP_OF_UPDATE:
        optimizers = {id(u.optimizer) for s in found.seen.steps for u in s.updates}
        yield Cause(
            "optimizer-made-anew",
            "A new optimizer in each step or epoch",
            f"a new optimizer of COMPILE makes step {steps[0].number}, to {worst:.2g} ULP; "
            f"the loop has {len(optimizers)}",
            STATE,
            "make the optimizer once, before the first epoch",
            exact=worst == 0,
        )


def _of_other_optimizer(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    updates = steps[0].step.updates
    if not updates:
        return
    update, theirs = updates[0], found.reference.optimizer
    mine = update.optimizer
    differences = list(_configuration_differences(update, steps[0], found.reference))
    if not differences:
        return

    def remade(step: Compared) -> State:
        before, _, gradients = _update_of(step)
        (used,) = step.step.updates[:1]
        optimizer = type(used.optimizer).from_config(dict(used.configuration))
        other = found.reference.changed(optimizer=optimizer)
        return other.update(before, used.slots_before, gradients)[0]

    worst = _worst(found, steps, remade)
    if worst <= MOST_ULP_OF_UPDATE:
        same = type(mine) is type(theirs)
        names = [name for name, *_ in differences]
        title = "Other arguments of the optimizer" if same else "Another optimizer"
        says = "; ".join(f"{name}={a!r}, COMPILE: {b!r}" for name, a, b in differences[:3])
        clipped = {"clipnorm", "global_clipnorm"} <= set(names) and mine.clipnorm
        name = "other-optimizer-arguments" if same else "other-optimizer"
        yield Cause(
            "clipped-per-variable" if same and clipped else name,
            f"{title}: {', '.join(names[:3])}",
            f"{says}; those of the loop make its numbers, to {worst:.2g} ULP",
            STEP,
            f"optimizer = keras.optimizers.{type(theirs).__name__}("
            + ", ".join(f"{name}={b!r}" for name, _, b in differences[:3] if name != "class")
            + ")",
            exact=worst == 0,
        )


def _configuration_differences(
    update: Update, step: Compared, reference: Reference
) -> Iterator[tuple[str, Any, Any]]:
    theirs = reference.optimizer
    if not update.configuration:
        return
    if type(update.optimizer) is not type(theirs):
        yield "class", type(update.optimizer).__name__, type(theirs).__name__
        return
    a, b = update.configuration, theirs.get_config()
    rates = [(step.slots or [])[place] for place in reference.rates if step.slots]
    if rates and not isinstance(b.get("learning_rate"), dict):
        b["learning_rate"] = float(rates[0])  # as fit's callbacks have left it
    for name in sorted((a.keys() | b.keys()) - {"name"}):
        if _plain(a.get(name)) != _plain(b.get(name)):
            yield name, _plain(a.get(name)), _plain(b.get(name))


def _plain(value: Any) -> Any:
    if hasattr(value, "numpy") or isinstance(value, np.floating):
        value = float(value)
    return float(np.float32(value)) if isinstance(value, float) else value


def _of_unscaled(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    inner = getattr(found.reference.optimizer, "inner_optimizer", None)
    if inner is None:
        return
    mistake = pitfalls.get("gradients-not-unscaled")
    function = mistake.edit.wrong_function()

    def made(step: Compared) -> State:
        before = step.block.before or []
        return found.reference.step(before, step.slots, step.data, function).after

    worst = _worst(found, steps, made)
    if worst <= MOST_ULP_OF_UPDATE:
        says = f"this project's loop with this mistake makes the same weights, to {worst:.2g} ULP"
        write = "optimizer.apply_gradients(...) of the LossScaleOptimizer"
        yield Cause(mistake.name, mistake.title, says, mistake.keras, write, worst == 0)


def _of_plain_descent(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    if steps[0].step.updates:
        return
    before, after, gradients = _update_of(steps[0])
    deltas = {p: before[p] - after[p] for p in found.reference.trainable}
    rate = np.float32(ratio_of(gradients, deltas))

    def made(step: Compared) -> State:
        start, _, values = _update_of(step)
        state = list(start)
        for place, value in known(values).items():
            state[place] = start[place] - rate * value
        return state

    worst = _worst(found, steps, made)
    if worst <= MOST_ULP_OF_UPDATE:
        yield Cause(
            "plain-gradient-descent",
            f"Weights are updated by hand: minus {rate:.6g} times the gradient",
            f"this makes the loop's weights, to {worst:.2g} ULP",
            STEP,
            "optimizer.apply_gradients(zip(gradients, model.trainable_weights))",
            exact=worst == 0,
        )


def _of_constraints(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    variables = found.reference.model.trainable_variables
    constraints = [variable.constraint for variable in variables]
    if not any(constraints):
        return

    def made(step: Compared) -> State:
        before, _, gradients = _update_of(step)
        return found.reference.update(before, step.slots, gradients)[0]

    try:
        for variable in variables:
            variable.constraint = None
        worst = _worst(found, steps, made)
    finally:
        for variable, constraint in zip(variables, constraints, strict=True):
            variable.constraint = constraint
    if worst <= MOST_ULP_OF_UPDATE:
        yield Cause(
            "constraints-left-out",
            "Constraints of the weights are left out",
            f"fit's update without them makes the loop's weights, to {worst:.2g} ULP",
            CONSTRAINED,
            "optimizer.apply_gradients(zip(gradients, model.trainable_weights))",
            exact=worst == 0,
        )


def _of_schedule(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    """A learning rate schedule that is asked for the number of the epoch, not of the step."""
    optimizer = found.reference.optimizer
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return
    configuration = optimizer.get_config() | {"learning_rate": 1.0}
    other = found.reference.changed(optimizer=type(optimizer).from_config(configuration))
    for first in (0, 1):

        def made(step: Compared, first: int = first) -> State:
            before, _, gradients = _update_of(step)
            updates = step.step.updates
            rate = np.array(schedule(step.epoch + first), np.float32)
            other.rates = dict.fromkeys(other.rates, rate)
            slots = other.with_rates(updates[0].slots_before if updates else None)
            return other.update(before, slots, gradients)[0]

        worst = _worst(found, steps, made)
        if worst <= MOST_ULP_OF_UPDATE:
            yield Cause(
                "schedule-by-epoch",
                "The learning rate schedule is stepped by epoch",
                f"schedule(epoch{' + 1' * first}) as the learning rate makes the loop's weights, "
                f"to {worst:.2g} ULP",
                SCHEDULED,
                "optimizer = ...(learning_rate=schedule), which counts the steps",
                exact=worst == 0,
            )
            return


def _of_second_update(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    """Gradients that are applied twice."""
    if len(steps[0].step.updates) != 2:
        return

    def made(step: Compared) -> State:
        before, slots = step.step.updates[0].before or [], step.slots
        for update in step.step.updates:
            before, slots = found.reference.update(before, slots, update.tensors)
        return before

    worst = _worst(found, steps, made)
    if worst <= MOST_ULP_OF_UPDATE:
        says = f"two updates make the loop's weights, to {worst:.2g} ULP"
        title, write = "The gradients are applied twice", "one optimizer.apply_gradients(...)"
        yield Cause("applied-twice", title, says, STATE, write, exact=worst == 0)
