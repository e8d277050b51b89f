"""The cause of a departure: the known mistakes that reproduce the numbers of the user's loop."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded import pitfalls
from fit_unfolded.check import mistakes, stages
from fit_unfolded.check.mistakes import TRAINER, Mistake
from fit_unfolded.check.observe import State, Update, state_of
from fit_unfolded.check.reference import floats
from fit_unfolded.check.stages import MOST_ULP, MOST_ULP_OF_UPDATE, Compared, Comparison, Stage
from fit_unfolded.pitfalls.source import Place
from manual_loop.steps import test_step, train_step

TESTED_STEPS = 3
ARRAYS = "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter"
OPTIMIZER = "keras.src.optimizers.base_optimizer:BaseOptimizer"


@dataclass(frozen=True)
class Cause:
    """A known mistake that makes the numbers of the user's loop.

    Attributes:
        name: the pitfall's, if the catalogue has one.
        title, says: one line each: what is wrong, and what was measured.
        keras: where fit does it.
        write: the line to write.
        exact: whether it reproduces the numbers to the last bit.
    """

    name: str
    title: str
    says: str
    keras: Place
    write: str
    exact: bool

    @property
    def pitfall(self) -> bool:
        """Whether the catalogue has a page for it."""
        return self.name in pitfalls.names()


def find(found: Comparison) -> list[Cause]:
    """The causes of the first stage that departs; those that are exact first.

    Several causes that are one mistake seen in two ways on this problem are all listed.
    """
    stage = found.first
    if stage is None:
        return []
    finders: dict[str, Callable[[Comparison, Stage], Iterator[Cause]]] = {
        "data": _of_data,
        "forward": _of_step,
        "loss": _of_step,
        "gradients": _of_gradients,
        "update": _of_update,
        "metrics": _of_metrics,
        "epoch": _of_epoch,
        "validation": _of_validation,
    }
    causes = list(finders[stage.name](found, stage)) if stage.name in finders else []
    exact = [cause for cause in causes if cause.exact]
    return exact or causes


# Forward and loss -----------------------------------------------------------------------------


def _of_step(found: Comparison, stage: Stage) -> Iterator[Cause]:
    if stage.kind == "second call":
        yield from _of_second_call(found, stage)
        return
    departed = [step for step in found.steps if step.departs == stage.name]
    if not departed:
        return
    tested = departed[:TESTED_STEPS]
    rest, size = departed[TESTED_STEPS:], len(tested[0].rows)
    tested += [step for step in rest if len(step.rows) != size][:1]
    for mistake in mistakes.of_train_step():
        if stage.name in mistake.stages and mistake.applies(found.reference.model):
            worst = _reproduces(found, mistake, tested, stage.name)
            if worst is not None and worst <= MOST_ULP:
                yield _cause(mistake, worst, f"on {len(tested)} steps")


def _of_second_call(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """A call in training mode after the update, which moves averages and random states."""
    step = next(step for step in found.steps if step.number == stage.step)
    after, settled = step.step.updates[-1].after, step.step.settled
    if after is None or settled is None:
        return
    model = found.reference.model
    found.reference.restore(after, None)
    calls = [call for call in step.step.outside if call.training and call.whole]
    for call in calls:
        x = keras.tree.pack_sequence_as(found.problem.train.x, list(map(tf.constant, call.x)))
        model(x, training=True)
    places = set(range(len(after))) - set(found.reference.trainable)
    made = state_of(model)
    worst = max(stages.distance([settled[p]], [made[p]]) for p in places)
    if worst <= MOST_ULP:
        mistake = next(m for m in mistakes.of_train_step() if m.name == "forward-twice")
        yield _cause(mistake, worst, f"on step {step.number}")


def _reproduces(
    found: Comparison, mistake: Mistake, steps: list[Compared], stage: str
) -> float | None:
    """How far this project's loop with the mistake is from the user's; None if it cannot be run."""
    reference = found.reference
    loss = mistake.loss(reference, found.problem.batch_size) if mistake.loss else None
    if mistake.loss and loss is None:
        return None
    function = mistake.edit.wrong_function() if mistake.edit else None
    worst = 0.0
    for step in steps:
        data = found.problem.train.batch(step.rows)
        try:
            made = reference.step(step.block.before or [], step.slots, data, function, loss)
        except (ValueError, TypeError, AttributeError, tf.errors.OpError):  # needs other data
            return None
        if stage == "forward":
            calls = [call for call in step.block.calls if call.whole] or step.block.calls[-1:]
            worst = max(worst, stages.distance(calls[0].outputs, made.outputs))
            updates = step.step.updates
            after = updates[-1].after if updates else step.step.settled
            for place in set(range(len(made.after))) - set(reference.trainable):
                if after is not None:
                    worst = max(worst, stages.distance([after[place]], [made.after[place]]))
        else:
            gradient = step.block.gradients[0]
            worst = max(worst, stages.distance([gradient.loss], [made.loss]))
            mine = {p: g for p, g in step.gradients.items() if g is not None}
            theirs = {p: g for p, g in made.gradients.items() if g is not None}
            if mine.keys() != theirs.keys():
                return None
            worst = max(worst, stages.gradient_distance(mine, theirs))
        if worst > MOST_ULP:
            return worst
    return worst


def _cause(mistake: Mistake, worst: float, where: str) -> Cause:
    says = "to the last bit" if not worst else f"to {worst:.2g} ULP, rounding"
    return Cause(
        name=mistake.name,
        title=mistake.title,
        says=f"this project's loop with this mistake makes the same numbers, {says}, {where}",
        keras=mistake.keras,
        write=mistake.write,
        exact=worst == 0,
    )


# Data -----------------------------------------------------------------------------------------

ROWS = Place(f"{ARRAYS}.get_tf_dataset", "indices = tf.range(num_samples")
PERMUTED = Place(f"{ARRAYS}.get_tf_dataset", "indices = tf.random.shuffle(indices)")
REMAINDER = Place(f"{ARRAYS}.get_tf_dataset", "flat_dataset = flat_dataset.concatenate(")
SIZE = Place(f"{ARRAYS}.__init__", "self._size = int(math.ceil(")
SPLIT = Place(
    "keras.src.trainers.data_adapters.array_slicing:train_validation_split", "val_arrays = tree"
)
# By kind of departure: name, title, Keras's line, the line to write. The rows themselves show it.
OF_ROWS = {
    "partial batch dropped": (
        "partial-batch-dropped",
        "The last, smaller batch is dropped",
        REMAINDER,
        "dataset.batch(batch_size), without drop_remainder; range(0, n, batch_size)",
    ),
    "labels apart": (
        "labels-apart",
        "x and y are shuffled apart",
        PERMUTED,
        "order = rng.permutation(n); x, y = x[order], y[order]",
    ),
    "batch size": ("other-batch-size", "Another batch size", SIZE, "take batch_size from FIT"),
    "shuffled": (
        "shuffled",
        "The rows are shuffled, though FIT has shuffle=False",
        ROWS,
        "leave out the shuffling",
    ),
    "not shuffled": (
        "not-shuffled",
        "The rows are not shuffled",
        PERMUTED,
        "order = rng.permutation(n) in each epoch; dataset.shuffle(n)",
    ),
    "small buffer": (
        "small-shuffle-buffer",
        "A shuffle buffer smaller than the data",
        PERMUTED,
        "dataset.shuffle(n), with the number of samples",
    ),
}


def _of_data(found: Comparison, stage: Stage) -> Iterator[Cause]:
    if stage.kind == "validation rows":
        name = "shuffled-split" if found.problem.held_out else "validation-rows-in-training"
        title = "Validation rows among the training data"
        write = "at = int(n * (1 - validation_split)); train on x[:at], before any shuffling"
        yield Cause(name, title, stage.says, SPLIT, write, exact=True)
    elif stage.kind in OF_ROWS:
        name, title, place, write = OF_ROWS[stage.kind]
        yield Cause(name, title, stage.says, place, write, exact=True)


# Gradients ------------------------------------------------------------------------------------

CLIPPED = Place(f"{OPTIMIZER}._backend_apply_gradients", "grads = self._clip_gradients(grads)")
TRAINED = Place(f"{TRAINER}.train_step", "trainable_weights = self.trainable_weights")
APPLIED = Place(f"{TRAINER}.train_step", "self.optimizer.apply_gradients(")
ACCUMULATED = Place(f"{OPTIMIZER}._backend_apply_gradients", "if self.gradient_accumulation_steps:")


def _of_gradients(found: Comparison, stage: Stage) -> Iterator[Cause]:
    departed = [step for step in found.steps if step.departs == "gradients"]
    if stage.kind == "weights":
        write = "tape.gradient(loss, model.trainable_weights)"
        title = "Gradients of other weights than model.trainable_weights"
        yield Cause("other-weights", title, stage.says, TRAINED, write, exact=True)
    if stage.kind == "accumulated":
        title = "Gradients of several batches make one update"
        write = "optimizer.apply_gradients(...) after each batch, or gradient_accumulation_steps"
        yield Cause("accumulated", title, stage.says, ACCUMULATED, write, exact=True)
    if stage.kind != "given" or not departed:
        return
    pairs = [(step.gradients, stages.merged(step.step.updates)) for step in departed]
    blocks = len(departed[0].step.blocks)
    if blocks > 1:
        yield from _of_accumulation(departed[0], blocks)
        return
    for name, says, clip in _clips(*pairs[0]):
        worst = max(
            stages.gradient_distance(_known(given), clip(_known(mine))) for mine, given in pairs
        )
        if worst <= MOST_ULP:
            title = f"Gradients are clipped {says}"
            write = "optimizer.apply_gradients(zip(gradients, weights)); or clip in COMPILE too"
            measured = f"clipping the tape's gradients so gives his, to {worst:.2g} ULP"
            yield Cause(name, title, measured, CLIPPED, write, exact=worst == 0)
    ratios = {round(_ratio(mine, given), 5) for mine, given in pairs}
    if len(ratios) == 1 and math.isfinite(ratio := ratios.pop()):
        worst = max(
            stages.gradient_distance(
                _known(given), {p: g * np.float32(ratio) for p, g in _known(mine).items()}
            )
            for mine, given in pairs
        )
        if worst <= MOST_ULP:
            title = f"Gradients are multiplied by {ratio:.6g} before the update"
            measured = f"on each of {len(pairs)} steps, to {worst:.2g} ULP"
            write = "optimizer.apply_gradients(zip(gradients, weights))"
            yield Cause("gradients-scaled", title, measured, APPLIED, write, exact=worst == 0)


def _of_accumulation(step: Compared, blocks: int) -> Iterator[Cause]:
    parts = [_known(block.gradients[0].values) for block in step.step.blocks]
    total = {place: sum(part[place] for part in parts) for place in parts[0]}
    worst = stages.gradient_distance(_known(stages.merged(step.step.updates)), total)
    if worst <= MOST_ULP:
        title = "Accumulated gradients are not divided by the number of batches"
        measured = f"their sum over {blocks} batches is given, to {worst:.2g} ULP"
        write = f"[g / {blocks} for g in accumulated]"
        name = "accumulated-without-division"
        yield Cause(name, title, measured, ACCUMULATED, write, exact=worst == 0)


def _known(values: dict[int, Any]) -> dict[int, np.ndarray]:
    return {place: value for place, value in values.items() if value is not None}


def _clips(mine: dict[int, Any], given: dict[int, Any]) -> Iterator[tuple[str, str, Callable]]:
    """Ways to clip, with the limit that the given gradients show."""
    values = _known(given)
    largest = max(float(np.max(np.abs(value))) for value in values.values())
    each = max(float(np.linalg.norm(np.ravel(value))) for value in values.values())
    total = math.sqrt(sum(float(np.sum(np.square(value))) for value in values.values()))

    def by_value(known):
        return {p: np.clip(g, -largest, largest) for p, g in known.items()}

    def by_norm(known):
        return {p: np.array(tf.clip_by_norm(g, each)) for p, g in known.items()}

    def by_global_norm(known):
        clipped, _ = tf.clip_by_global_norm(list(known.values()), total)
        return dict(zip(known, map(np.array, clipped), strict=True))

    yield "clipped-by-value", f"to values up to {largest:.6g}", by_value
    yield "clipped-each-variable", f"each variable to the norm {each:.6g}", by_norm
    yield "clipped-global-norm", f"to the global norm {total:.6g}", by_global_norm


def _ratio(mine: dict[int, Any], given: dict[int, Any]) -> float:
    mine, given = _known(mine), _known(given)
    dot = sum(float(np.sum(given[p] * mine[p].astype(np.float64))) for p in given if p in mine)
    square = sum(float(np.sum(np.square(g.astype(np.float64)))) for g in mine.values())
    return dot / square if square else math.nan


# Update ---------------------------------------------------------------------------------------

STEP = Place(f"{OPTIMIZER}._backend_update_step", "self.update_step(grad, var, learning_rate)")
STATE = Place(f"{OPTIMIZER}.apply", "self._iterations.assign_add(1)")
CONSTRAINED = Place(f"{OPTIMIZER}.apply", "if variable.constraint is not None:")


def _of_update(found: Comparison, stage: Stage) -> Iterator[Cause]:
    departed = [step for step in found.steps if step.departs == "update"][:TESTED_STEPS]
    if stage.kind == "frozen":
        write = "tape.gradient(loss, model.trainable_weights)"
        title = "Frozen weights are trained"
        yield Cause("frozen-trained", title, stage.says, TRAINED, write, exact=True)
    if stage.kind != "weights" or not departed:
        return
    unscaled = list(_of_unscaled(found, departed))
    yield from unscaled
    yield from _of_new_optimizer(found, departed)
    if not unscaled:  # its optimizer is the one inside fit's
        yield from _of_other_optimizer(found, departed)
    yield from _of_plain_descent(found, departed)
    yield from _of_constraints(found, departed)


def _worst(found: Comparison, steps: list[Compared], made: Callable[[Compared], State]) -> float:
    """How far the trained weights after the update are from those that `made` gives."""
    worst = 0.0
    for step in steps:
        theirs = made(step)
        before, after, _ = _update_of(step)
        for place in found.reference.trainable:
            worst = max(worst, stages.elementwise(after[place], theirs[place], before[place]))
    return worst


def _update_of(step: Compared) -> tuple[State, State, dict[int, Any]]:
    updates = step.step.updates
    if updates:
        before, after = updates[0].before or [], updates[-1].after or []
        return before, after, stages.given_tensors(updates)
    return step.block.before or [], step.step.settled or [], dict(step.gradients)


def _of_new_optimizer(found: Comparison, steps: list[Compared]) -> Iterator[Cause]:
    def fresh(step: Compared) -> State:
        before, _, gradients = _update_of(step)
        return found.reference.update(before, None, gradients)[0]

    worst = _worst(found, steps[:1], fresh)
    if steps[0].number > 1 and worst <= MOST_ULP_OF_UPDATE:
        optimizers = {id(u.optimizer) for s in found.seen.steps for u in s.updates}
        yield Cause(
            "new-optimizer",
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
    differences = list(_configuration_differences(update, theirs))
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
        yield Cause(
            "other-optimizer-arguments" if same else "other-optimizer",
            f"{title}: {', '.join(names[:3])}",
            f"{says}; his make his numbers, to {worst:.2g} ULP",
            STEP,
            f"optimizer = keras.optimizers.{type(theirs).__name__}("
            + ", ".join(f"{name}={b!r}" for name, _, b in differences[:3] if name != "class")
            + ")",
            exact=worst == 0,
        )


def _configuration_differences(update: Update, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    if not update.configuration:
        return
    if type(update.optimizer) is not type(theirs):
        yield "class", type(update.optimizer).__name__, type(theirs).__name__
        return
    a, b = update.configuration, theirs.get_config()
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
        data = found.problem.train.batch(step.rows)
        return found.reference.step(step.block.before or [], step.slots, data, function).after

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
    rate = np.float32(_ratio(gradients, deltas))

    def made(step: Compared) -> State:
        start, _, values = _update_of(step)
        state = list(start)
        for place, value in _known(values).items():
            state[place] = start[place] - rate * value
        return state

    worst = _worst(found, steps, made)
    if worst <= MOST_ULP_OF_UPDATE:
        yield Cause(
            "plain-gradient-descent",
            f"Weights are updated by hand: minus {rate:.6g} times the gradient",
            f"this makes his weights, to {worst:.2g} ULP",
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
            f"fit's update without them makes his weights, to {worst:.2g} ULP",
            CONSTRAINED,
            "optimizer.apply_gradients(zip(gradients, model.trainable_weights))",
            exact=worst == 0,
        )


# Logs -----------------------------------------------------------------------------------------

RESET = Place(f"{TRAINER}.fit", "self.reset_metrics()")
MEAN = Place(f"{TRAINER}.train_step", "self._loss_tracker.update_state(")


def _of_metrics(found: Comparison, stage: Stage) -> Iterator[Cause]:
    mine = {n: v for n, v in (found.history or {}).items() if not n.startswith("val_")}
    epochs = range(min(found.complete, len(found.logs), 2))
    for mistake in mistakes.of_logs():
        if found.problem.train.sample_weight is None and "weight" in mistake.name:
            continue
        function = mistake.edit.wrong_function() if mistake.edit else None
        worst, tested = 0.0, 0
        for epoch in epochs:
            if worst <= MOST_ULP + len(found.epochs[0]):
                logs = {epoch: _replay(found, epoch, function)}
                worst, tested = max(worst, _logs_apart(mine, logs)), tested + 1
        if worst <= MOST_ULP + len(found.epochs[0]):
            yield _cause(mistake, worst, f"on {tested} epochs")
    if _logs_apart(mine, {0: found.logs[0]}) <= MOST_ULP + len(found.epochs[0]):
        yield from _of_resets(found, mine, epochs, validation=False)
    last = {
        epoch: {"loss": float(_steps(found, epoch)[-1].block.gradients[0].loss)}
        for epoch in epochs
        if _steps(found, epoch)
    }
    worst = _logs_apart({n: v for n, v in mine.items() if n == "loss"}, last)
    if "loss" in mine and stage.kind == "loss" and worst <= MOST_ULP:
        title = "The loss of the last batch is logged for the epoch"
        write = "loss_mean.update_state(loss, sample_weight=tf.shape(x)[0]) for each batch"
        says = f"it is the logged number, to {worst:.2g} ULP"
        yield Cause("last-batch-logged", title, says, MEAN, write, worst == 0)


def _steps(found: Comparison, epoch: int) -> list[Compared]:
    blocks = [block for step in found.seen.steps for block in step.blocks if block.gradients]
    mine = {id(blocks[at]) for at in found.epochs[epoch]}
    return [step for step in found.steps if id(step.block) in mine]


def _replay(
    found: Comparison, epoch: int, function: Callable | None, reset: bool = True
) -> dict[str, float]:
    """The logs of an epoch, by this project's loop from the state before each batch."""
    if reset:
        found.reference.model.reset_metrics()
    logs: dict[str, float] = {}
    for step in _steps(found, epoch):
        data = found.problem.train.batch(step.rows)
        before = step.block.before or []
        logs = found.reference.step(before, step.slots, data, function or train_step).logs
    return logs


def _logs_apart(mine: dict[str, list[float]], logs: dict[int, dict[str, float]]) -> float:
    """In ULP over all names and epochs; inf if there is nothing to compare."""
    apart = [
        stages.distance([np.float32(values[epoch])], [np.float32(theirs[name])])
        for name, values in mine.items()
        for epoch, theirs in logs.items()
        if name in theirs and epoch < len(values)
    ]
    return max(apart, default=np.inf)


# End and validation ---------------------------------------------------------------------------


def _of_epoch(found: Comparison, stage: Stage) -> Iterator[Cause]:
    if stage.kind == "number":
        title = "Another number of epochs"
        place = Place(f"{TRAINER}.fit", "for epoch in range(initial_epoch, epochs):")
        yield Cause(
            "other-epochs", title, stage.says, place, "for epoch in range(epochs):", exact=True
        )
    if stage.kind == "end" and getattr(found.reference.optimizer, "use_ema", False):
        mistake = pitfalls.get("averages-not-written")
        write = "optimizer.finalize_variable_values(model.trainable_weights)"
        yield Cause(mistake.name, mistake.title, stage.says, mistake.keras, write, exact=True)


def _of_validation(found: Comparison, stage: Stage) -> Iterator[Cause]:
    validation = found.problem.validation
    mine = {
        n.removeprefix("val_"): v for n, v in (found.history or {}).items() if n.startswith("val_")
    }
    if validation is None:
        return
    epochs = range(min(found.complete, 2))
    known = mistakes.of_test_step()
    if not mine:  # only the calls show it
        known = [m for m in known if m.name == "evaluating-in-training-mode"]
        yield from (_cause(m, 0.0, "in the calls of the model") for m in known)
        return
    for mistake in known:
        if validation.sample_weight is None and mistake.name == "weights-left-out":
            continue
        assert mistake.edit is not None
        function = mistake.edit.wrong_function()
        logs = {epoch: _evaluate(found, epoch, function) for epoch in epochs}
        worst = _logs_apart(mine, logs)
        if worst <= MOST_ULP:
            yield _cause(mistake, worst, f"on {len(logs)} epochs")
    yield from _of_resets(found, mine, epochs, validation=True)


def _of_resets(
    found: Comparison, mine: dict[str, list[float]], epochs: Iterable[int], validation: bool
) -> Iterator[Cause]:
    """Metrics that go on from the epoch before, from the training or from the validation."""
    place = Place(f"{TRAINER}.evaluate", "self.reset_metrics()") if validation else RESET
    where = "validation" if validation else "epoch"
    mistake = pitfalls.get("metrics-not-reset")
    known = Mistake(
        mistake.name, mistake.title, (), place, f"metric.reset_state() before each {where}"
    )
    for before_epoch, before_validation in ((False, True), (False, False), (True, False)):
        logs: dict[int, dict[str, float]] = {}
        for epoch in epochs:
            training = _replay(found, epoch, None, reset=before_epoch or not epoch)
            tested = _evaluate(found, epoch, test_step, reset=before_validation)
            logs[epoch] = tested if validation else training
            if _logs_apart(mine, logs) > MOST_ULP + len(found.epochs[0]):
                break
        worst = _logs_apart(mine, logs)
        if len(logs) > 1 and worst <= MOST_ULP + len(found.epochs[0]):
            yield _cause(known, worst, f"on {len(logs)} epochs")
            return
    if validation:  # a metric of the validation's own, never reset
        logs = {epoch: _evaluate(found, epoch, test_step, reset=not epoch) for epoch in epochs}
        worst = _logs_apart(mine, logs)
        if len(logs) > 1 and worst <= MOST_ULP:
            yield _cause(known, worst, f"on {len(logs)} epochs")


def _evaluate(
    found: Comparison, epoch: int, function: Callable, reset: bool = True
) -> dict[str, float]:
    """The logs of a validation by this project's step, or a wrong one."""
    reference, rows = found.reference, found.problem.validation
    state = stages.end_of_epoch(found, epoch)
    if state is None or rows is None:
        return {}
    reference.restore(state, None)
    if reset:
        reference.model.reset_metrics()
    configuration = reference.configuration
    size = found.fit.get("validation_batch_size") or found.problem.batch_size
    logs: dict[str, Any] = {}
    for at in range(0, rows.samples, size):
        data = rows.batch(list(range(at, min(at + size, rows.samples))))
        logs = function(reference.model, configuration.loss, configuration.metrics, data)
    return floats(logs)
