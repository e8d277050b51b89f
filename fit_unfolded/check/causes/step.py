"""Causes of departures in the forward pass and the loss."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from fit_unfolded import pitfalls
from fit_unfolded.check import mistakes
from fit_unfolded.check.causes.cause import Cause, cause_of
from fit_unfolded.check.distance import MOST_ULP, MOST_ULP_OF_GRADIENTS, distance, gradient_distance
from fit_unfolded.check.mistakes import Mistake
from fit_unfolded.check.observe import state_of
from fit_unfolded.check.stages import Compared, Comparison, Stage

TESTED_STEPS = 3


def of_step(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Mistakes in this project's step that make the loop's outputs, loss and gradients."""
    if stage.kind == "second call":
        yield from _of_second_call(found, stage)
        return
    foreign = [(s, call) for s in found.steps for call in s.block.calls if call.foreign]
    if foreign:
        pitfall = pitfalls.get("layer-built-in-step")
        says = f"on step {foreign[0][0].number}, a layer with weights is called that model has not"
        write = "make the layer once, in build()"
        yield Cause(pitfall.name, pitfall.title, says, pitfall.keras, write, exact=True)
        return
    departed = [step for step in found.steps if step.departs == stage.name]
    if not departed:
        return
    tested = departed[:TESTED_STEPS]
    rest, size = departed[TESTED_STEPS:], len(tested[0].rows)
    tested += [step for step in rest if len(step.rows) != size][:1]
    for mistake in mistakes.of_train_step(found.problem):
        if stage.name in mistake.stages and mistake.applies(found.reference.model):
            worst = _reproduces(found, mistake, tested, stage.name)
            if worst is not None and worst <= MOST_ULP:
                yield cause_of(mistake, worst, f"on {len(tested)} steps")


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
    worst = max(distance([settled[p]], [made[p]]) for p in places)
    if worst <= MOST_ULP:
        mistake = next(
            m for m in mistakes.of_train_step(found.problem) if m.name == "forward-twice"
        )
        yield cause_of(mistake, worst, f"on step {step.number}")


def _reproduces(
    found: Comparison, mistake: Mistake, steps: list[Compared], stage: str
) -> float | None:
    """How far this project's loop with the mistake is from the user's; None if it cannot be run."""
    reference = found.reference
    changed = mistake.change(reference, found.problem.batch_size)
    if changed is None:
        return None
    function, loss = changed
    worst = 0.0
    for step in steps:
        try:
            made = reference.step(step.block.before or [], step.slots, step.data, function, loss)
        except (ValueError, TypeError, AttributeError, tf.errors.OpError):  # needs other data
            return None
        if stage == "forward":
            calls = [call for call in step.block.calls if call.whole] or step.block.calls[-1:]
            worst = max(worst, distance(calls[0].outputs, made.outputs))
            updates = step.step.updates
            after = updates[-1].after if updates else step.step.settled
            for place in set(range(len(made.after))) - set(reference.trainable):
                if after is not None:
                    worst = max(worst, distance([after[place]], [made.after[place]]))
        else:
            gradient = step.block.gradients[0]
            worst = max(worst, distance([gradient.loss], [made.loss]))
            mine = {p: g for p, g in step.gradients.items() if g is not None}
            theirs = {p: g for p, g in made.gradients.items() if g is not None}
            if mine.keys() != theirs.keys():
                return None
            apart = gradient_distance(mine, theirs)
            if apart > MOST_ULP_OF_GRADIENTS:
                return apart
            worst = max(worst, min(apart, MOST_ULP))
        if worst > MOST_ULP:
            return worst
    return worst
