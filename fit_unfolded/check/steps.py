"""Forward pass, loss, gradients and update of each batch, against those of fit."""

import time
from typing import Any

import keras
import numpy as np

from fit_unfolded.check.batches import Batch
from fit_unfolded.check.callbacks import Callbacks
from fit_unfolded.check.distance import (
    MOST_ULP,
    MOST_ULP_OF_GRADIENTS,
    MOST_ULP_OF_UPDATE,
    distance,
    elementwise,
    far,
    gradient_distance,
    norm,
)
from fit_unfolded.check.observe import State
from fit_unfolded.check.stages import Compared, Comparison, given_tensors, merged


def compare_steps(found: Comparison, batches: list[Batch], seconds: float) -> None:
    """Forward, loss, gradients, update of each batch; fit's logs of each epoch meanwhile.

    Fit's callbacks are called as they would be on the loop's weights.

    Args:
        seconds: later steps are not compared.
    """
    deadline = time.monotonic() + seconds
    callbacks = Callbacks(
        found.reference, found.fit, found.fit.get("epochs", 1), found.problem.steps
    )
    callbacks.call("on_train_begin")
    slots: State | None = None
    after: State = found.initial
    first = found.fit.get("initial_epoch", 0)
    for epoch, numbers in enumerate(found.epochs):
        found.reference.model.reset_metrics()
        callbacks.call("on_epoch_begin", first + epoch)
        whole, logs = True, {}
        for place, at in enumerate(numbers):
            batch = batches[at]
            late = time.monotonic() > deadline
            if batch.data is None or batch.block.before is None or late:
                whole = False
                continue
            callbacks.call("on_train_batch_begin", place)
            step = found.seen.steps[batch.step - 1]
            slots = found.reference.with_rates(_counted(found, slots, batch, place))
            made = found.reference.step(batch.block.before, slots, batch.data)
            compared = Compared(
                batch.step, epoch, step, batch.block, batch.rows or [], batch.data, slots, made
            )
            found.steps.append(compared)
            _compare_forward(found, compared)
            _compare_loss(found, compared)
            if batch.block is step.blocks[-1]:
                _compare_gradients(found, compared)
                slots = _compare_update(found, compared)
                own = step.updates[-1].slots_after if step.updates else None
                slots = own if own is not None and found.reference.takes(own) else slots
                after = (step.updates[-1].after if step.updates else step.settled) or after
            logs = made.logs
            callbacks.call("on_train_batch_end", place, dict(logs))
        ended = found.whole or epoch < len(found.epochs) - 1
        if not (whole and ended):
            callbacks.any = False
        else:
            found.logs[epoch] = logs
            if callbacks.any:
                validated = validation_logs(found, epoch, after) if _validates(found, epoch) else {}
                logs = logs | {f"val_{name}": value for name, value in validated.items()}
                callbacks.end_epoch(first + epoch, after, slots, logs)
                added = logs.keys() - {f"val_{name}" for name in validated}
                found.logs[epoch] = {name: logs[name] for name in added}  # learning_rate
    if callbacks.any and found.whole:
        found.ends = callbacks.end(found.reference.finalized(after, slots))


def _validates(found: Comparison, epoch: int) -> bool:
    """Whether fit validates after an epoch, counted from 0 (`Trainer._should_eval`)."""
    if found.problem.validation is None:
        return False
    frequency = found.fit.get("validation_freq", 1)
    number = epoch + found.fit.get("initial_epoch", 0) + 1
    return number % frequency == 0 if isinstance(frequency, int) else number in frequency


def validated_epochs(found: Comparison) -> list[int]:
    """The epochs, counted from 0, after which fit validates."""
    return [epoch for epoch in range(len(found.epochs)) if _validates(found, epoch)]


def _counted(found: Comparison, slots: State | None, batch: Batch, place: int) -> State | None:
    """The optimizer's variables before a step.

    On data of unknown length, fit as a graph counts one step more in each epoch; a loop may do so
    too.
    """
    updates = found.seen.steps[batch.step - 1].updates
    if place or not found.problem.unknown_length or not updates or slots is None:
        return slots
    own = updates[0].slots_before
    return own if own is not None and found.reference.takes(own) else slots


def validation_logs(found: Comparison, epoch: int, state: State | None) -> dict[str, float]:
    """What fit logs of the validation after an epoch, from the same weights."""
    if epoch not in found.validation_logs:
        if found.problem.validation is None or state is None:
            return {}
        size = found.fit.get("validation_batch_size") or found.problem.batch_size
        logs = found.reference.evaluate(state, found.problem.validation, size)
        found.validation_logs[epoch] = logs
    return found.validation_logs[epoch]


def _judge(
    found: Comparison, name: str, compared: Compared, kind: str, says: str, line: int, ulp: float
) -> None:
    """Notes a distance at a stage: a departure of its own only where no earlier stage departs."""
    stage = found.stages[name]
    if ulp <= (MOST_ULP_OF_GRADIENTS if name == "gradients" else MOST_ULP):
        stage.agree(ulp)
    elif compared.departs and compared.departs != name:
        stage.follow()
    else:
        compared.departs = name
        stage.depart(kind, says, compared.number, line, ulp)


def _compare_forward(found: Comparison, compared: Compared) -> None:
    calls = compared.block.calls
    whole = [call for call in calls if call.whole]
    call = whole[0] if whole else calls[-1]
    ulp = distance(call.outputs, compared.made.outputs)
    told = "without training" if call.training is None else f"with training={call.training}"
    says = f"the model is called {told}; its outputs are {far(call.outputs, compared.made.outputs)}"
    _judge(found, "forward", compared, "outputs", says, call.line, ulp)
    after = compared.step.updates[-1].after if compared.step.updates else compared.step.settled
    if after is None or len(compared.step.blocks) > 1:
        return
    trained = {*found.reference.trainable, *merged(compared.step.updates), *compared.gradients}
    for place, variable in enumerate(found.reference.model.variables):
        if place in trained or compared.departs:
            continue
        mine, theirs = after[place], compared.made.after[place]
        ulp = distance([mine], [theirs])
        count = f"; the model is called {len(whole)} times" if len(whole) > 1 else ""
        says = f"{variable.path} is {far([mine], [theirs])} after the step{count}"
        line = whole[-1].line if whole else call.line
        _judge(found, "forward", compared, "state", says, line, ulp)


def _compare_loss(found: Comparison, compared: Compared) -> None:
    gradient = compared.block.gradients[0]
    mine, theirs = gradient.loss, compared.made.loss
    ulp = distance([mine], [theirs])
    summed = gradient.shape not in ((), (1,))
    shape = f" (the sum of shape {list(gradient.shape)})" if summed else ""
    says = f"the loss of the batch is {mine:.7g}{shape}; fit: {theirs:.7g}"
    line = compared.block.losses[-1].line if compared.block.losses else gradient.line
    _judge(found, "loss", compared, "value", says, line, ulp)


def _compare_gradients(found: Comparison, compared: Compared) -> None:
    mine = {place: g for place, g in compared.gradients.items() if g is not None}
    theirs = {place: g for place, g in compared.made.gradients.items() if g is not None}
    line = compared.block.gradients[0].line
    variables = found.reference.model.variables
    if mine.keys() != theirs.keys():
        places = sorted(mine.keys() ^ theirs.keys())
        names = ", ".join(variables[place].path for place in places)
        verb = "missing" if set(places) & theirs.keys() else "not in fit's"
        says = f"gradients of {names}: {verb}"
        _judge(found, "gradients", compared, "weights", says, line, np.inf)
        return
    ulp = gradient_distance(mine, theirs)
    apart = far(list(mine.values()), [theirs[place] for place in mine])
    _judge(found, "gradients", compared, "values", f"the gradients are {apart}", line, ulp)
    _compare_given(found, compared, mine)


def _compare_given(found: Comparison, compared: Compared, mine: dict[int, np.ndarray]) -> None:
    """What the optimizer is given, against what the tape gave."""
    if not compared.step.updates:
        return
    given, line = merged(compared.step.updates), compared.step.updates[0].line
    blocks = len(compared.step.blocks)
    accumulates = getattr(found.reference.optimizer, "gradient_accumulation_steps", None) or 1
    if blocks > 1 and accumulates != blocks:
        says = f"one update for {blocks} batches; fit: one for each"
        _judge(found, "gradients", compared, "accumulated", says, line, np.inf)
        return
    if blocks > 1:
        parts = [block.gradients[0].values for block in compared.step.blocks]
        mine = _mean(parts, list(mine))
    ours = {place: g for place, g in given.items() if g is not None}
    if ours.keys() != mine.keys():
        lost = sorted(mine.keys() - ours.keys())
        names = ", ".join(found.reference.model.variables[place].path for place in lost)
        says = f"the optimizer is not given the gradients of {names}"
        _judge(found, "gradients", compared, "weights", says, line, np.inf)
        return
    ulp = gradient_distance(ours, mine)
    if ulp > MOST_ULP_OF_GRADIENTS:  # clipped by the loop, as the optimizer would
        clip = getattr(found.reference.optimizer, "_clip_gradients", lambda values: values)
        tensors = [keras.ops.convert_to_tensor(mine[place]) for place in ours]
        clipped = dict(zip(ours, map(np.array, clip(tensors)), strict=True))
        ulp = min(ulp, gradient_distance(ours, clipped))
    scale = norm(ours) / norm(mine) if norm(mine) else np.inf
    what = "the mean of the gradients" if blocks > 1 else "the gradients"
    says = f"the optimizer is given {what} with the norm times {scale:.6g}"
    _judge(found, "gradients", compared, "given", says, line, ulp)


def _mean(parts: list[dict[int, Any]], places: list[int]) -> dict[int, np.ndarray]:
    return {place: sum(part[place] for part in parts) / np.float32(len(parts)) for place in places}


def _compare_update(found: Comparison, compared: Compared) -> State:
    """The weights after the update, against fit's optimizer on the same gradients."""
    step, stage = compared.step, found.stages["update"]
    if step.updates:
        given, before = given_tensors(step.updates), step.updates[0].before
        after, line = step.updates[-1].after, step.updates[-1].line
    else:
        given, before, after = dict(compared.gradients), compared.block.before, step.settled
        line = compared.block.gradients[-1].line
    if before is None or after is None:
        return compared.made.slots
    if len(step.blocks) > 1:
        _compare_accumulated(found, compared, before, after, given)
        return compared.made.slots
    theirs, slots = found.reference.update(before, compared.slots, given)
    worst, where = 0.0, 0
    for place in found.reference.trainable:
        ulp = elementwise(after[place], theirs[place], before[place])
        if ulp > worst:
            worst, where = ulp, place
    path = found.reference.model.variables[where].path
    if worst > MOST_ULP_OF_UPDATE:
        says = (
            f"from the same gradients and state, {path} becomes "
            f"{far([after[where]], [theirs[where]])}"
        )
        if compared.departs in ("", "update"):
            compared.departs = "update"
        stage.depart("weights", says, compared.number, line, worst)
        return slots
    stage.agree(worst)
    frozen = set(range(len(after))) - set(found.reference.trainable)
    for place in frozen & given.keys():
        if not np.array_equal(after[place], before[place]) and not compared.departs:
            path = found.reference.model.variables[place].path
            stage.depart("frozen", f"{path} is trained; fit: it is not", compared.number, line)
    _compare_settled(found, compared, after)
    return slots


def _compare_accumulated(
    found: Comparison, compared: Compared, before: State, after: State, given: dict[int, Any]
) -> None:
    """The update by gradients that the loop itself accumulated, by an optimizer that does not."""
    stage = found.stages["update"]
    if compared.departs or not compared.step.updates:
        stage.follow()
        return
    optimizer = found.reference.optimizer
    configuration = optimizer.get_config() | {"gradient_accumulation_steps": None}
    single = found.reference.changed(optimizer=type(optimizer).from_config(configuration))
    slots = compared.step.updates[0].slots_before
    theirs, _ = single.update(before, single.with_rates(slots), given)
    worst = max(elementwise(after[p], theirs[p], before[p]) for p in found.reference.trainable)
    if worst <= MOST_ULP_OF_UPDATE:
        stage.agree(worst)
    else:
        says = f"from the same accumulated gradients, the weights become {far(after, theirs)}"
        line = compared.step.updates[-1].line
        stage.depart("accumulated", says, compared.number, line, worst)


def _compare_settled(found: Comparison, compared: Compared, after: State) -> None:
    """What happens between the update and the next step."""
    settled, last = compared.step.settled, compared.step is found.seen.steps[-1]
    if settled is None or last or not compared.step.updates:
        return
    variables = found.reference.model.variables
    for place, variable in enumerate(variables):
        if np.array_equal(settled[place], after[place], equal_nan=True):
            continue
        calls = [call for call in compared.step.outside if call.training]
        if place in found.reference.trainable:
            says = f"{variable.path} is changed after the optimizer's update"
            line = compared.step.updates[-1].line
            found.stages["update"].depart("changed after", says, compared.number, line)
        elif calls:
            held = found.problem.validation
            is_validation = held is not None and held.holds(calls[0].x)
            stage = found.stages["validation" if is_validation else "forward"]
            says = f"{variable.path} is changed by a call with training={calls[0].training}"
            kind = "training mode" if is_validation else "second call"
            stage.depart(kind, says, compared.number, calls[0].line)
        return
