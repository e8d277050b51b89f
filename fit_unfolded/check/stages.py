"""The stages of a training, each compared with what fit makes from the same state."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from fit_unfolded.check.observe import Block, Observer, State, Step, Update
from fit_unfolded.check.reference import Made, Reference
from fit_unfolded.check.rows import Problem

EQUAL, ROUNDING, DIFFERENT = "equal", "rounding", "different"
FOLLOWS, NOT_COMPARED = "follows", "not compared"
STAGES = (
    "initial_weights",
    "data",
    "forward",
    "loss",
    "gradients",
    "update",
    "metrics",
    "epoch",
    "validation",
)
# Distances up to these are the same terms summed in another order, in ULP of the largest value of
# the tensor; an update of one weight has no sums.
MOST_ULP = 64.0
MOST_ULP_OF_UPDATE = 16.0
COMPARED_SECONDS = 15.0  # for the steps of fit; later steps are not compared


@dataclass(eq=False)
class Stage:
    """One stage.

    Attributes:
        status: "equal", "rounding", "different", "follows" from an earlier stage, "not compared".
        says: what was measured, in words.
        step: the first step that departs, counted from 1; None if none.
        line: of the user's file; 0 if unknown.
        ulp: the largest distance where the stage is the first to depart, or is rounding.
        kind: of a departure, for the causes: "labels apart".
    """

    name: str
    status: str = NOT_COMPARED
    says: str = ""
    step: int | None = None
    line: int = 0
    ulp: float = 0.0
    kind: str = ""

    def depart(
        self, kind: str, says: str, step: int | None, line: int, ulp: float = np.inf
    ) -> None:
        """The first departure is the one that is told."""
        if self.status != DIFFERENT:
            self.status, self.kind, self.says = DIFFERENT, kind, says
            self.step, self.line, self.ulp = step, line, ulp

    def agree(self, ulp: float) -> None:
        """A value that is equal, or `ulp` apart by rounding."""
        if self.status in (NOT_COMPARED, EQUAL, ROUNDING):
            self.ulp = max(self.ulp, ulp)
            self.status = ROUNDING if self.ulp else EQUAL

    def follow(self) -> None:
        """A value that departs because an earlier stage did."""
        if self.status != DIFFERENT:
            self.status = FOLLOWS


@dataclass(eq=False)
class Compared:
    """One step of the user's loop, and fit's from the same state.

    Attributes:
        number: counted from 1.
        rows: of its first batch.
        slots: the optimizer's variables before, as fit would have them.
        departs: the first stage that departs; "" if none.
    """

    number: int
    step: Step
    block: Block
    rows: list[int]
    slots: State | None
    made: Made
    departs: str = ""

    @property
    def gradients(self) -> dict[int, np.ndarray | None]:
        """What the tape gave, by position of the variable."""
        merged: dict[int, np.ndarray | None] = {}
        for gradient in self.block.gradients:
            merged |= gradient.values
        return merged

    @property
    def line(self) -> int:
        """Of the model's call."""
        return self.block.calls[0].line if self.block.calls else self.block.line


@dataclass(eq=False)
class Comparison:
    """All stages, and the steps they were found in."""

    problem: Problem
    reference: Reference
    seen: Observer
    history: dict[str, list[float]] | None
    fit: dict[str, Any]
    whole: bool
    stages: dict[str, Stage] = field(default_factory=lambda: {n: Stage(n) for n in STAGES})
    steps: list[Compared] = field(default_factory=list)
    epochs: list[list[int]] = field(default_factory=list)  # numbers of batches, from 0
    logs: list[dict[str, float]] = field(default_factory=list)  # fit's, by epoch
    validation_logs: dict[int, dict[str, float]] = field(default_factory=dict)  # by epoch, from 0

    @property
    def complete(self) -> int:
        """How many epochs were observed to their end."""
        return len(self.epochs) - (not self.whole)

    @property
    def first(self) -> Stage | None:
        """The first stage that departs, in time; on one step, in the order of a step."""
        departed = [stage for stage in self.stages.values() if stage.status == DIFFERENT]
        return departed[0] if departed else None


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
    found = Comparison(problem, reference, seen, history, fit, whole)
    _compare_initial(found, initial)
    batches = _compare_data(found)
    _compare_steps(found, batches)
    _compare_end(found)
    _compare_history(found)
    return found


# Before the first step ------------------------------------------------------------------------


def _compare_initial(found: Comparison, initial: State) -> None:
    stage = found.stages["initial_weights"]
    block = found.seen.steps[0].blocks[0] if found.seen.steps[0].blocks else None
    if block is None or block.before is None:
        return
    variables = found.reference.model.variables
    for v, mine, theirs in zip(variables, block.before, initial, strict=True):
        if not np.array_equal(mine, theirs, equal_nan=True):
            says = f"{v.path} is changed before the first step"
            stage.depart("changed before", says, 1, block.line)
            return
    stage.agree(0.0)


# Data -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Batch:
    """The rows of a block; None where they are not rows of fit's training data."""

    step: int
    block: Block
    rows: list[int] | None


def _compare_data(found: Comparison) -> list[Batch]:
    problem, stage = found.problem, found.stages["data"]
    batches = []
    for number, step in enumerate(found.seen.steps, 1):
        for block in step.blocks:
            if block.gradients and block.calls:
                labels = block.losses[0].y if block.losses else None
                batches.append(Batch(number, block, problem.train.find(block.calls[0].x, labels)))
    found.epochs = _epochs(
        [batch.rows for batch in batches],
        found.fit.get("epochs", 1) if found.whole else None,
        problem.steps,
    )
    if not batches:
        return batches
    for batch in batches:
        _check_rows(problem, stage, batch)
    for epoch in found.epochs:
        _check_labels(problem, stage, [batches[at] for at in epoch])
    if stage.status != DIFFERENT:
        _check_epochs(found, batches)
    if stage.status != DIFFERENT:
        stage.agree(0.0)
    return batches


def _check_rows(problem: Problem, stage: Stage, batch: Batch) -> None:
    line = batch.block.calls[0].line
    x = batch.block.calls[0].x
    if not x:  # not dense: no rows can be compared
        return
    if batch.rows is None:
        rows = [[array[number : number + 1] for array in x] for number in range(len(x[0]))]
        outside = [row for row in rows if not problem.train.holds(row)]
        validation = problem.validation
        if validation is not None and all(validation.holds(row) for row in outside):
            says = f"{len(outside)} of {len(rows)} rows of the batch are validation data"
            stage.depart("validation rows", says, batch.step, line)
        else:
            says = f"{len(outside)} of {len(rows)} inputs of the batch are not rows of x"
            stage.depart("other inputs", says, batch.step, line)
        return


def _check_labels(problem: Problem, stage: Stage, batches: list[Batch]) -> None:
    """The labels of an epoch: those of other rows, or none of the data's."""
    pairs = [(b, b.block.losses[0]) for b in batches if b.rows is not None and b.block.losses]
    wrong = [
        (batch, call)
        for batch, call in pairs
        if problem.train.y is not None and not problem.train.has_labels(call.y, batch.rows or [])
    ]
    if not wrong:
        return
    batch, call = wrong[0]
    rows = [row for part, _ in pairs for row in part.rows or ()]
    mine = [
        np.concatenate([np.ravel(loss.y[at]) for _, loss in pairs]) for at in range(len(call.y))
    ]
    if problem.train.has_labels(mine, rows, in_order=False):
        says, kind = "the labels of the batch belong to other rows of x", "labels apart"
    else:
        says, kind = "the labels of the batch are not those of its rows", "other labels"
    stage.depart(kind, says, batch.step, call.line)


def _check_epochs(found: Comparison, batches: list[Batch]) -> None:
    problem, stage = found.problem, found.stages["data"]
    line = batches[0].block.calls[0].line
    orders = []
    for number, epoch in enumerate(found.epochs, 1):
        rows = [list(batches[at].rows or ()) for at in epoch]
        sizes = [len(part) for part in rows]
        flat = [row for part in rows for row in part]
        orders.append(flat)
        if sizes and max(sizes) != min(problem.batch_size, problem.train.samples):
            says = f"batches of {max(sizes)} samples; fit: {problem.batch_size}"
            stage.depart("batch size", says, batches[epoch[0]].step, line)
            return
        missing = problem.train.samples - len(set(flat))
        where = f"epoch {number}: {missing} of {problem.train.samples} rows"
        step = batches[epoch[-1]].step
        amid = not found.whole or len(found.epochs) > 1
        if missing and amid and number == len(found.epochs):
            return  # the training ends amid an epoch: see the stage of the epochs
        remainder = problem.train.samples % problem.batch_size
        if missing and missing == remainder and len(set(sizes)) == 1:
            stage.depart("partial batch dropped", f"{where} left out: the last batch", step, line)
        elif missing:
            stage.depart("rows missing", f"{where} left out", step, line)
    if stage.status == DIFFERENT or problem.ordered:
        return
    ascending = [order == sorted(order) for order in orders]
    if not problem.shuffles and not all(ascending):
        says = "the rows are shuffled; fit leaves them in order (shuffle=False)"
        stage.depart("shuffled", says, 1, line)
    elif problem.shuffles and all(ascending) and problem.train.samples > problem.batch_size:
        stage.depart("not shuffled", "the rows come in their order; fit shuffles them", 1, line)
    elif problem.shuffles and problem.train.samples >= 32:
        ahead = max(row - place for order in orders for place, row in enumerate(order))
        if ahead < problem.train.samples // 3:
            says = f"no row comes more than {ahead} places early: a shuffle buffer of {ahead + 1}"
            stage.depart("small buffer", says, 1, line)
    if problem.shuffles and stage.status != DIFFERENT:
        stage.says = "shuffled by the loop's own means; fit is compared on these batches"


def _epochs(rows: list[list[int] | None], epochs: int | None, steps: int) -> list[list[int]]:
    """The numbers of the batches of each epoch: as many as fit's, or until a row comes again."""
    total = len(rows)
    if not total:
        return []
    each = total // epochs if epochs else 0
    if epochs and total == epochs * each:
        split = [list(range(at, at + each)) for at in range(0, total, each)]
        if each == steps or all(_distinct([rows[at] for at in part]) for part in split):
            return split
    found: list[list[int]] = [[]]
    seen: set[int] = set()
    for at, batch in enumerate(rows):
        if found[-1] and (seen & set(batch or ()) or len(found[-1]) == steps):
            found.append([])
            seen = set()
        found[-1].append(at)
        seen |= set(batch or ())
    return found


def _distinct(batches: list[list[int] | None]) -> bool:
    flat = [row for batch in batches for row in batch or ()]
    return len(flat) == len(set(flat))


# Steps ----------------------------------------------------------------------------------------


def _compare_steps(found: Comparison, batches: list[Batch]) -> None:
    """Forward, loss, gradients, update of each batch; fit's logs of each epoch meanwhile."""
    begin = time.monotonic()
    last_of_epoch = {epoch[-1]: number for number, epoch in enumerate(found.epochs)}
    first_of_epoch = {epoch[0] for epoch in found.epochs}
    slots: State | None = None
    own_slots: State | None = None
    whole = True
    for at, batch in enumerate(batches):
        step = found.seen.steps[batch.step - 1]
        late = time.monotonic() - begin > COMPARED_SECONDS
        if batch.rows is None or batch.block.before is None or late:
            whole = False
            continue
        if at in first_of_epoch:
            found.reference.model.reset_metrics()
            whole = True
        if not found.reference.takes(slots):
            slots = own_slots
        data = found.problem.train.batch(batch.rows)
        made = found.reference.step(batch.block.before, slots, data)
        compared = Compared(batch.step, step, batch.block, batch.rows, slots, made)
        found.steps.append(compared)
        if batch.block is step.blocks[-1]:
            own_slots = _compare_one(found, compared)
            slots = step.updates[-1].slots_after if step.updates else own_slots
        else:
            _compare_forward(found, compared)
            _compare_loss(found, compared)
        if at in last_of_epoch and whole and (found.whole or at < len(batches) - 1):
            number = last_of_epoch[at]
            while len(found.logs) < number:
                found.logs.append({})
            found.logs.append(made.logs)


def _compare_one(found: Comparison, compared: Compared) -> State:
    _compare_forward(found, compared)
    _compare_loss(found, compared)
    _compare_gradients(found, compared)
    return _compare_update(found, compared)


def _judge(
    found: Comparison, name: str, compared: Compared, kind: str, says: str, line: int, ulp: float
) -> None:
    """Notes a distance at a stage: a departure of its own only where no earlier stage departs."""
    stage = found.stages[name]
    if ulp <= MOST_ULP:
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
        mine = {place: _sum(part[place] for part in parts) / np.float32(blocks) for place in mine}
    ours = {place: g for place, g in given.items() if g is not None}
    if ours.keys() != mine.keys():
        lost = sorted(mine.keys() - ours.keys())
        names = ", ".join(found.reference.model.variables[place].path for place in lost)
        says = f"the optimizer is not given the gradients of {names}"
        _judge(found, "gradients", compared, "weights", says, line, np.inf)
        return
    ulp = gradient_distance(ours, mine)
    if ulp > MOST_ULP:  # clipped by the loop, as the optimizer would
        clip = getattr(found.reference.optimizer, "_clip_gradients", lambda values: values)
        tensors = [keras.ops.convert_to_tensor(mine[place]) for place in ours]
        clipped = dict(zip(ours, map(np.array, clip(tensors)), strict=True))
        ulp = min(ulp, gradient_distance(ours, clipped))
    scale = _norm(ours) / _norm(mine) if _norm(mine) else np.inf
    what = "the mean of the gradients" if blocks > 1 else "the gradients"
    says = f"the optimizer is given {what} with the norm times {scale:.6g}"
    _judge(found, "gradients", compared, "given", says, line, ulp)


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
    theirs, slots = found.reference.update(before, compared.slots, given)
    if len(step.blocks) > 1:
        if compared.departs:
            stage.follow()
        return slots
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


# End of the training --------------------------------------------------------------------------


def _compare_end(found: Comparison) -> None:
    stage, last = found.stages["epoch"], found.steps[-1] if found.steps else None
    if not found.whole:
        stage.says = "the loop was not observed to its end"
        return
    callbacks = bool(found.fit.get("callbacks"))
    expected = found.fit.get("epochs", 1) - found.fit.get("initial_epoch", 0)
    if found.epochs and len(found.epochs) != expected and not callbacks:
        says = f"{len(found.epochs)} epochs; fit: {expected}"
        stage.depart("number", says, len(found.seen.steps), 0)
    elif found.epochs and len(found.epochs[-1]) != len(found.epochs[0]) and not callbacks:
        says = f"the last epoch has {len(found.epochs[-1])} of {len(found.epochs[0])} batches"
        stage.depart("number", says, len(found.seen.steps), 0)
    if callbacks or last is None or last.number != len(found.seen.steps):
        if found.epochs and not callbacks:
            stage.agree(0.0)
        return
    updates = last.step.updates
    after = updates[-1].after if updates else last.step.settled
    if after is None:
        return
    own = updates[-1].slots_after if updates else None
    finalized = found.reference.finalized(after, own)
    trainable = found.reference.trainable
    worst = max(
        (elementwise(found.seen.final[p], finalized[p], after[p]) for p in trainable), default=0.0
    )
    if worst > MOST_ULP_OF_UPDATE and found.stages["update"].status != DIFFERENT:
        path = next(
            found.reference.model.variables[p].path
            for p in trainable
            if elementwise(found.seen.final[p], finalized[p], after[p]) > MOST_ULP_OF_UPDATE
        )
        same = all(np.array_equal(found.seen.final[p], after[p]) for p in trainable)
        what = "stays as the last update left it" if same else "is changed after the last update"
        fits = "fit writes the moving averages into it" if same else "fit leaves it"
        line = updates[-1].line if updates else 0
        stage.depart("end", f"{path} {what}; {fits}", last.number, line, worst)
    elif worst > MOST_ULP_OF_UPDATE:
        stage.follow()
    else:
        stage.agree(worst)


def _compare_history(found: Comparison) -> None:
    """The history that `train` returned, and fit's from the same states."""
    metrics, validation = found.stages["metrics"], found.stages["validation"]
    earlier = any(found.stages[name].status == DIFFERENT for name in ("data", "forward", "loss"))
    if found.history is None:
        metrics.says = metrics.says or "train returns no history"
    for name, values in (found.history or {}).items():
        stage = validation if name.startswith("val_") else metrics
        for epoch, mine in enumerate(values[: found.complete]):
            logs = validation_logs(found, epoch) if stage is validation else _logs(found, epoch)
            if name.removeprefix("val_") not in logs:
                continue
            theirs = logs[name.removeprefix("val_")]
            ulp = distance([np.float32(mine)], [np.float32(theirs)])
            if ulp <= MOST_ULP + len(found.epochs[0]):
                stage.agree(ulp)
            elif earlier and stage is metrics:
                stage.follow()
            else:
                fits = f"fit, from the same weights: {theirs:.7g}"
                says = f"epoch {epoch + 1}: {name} {mine:.7g}; {fits}"
                stage.depart(name, says, None, _metric_line(found, mine), ulp)
    if found.problem.validation is None:
        validation.says = "no validation data"
        return
    for step in found.seen.steps:
        for call in step.outside:
            if call.training and found.problem.validation.holds(call.x):
                says = "validation data are called with training=True; fit: training=False"
                validation.depart("training mode", says, None, call.line)
    if found.history is None or not any(name.startswith("val_") for name in found.history):
        validation.says = validation.says or "train returns no history of it"


def _logs(found: Comparison, epoch: int) -> dict[str, float]:
    return found.logs[epoch] if epoch < len(found.logs) else {}


def end_of_epoch(found: Comparison, epoch: int) -> State | None:
    """The model's variables when an epoch of training has ended, before its validation."""
    if epoch >= len(found.epochs):
        return None
    blocks = [block for step in found.seen.steps for block in step.blocks if block.gradients]
    block = blocks[found.epochs[epoch][-1]]
    step = next(step for step in found.seen.steps if block in step.blocks)
    return step.updates[-1].after if step.updates else step.settled


def validation_logs(found: Comparison, epoch: int) -> dict[str, float]:
    """What fit logs of the validation after an epoch, from the same weights."""
    if epoch not in found.validation_logs:
        state = end_of_epoch(found, epoch)
        if found.problem.validation is None or state is None:
            return {}
        size = found.fit.get("validation_batch_size") or found.problem.batch_size
        logs = found.reference.evaluate(state, found.problem.validation, size)
        found.validation_logs[epoch] = logs
    return found.validation_logs[epoch]


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


# Distances ------------------------------------------------------------------------------------


def merged(updates: list[Update]) -> dict[int, np.ndarray | None]:
    """The gradients of several updates."""
    values: dict[int, np.ndarray | None] = {}
    for update in updates:
        values |= update.values
    return values


def given_tensors(updates: list[Update]) -> dict[int, Any]:
    """The same as tensors."""
    tensors: dict[int, Any] = {}
    for update in updates:
        tensors |= update.tensors
    return tensors


def distance(a: Sequence[Any], b: Sequence[Any]) -> float:
    """In ULP of the largest value of each tensor; inf for other shapes, NaN or other integers."""
    if len(a) != len(b):
        return np.inf
    return max((_apart(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _apart(a: Any, b: Any, least: float = 0.0) -> float:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return np.inf
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f"):
        return 0.0
    if a.dtype.kind in "iub" or b.dtype.kind in "iub" or a.dtype.kind not in "fV":
        return np.inf
    narrow = np.float16 if np.float16 in (a.dtype, b.dtype) else np.float32
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return np.inf
    scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))), least)
    return float(np.max(np.abs(a - b)) / np.spacing(narrow(scale)))


def elementwise(a: np.ndarray, b: np.ndarray, before: np.ndarray) -> float:
    """In ULP of each value, or of the value before the update where that was larger."""
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return 0.0
    if a.dtype.kind not in "fV":
        return np.inf
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(before)).astype(np.float32)
    if not np.all(np.isfinite(scale)):
        return np.inf
    return float(np.max(np.abs(a.astype(np.float64) - b) / np.spacing(scale)))


def gradient_distance(a: dict[int, Any], b: dict[int, Any]) -> float:
    """As `distance`, by position; small gradients are measured by a tenth of the largest."""
    least = 0.1 * max((float(np.max(np.abs(g))) for g in b.values() if g.size), default=0.0)
    if not np.isfinite(least):
        return distance([a[place] for place in b], list(b.values()))
    return max((_apart(a[place], b[place], least) for place in b), default=0.0)


def _sum(parts: Iterable[Any]) -> Any:
    return sum(parts)


def _norm(values: dict[int, Any]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(v.astype(np.float64))) for v in values.values())))


def far(a: State, b: State) -> str:
    """The largest difference in words."""
    if len(a) != len(b) or any(np.shape(x) != np.shape(y) for x, y in zip(a, b, strict=True)):
        return "of another shape"
    pairs = zip(a, b, strict=True)
    largest = max(
        float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0))
        for x, y in pairs
    )
    return f"up to {largest:.3g} from fit's"
