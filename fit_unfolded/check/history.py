"""The end of the training and the logs, against fit's from the same weights."""

from collections.abc import Iterator

import numpy as np

from fit_unfolded.check.distance import MOST_ULP, MOST_ULP_OF_UPDATE, distance, elementwise
from fit_unfolded.check.observe import Call, State
from fit_unfolded.check.stages import DIFFERENT, Comparison, Stage
from fit_unfolded.check.steps import validated_epochs, validation_logs


def compare_end(found: Comparison) -> None:
    """How many epochs, and the weights after the last one."""
    stage = found.stages["epoch"]
    if not found.whole:
        stage.says = "the loop was not observed to its end"
        return
    if not _compare_number(found, stage):
        return
    last = found.steps[-1] if found.steps else None
    if last is None or last.number != len(found.seen.steps):
        return
    updates = last.step.updates
    after = updates[-1].after if updates else last.step.settled
    if after is None:
        return
    if found.ends is not None:
        expected = found.ends.final
    elif found.fit.get("callbacks"):
        return
    else:
        expected = found.reference.finalized(after, updates[-1].slots_after if updates else None)
    trainable = found.reference.trainable
    apart = {p: elementwise(found.seen.final[p], expected[p], after[p]) for p in trainable}
    worst = max(apart.values(), default=0.0)
    if worst <= MOST_ULP_OF_UPDATE:
        stage.agree(worst)
    elif found.stages["update"].status == DIFFERENT:
        stage.follow()
    else:
        place = next(p for p in trainable if apart[p] > MOST_ULP_OF_UPDATE)
        says, kind = _end_in_words(found, after, expected)
        path = found.reference.model.variables[place].path
        line = updates[-1].line if updates else 0
        stage.depart(kind, f"{path} {says}", last.number, line, worst)


def _compare_number(found: Comparison, stage: Stage) -> bool:
    """Whether the loop ends where fit does."""
    steps, epochs = len(found.seen.steps), len(found.epochs)
    if not epochs or (found.fit.get("callbacks") and found.ends is None):
        return bool(epochs)
    expected = found.fit.get("epochs", 1) - found.fit.get("initial_epoch", 0)
    why = ""
    if found.ends is not None and found.ends.stopped is not None:
        expected = found.ends.stopped - found.fit.get("initial_epoch", 0) + 1
        why = ", where a callback stops it"
    if epochs != expected:
        stage.depart("number", f"{epochs} epochs; fit: {expected}{why}", steps, 0)
        return False
    if len(found.epochs[-1]) != len(found.epochs[0]):
        says = f"the last epoch has {len(found.epochs[-1])} of {len(found.epochs[0])} batches"
        stage.depart("number", says, steps, 0)
        return False
    return True


def _end_in_words(found: Comparison, after: State, expected: State) -> tuple[str, str]:
    trainable = found.reference.trainable
    same = all(np.array_equal(found.seen.final[p], after[p]) for p in trainable)
    what = "stays as the last update left it" if same else "is changed after the last update"
    if all(np.array_equal(expected[p], after[p]) for p in trainable):
        return f"{what}; fit leaves it", "end"
    best = [
        epoch
        for epoch in range(len(found.epochs))
        if _is_state(found, end_of_epoch(found, epoch), expected)
    ]
    if best:
        return f"{what}; fit puts back the weights of epoch {best[-1] + 1}", "not restored"
    return f"{what}; fit writes the moving averages into it", "end"


def _is_state(found: Comparison, state: State | None, expected: State) -> bool:
    return state is not None and all(
        np.array_equal(state[p], expected[p]) for p in found.reference.trainable
    )


def compare_history(found: Comparison) -> None:
    """The history that `train` returned, and fit's from the same states."""
    metrics, validation = found.stages["metrics"], found.stages["validation"]
    if found.history is None:
        metrics.says = metrics.says or "train returns no history"
    for name, values in (found.history or {}).items():
        if name.startswith("val_"):
            epochs = validated_epochs(found)
            if len(values) == len(found.epochs):  # a loop that validates after each
                epochs = list(range(len(found.epochs)))
        else:
            epochs = list(range(len(found.epochs)))
        for epoch, mine in zip(epochs[: found.complete], values, strict=False):
            _compare_value(found, name, epoch, mine)
    if found.problem.validation is None:
        validation.says = "no validation data"
        return
    _compare_validation_calls(found, validation)
    if found.history is None or not any(name.startswith("val_") for name in found.history):
        validation.says = validation.says or "train returns no history of it"


def most_ulp_of_logs(found: Comparison) -> float:
    """A mean over the batches of an epoch is rounded once for each."""
    return MOST_ULP + len(found.epochs[0])


def _compare_value(found: Comparison, name: str, epoch: int, mine: float) -> None:
    held = name.startswith("val_")
    stage, bare = found.stages["validation" if held else "metrics"], name.removeprefix("val_")
    if held:
        logs = validation_logs(found, epoch, end_of_epoch(found, epoch))
    else:
        logs = found.logs.get(epoch, {})
    if bare not in logs:
        return
    ulp = distance([np.float32(mine)], [np.float32(logs[bare])])
    if ulp <= most_ulp_of_logs(found):
        stage.agree(ulp)
    elif _follows(found, held, bare):
        stage.follow()
    else:
        says = f"epoch {epoch + 1}: {name} {mine:.7g}; fit, from the same weights: {logs[bare]:.7g}"
        stage.depart(name, says, None, _metric_line(found, mine), ulp)


def _follows(found: Comparison, held: bool, name: str) -> bool:
    """Whether a log may depart because the outputs or the loss of the steps do."""
    departed = {stage.name for stage in found.departed}
    if held and found.stages["data"].kind == "validation rows":
        return True
    if "forward" in departed and not held:
        return True
    return "loss" in departed and name.endswith("loss")


def _compare_validation_calls(found: Comparison, stage: Stage) -> None:
    """In which mode the model is called on the validation data, and on which rows."""
    rows = found.problem.validation
    assert rows is not None
    for call in outside_calls(found):
        if call.training and rows.holds(call.x):
            says = "validation data are called with training=True; fit: training=False"
            stage.depart("training mode", says, None, call.line)
    if found.stages["data"].status == DIFFERENT or found.history is None:
        return
    if not any(name.startswith("val_") for name in found.history):
        return
    calls = [call for call in outside_calls(found) if call.whole and call.x]
    known = [call for call in calls if rows.holds(call.x)]
    if calls and not known and any(found.problem.train.holds(call.x) for call in calls):
        stage.depart("rows", "it is made on rows of the training data", None, calls[0].line)
    seen = {row for call in known for row in rows.find(call.x) or ()}
    missing = rows.samples - len(seen)
    if seen and missing and not found.fit.get("validation_steps"):
        says = f"{missing} of {rows.samples} validation rows are left out"
        stage.depart("rows missing", says, None, known[-1].line)


def outside_calls(found: Comparison) -> Iterator[Call]:
    """Calls of the model outside of a tape."""
    return (call for step in found.seen.steps for call in step.outside)


def end_of_epoch(found: Comparison, epoch: int) -> State | None:
    """The model's variables when an epoch of training has ended, before its validation."""
    if epoch >= len(found.epochs):
        return None
    blocks = [block for step in found.seen.steps for block in step.blocks if block.gradients]
    block = blocks[found.epochs[epoch][-1]]
    step = next(step for step in found.seen.steps if block in step.blocks)
    return step.updates[-1].after if step.updates else step.settled


def _metric_line(found: Comparison, mine: float) -> int:
    """Where the metric was updated whose result the history has; 0 if no metric gave it."""
    calls = [call for step in found.seen.steps for call in step.metrics]
    for at, call in enumerate(calls):
        if call.value is not None and np.float32(call.value) == np.float32(mine):
            updates = [
                earlier.line
                for earlier in calls[:at]
                if earlier.metric is call.metric and earlier.method == "update_state"
            ]
            return updates[-1] if updates else call.line
    return 0
