"""The causes of departures: the known mistakes that reproduce the numbers of the user's loop."""

from collections.abc import Callable, Iterator

from fit_unfolded.check.causes import gradients, logs, step, training, update
from fit_unfolded.check.causes.cause import Cause, Departure
from fit_unfolded.check.compare import compare_with
from fit_unfolded.check.stages import FOLLOWS, Comparison, Stage

__all__ = ["Cause", "Departure", "find"]

FINDERS: dict[str, Callable[[Comparison, Stage], Iterator[Cause]]] = {
    "initial_weights": training.of_initial_weights,
    "data": training.of_data,
    "forward": step.of_step,
    "loss": step.of_step,
    "gradients": gradients.of_gradients,
    "update": update.of_update,
    "metrics": logs.of_metrics,
    "epoch": training.of_epoch,
    "validation": logs.of_validation,
}
MOST_ROUNDS = 3  # mistakes in forward pass and loss that are looked for behind each other


def find(found: Comparison) -> list[Departure]:
    """All departures with their causes, in the order of a training.

    A departure in the forward pass or the loss hides those behind it. So once its cause is known,
    all is compared again with that mistake in fit's step; what departs then has another cause, and
    counts if that is a known one.
    """
    departures = [Departure(stage, causes_of(found, stage)) for stage in found.departed]
    for _ in range(MOST_ROUNDS):
        mistakes = [c.mistake for d in departures for c in d.causes if c.mistake]
        hides = {"forward", "loss"} & {stage.name for stage in found.departed}
        if not (hides and mistakes and any(s.status == FOLLOWS for s in found.stages.values())):
            break
        again = compare_with(found, mistakes[-1])
        if again is None:
            break
        known = {departure.stage.name for departure in departures}
        behind = [stage for stage in again.departed if stage.name not in known]
        more = [Departure(stage, causes_of(again, stage)) for stage in behind]
        more = [departure for departure in more if departure.causes]
        if not more:
            break
        departures += more
        found = again
    order = list(found.stages)
    departures.sort(key=lambda departure: order.index(departure.stage.name))
    return departures


def causes_of(found: Comparison, stage: Stage) -> list[Cause]:
    """The causes of one stage's departure; only those that are exact, if any is."""
    causes = list(FINDERS[stage.name](found, stage))
    exact = [cause for cause in causes if cause.exact] or causes
    return list({cause.name: cause for cause in reversed(exact)}.values())[::-1]
