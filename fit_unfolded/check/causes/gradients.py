"""Causes of departures in the gradients: which, how scaled, clipped and accumulated."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from fit_unfolded.check.causes.cause import OPTIMIZER, Cause
from fit_unfolded.check.distance import MOST_ULP_OF_GRADIENTS, gradient_distance
from fit_unfolded.check.mistakes import TRAINER
from fit_unfolded.check.stages import Compared, Comparison, Stage, merged
from fit_unfolded.pitfalls.source import Place

Gradients = dict[int, np.ndarray]

CLIPPED = Place(f"{OPTIMIZER}._backend_apply_gradients", "grads = self._clip_gradients(grads)")
TRAINED = Place(f"{TRAINER}.train_step", "trainable_weights = self.trainable_weights")
APPLIED = Place(f"{TRAINER}.train_step", "self.optimizer.apply_gradients(")
ACCUMULATED = Place(f"{OPTIMIZER}._backend_apply_gradients", "if self.gradient_accumulation_steps:")


def of_gradients(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Other weights, several batches for one update, or other gradients than the tape's."""
    departed = [step for step in found.steps if step.departs == "gradients"]
    if stage.kind == "weights":
        yield _of_weights(found, stage, departed)
    if stage.kind == "accumulated":
        title = "Gradients of several batches make one update"
        write = "optimizer.apply_gradients(...) after each batch, or gradient_accumulation_steps"
        yield Cause("accumulated", title, stage.says, ACCUMULATED, write, exact=True)
    if stage.kind != "given" or not departed:
        return
    blocks = len(departed[0].step.blocks)
    if blocks > 1:
        yield from _of_accumulation(found, departed[0], blocks)
        return
    pairs = [(known(step.gradients), known(merged(step.step.updates))) for step in departed]
    yield from _of_clipping(pairs)
    yield from _of_scaling(pairs)
    yield from _of_sum(found, departed)


def _of_weights(found: Comparison, stage: Stage, departed: list[Compared]) -> Cause:
    variables = found.reference.model.variables
    trained = {p for step in departed for p in known(step.gradients)}
    frozen = trained - set(found.reference.trainable)
    write = "tape.gradient(loss, model.trainable_weights)"
    if frozen:
        names = ", ".join(variables[place].path for place in sorted(frozen))
        says = f"{names}: trained, though not in model.trainable_weights"
        title = "Frozen layers are trained"
        return Cause("frozen-layers-trained", title, says, TRAINED, write, exact=True)
    title = "Gradients of other weights than model.trainable_weights"
    return Cause("other-weights", title, stage.says, TRAINED, write, exact=True)


def _of_clipping(pairs: list[tuple[Gradients, Gradients]]) -> Iterator[Cause]:
    for name, says, clip in _clips(*pairs[0]):
        worst = max(gradient_distance(given, clip(mine)) for mine, given in pairs)
        if worst <= MOST_ULP_OF_GRADIENTS:
            title = f"Gradients are clipped {says}"
            write = "optimizer.apply_gradients(zip(gradients, weights)); or clip in COMPILE too"
            measured = f"clipping the tape's gradients so gives the loop's, to {worst:.2g} ULP"
            yield Cause(name, title, measured, CLIPPED, write, exact=worst == 0)


def _of_scaling(pairs: list[tuple[Gradients, Gradients]]) -> Iterator[Cause]:
    ratios = {round(ratio_of(mine, given), 5) for mine, given in pairs}
    if len(ratios) != 1 or not math.isfinite(ratio := ratios.pop()):
        return
    worst = max(
        gradient_distance(given, {p: g * np.float32(ratio) for p, g in mine.items()})
        for mine, given in pairs
    )
    if worst <= MOST_ULP_OF_GRADIENTS:
        title = f"Gradients are multiplied by {ratio:.6g} before the update"
        measured = f"on each of {len(pairs)} steps, to {worst:.2g} ULP"
        write = "optimizer.apply_gradients(zip(gradients, weights))"
        yield Cause("gradients-scaled", title, measured, APPLIED, write, exact=worst == 0)


def _of_sum(found: Comparison, departed: list[Compared]) -> Iterator[Cause]:
    """Gradients that are added to those of all steps before."""
    total: Gradients = {}
    worst = 0.0
    for step in found.steps[: departed[-1].number]:
        for place, value in known(step.gradients).items():
            total[place] = total.get(place, np.float32(0)) + value
        if step in departed:
            worst = max(worst, gradient_distance(known(merged(step.step.updates)), total))
    if worst <= MOST_ULP_OF_GRADIENTS:
        title = "Gradients are added to those of the steps before"
        measured = f"their sum is given, to {worst:.2g} ULP"
        write = "set the accumulated gradients to zero after each update"
        name = "accumulated-without-reset"
        yield Cause(name, title, measured, ACCUMULATED, write, exact=worst == 0)


def _of_accumulation(found: Comparison, step: Compared, blocks: int) -> Iterator[Cause]:
    parts = [known(block.gradients[0].values) for block in step.step.blocks]
    given = known(merged(step.step.updates))

    def mean(parts: list[Any], by: int) -> Gradients:
        return {place: sum(part[place] for part in parts) / np.float32(by) for place in parts[0]}

    clip = getattr(found.reference.optimizer, "_clip_gradients", lambda values: values)

    def clipped(part: Any) -> Gradients:
        values = clip(list(map(tf.constant, part.values())))
        return dict(zip(part, map(np.array, values), strict=True))

    total = mean(parts, 1)
    worst = min(gradient_distance(given, total), gradient_distance(given, clipped(total)))
    if worst <= MOST_ULP_OF_GRADIENTS:
        title = "Accumulated gradients are not divided by the number of batches"
        measured = f"their sum over {blocks} batches is given, to {worst:.2g} ULP"
        write = f"[g / {blocks} for g in accumulated]"
        name = "accumulation-not-divided"
        yield Cause(name, title, measured, ACCUMULATED, write, exact=worst == 0)
    each = list(map(clipped, parts))
    if gradient_distance(mean(parts, blocks), mean(each, blocks)) <= MOST_ULP_OF_GRADIENTS:
        return  # nothing is clipped
    for by in (blocks, 1):
        worst = gradient_distance(given, mean(each, by))
        if worst <= MOST_ULP_OF_GRADIENTS:
            title = "The gradients of each batch are clipped before they are averaged"
            measured = f"this gives the loop's gradients, to {worst:.2g} ULP"
            write = "average the accumulated gradients, then clip them"
            yield Cause("clipped-before-averaging", title, measured, CLIPPED, write, worst == 0)


def known(values: dict[int, Any]) -> Gradients:
    """Without the weights that have no gradient."""
    return {place: value for place, value in values.items() if value is not None}


def _clips(mine: dict[int, Any], given: dict[int, Any]) -> Iterator[tuple[str, str, Callable]]:
    """Ways to clip, with the limit that the given gradients show."""
    values = known(given)
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
    yield "clipped-per-variable", f"each variable to the norm {each:.6g}", by_norm
    yield "clipped-global-norm", f"to the global norm {total:.6g}", by_global_norm


def ratio_of(mine: Gradients, given: Gradients) -> float:
    """The factor by which `mine` is nearest to `given`."""
    dot = sum(float(np.sum(given[p] * mine[p].astype(np.float64))) for p in given if p in mine)
    square = sum(float(np.sum(np.square(g.astype(np.float64)))) for g in mine.values())
    return dot / square if square else math.nan
