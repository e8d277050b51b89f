"""The stage of the data: which rows each batch of the loop holds."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.check.distance import MOST_ULP, distance
from fit_unfolded.check.observe import Block, LossCall
from fit_unfolded.check.rows import Problem, Rows, taken
from fit_unfolded.check.stages import DIFFERENT, Comparison, Stage


@dataclass(eq=False)
class Batch:
    """A batch of the loop.

    Attributes:
        step: number of the update it leads to, counted from 1.
        rows: None where they are not rows of fit's training data.
        data: what fit's step is given in its place; None where that cannot be told.
    """

    step: int
    block: Block
    rows: list[int] | None
    data: Any = None


def compare_data(found: Comparison) -> list[Batch]:
    """Finds the rows of each batch, and compares them with those of fit."""
    problem, stage = found.problem, found.stages["data"]
    batches = []
    for number, step in enumerate(found.seen.steps, 1):
        for block in step.blocks:
            if block.gradients and block.calls:
                labels = block.losses[0].y if block.losses else None
                held = block.gradients[0].held
                rows = problem.train.find(block.calls[0].x, labels, held)
                batches.append(Batch(number, block, rows))
    found.epochs = _epochs(
        [batch.rows for batch in batches],
        found.fit.get("epochs", 1) - found.fit.get("initial_epoch", 0) if found.whole else None,
        problem,
    )
    if not batches:
        return batches
    everything = problem.train
    if problem.validation is not None:
        everything = everything.joined(problem.validation)
    for batch in batches:
        if batch.rows is not None:
            batch.data = problem.train.batch(batch.rows)
        else:
            _check_rows(problem, stage, batch, everything)
    came = {id(batch): _labels_of(found, batch) for batch in batches}
    for epoch in found.epochs:
        _check_labels(problem, stage, [(batches[at], came[id(batches[at])]) for at in epoch])
    if stage.status != DIFFERENT:
        _check_epochs(found, batches)
    if stage.status != DIFFERENT:
        stage.agree(0.0)
    return batches


def _check_rows(problem: Problem, stage: Stage, batch: Batch, everything: Rows) -> None:
    """A batch with other rows; the step is compared on them all the same."""
    call = batch.block.calls[0]
    if not call.x:  # not dense: no rows can be compared
        return
    labels = batch.block.losses[0].y if batch.block.losses else None
    rows = everything.find(call.x, labels)
    if rows is not None:
        outside = sum(row >= problem.train.samples for row in rows)
        says = f"{outside} of {len(rows)} rows of the batch are validation data"
        stage.depart("validation rows", says, batch.step, call.line)
        batch.data = everything.batch(rows)
        return
    each = [[array[number : number + 1] for array in call.x] for number in range(len(call.x[0]))]
    outside = sum(not problem.train.holds(row) for row in each)
    says = f"{outside} of {len(each)} inputs of the batch are not rows of x"
    stage.depart("other inputs", says, batch.step, call.line)
    batch.data = _as_called(problem.train, call.x, labels)


def _as_called(train: Rows, x: list[np.ndarray], y: list[np.ndarray] | None) -> Any:
    """The batch of these inputs and labels; None where they have not the structure of fit's."""
    if y is None or train.sample_weight is not None:
        return None
    try:
        x, y = (
            keras.tree.pack_sequence_as(part, list(map(tf.constant, values)))
            for part, values in ((train.x, x), (train.y, y))
        )
    except ValueError:
        return None
    return x, y


def _labels_of(found: Comparison, batch: Batch) -> LossCall | None:
    """The labels that a batch came with: of the call of a loss, or of a loss written by hand.

    Of the latter, an array beside the batch is meant that holds labels of the data only, if fit's
    step with them makes the loop's loss.
    """
    block, train = batch.block, found.problem.train
    if block.losses:
        return block.losses[0]
    if batch.rows is None or block.before is None or not isinstance(train.y, np.ndarray):
        return None
    gradient, right = block.gradients[0], taken(train.y, batch.rows)
    held = [a for a in gradient.held if a.size == right.size and np.all(np.isin(a, train.y))]
    if any(np.array_equal(np.ravel(array), np.ravel(right)) for array in held):
        return None
    for array in held:
        labels = tf.constant(np.reshape(array, right.shape).astype(right.dtype))
        data = (batch.data[0], labels, *batch.data[2:])
        made = found.reference.step(block.before, None, data)
        if distance([made.loss], [gradient.loss]) <= MOST_ULP:
            return LossCall([array], gradient.line)
    return None


def _check_labels(
    problem: Problem, stage: Stage, batches: list[tuple[Batch, LossCall | None]]
) -> None:
    """The labels of an epoch: those of other rows, or none of the data's."""
    pairs = [(batch, loss) for batch, loss in batches if batch.rows is not None and loss]
    wrong = [
        (batch, call)
        for batch, call in pairs
        if problem.train.y is not None and not problem.train.has_labels(call.y, batch.rows or [])
    ]
    if not wrong:
        return
    for part, loss in wrong:
        weight = None if part.data is None else part.data[2:]
        if weight is not None and len(loss.y) == 1 and tf.is_tensor(part.data[1]):
            labels = np.reshape(loss.y[0], part.data[1].shape)
            part.data = (part.data[0], tf.cast(labels, part.data[1].dtype), *weight)
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
        if found.fit.get("steps_per_epoch") and len(epoch) == problem.steps:
            continue
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
    same = len(orders) > 1 and all(order == orders[0] for order in orders[1:])
    if problem.shuffles and same and stage.status != DIFFERENT:
        says = "all epochs have one permutation of the rows; fit, without a seed, draws new ones"
        stage.depart("one permutation", says, batches[found.epochs[1][0]].step, line)
    if problem.shuffles and stage.status != DIFFERENT:
        stage.says = "shuffled by the loop's own means; fit is compared on these batches"


def _epochs(rows: list[list[int] | None], epochs: int | None, problem: Problem) -> list[list[int]]:
    """The numbers of the batches of each epoch.

    Passes over all the data if the batches are that; else as many epochs as fit has; else an epoch
    ends where a row comes again.
    """
    total, steps = len(rows), problem.steps
    if not total:
        return []
    passes = [list(range(at, min(at + steps, total))) for at in range(0, total, steps)]
    drawn = [[row for at in part for row in rows[at] or ()] for part in passes]
    complete = all(sorted(part) == list(range(problem.train.samples)) for part in drawn[:-1])
    if complete and len(set(drawn[-1])) == len(drawn[-1]):
        return passes
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
