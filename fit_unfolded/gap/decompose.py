"""The difference between `loss` and `val_loss`, as a chain of replays with one change each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from fit_unfolded.comparison.ulp import log_distance
from fit_unfolded.gap.replay import Replays
from fit_unfolded.gap.snapshots import Snapshots, State
from fit_unfolded.workloads import Data

# The number of each part's entry in docs/details.md; a test holds them to it.
DETAILS = {
    "moving_weights": 41,
    "training_mode": 62,
    "batch_statistics": 62,
    "regularizers": 32,
    "weights": 21,
    "batches": 40,
    "rows": 7,
    "validation_weights": 21,
}
ROUNDING = 8  # ULP of the loss


@dataclass(frozen=True)
class Part:
    """One link of the chain.

    Attributes:
        name: its key in gap.json and `DETAILS`.
        title: its name in the table.
        change: what it adds on the way from `loss` to `val_loss`.
        value: the loss after it.
        why: what was changed, a sentence.
        because: the same, as the end of the sentence "... of it because".
    """

    name: str
    title: str
    change: float
    value: float
    why: str
    because: str


@dataclass(frozen=True)
class Gap:
    """The difference between the losses of one epoch, taken apart.

    Attributes:
        epoch: counted from 1.
        loss, val_loss: from the log of fit; `val_loss` is None without a validation.
        evaluate: the loss of `evaluate` on the training rows, with the weights that the validation
            measured.
        parts: in order; their changes add up to `whole`.
        replay_ulp: how far the replay of the epoch is from `loss`; infinite for NaN.
        validation_ulp: how far the replay of the validation is from `val_loss`; None without one.
        plain_mean: what `loss` would be as a plain mean of the batches' losses.
        penalties: the mean of `model.losses` in the epoch, and with the weights at its end; both
            are 0 without regularizers.
        after_fit: the loss of `evaluate` on the validation rows with the weights that fit has left;
            None where these are the ones that were validated.
    """

    epoch: int
    loss: float
    evaluate: float
    val_loss: float | None
    parts: tuple[Part, ...]
    replay_ulp: float
    validation_ulp: float | None
    plain_mean: float
    penalties: tuple[float, float]
    after_fit: float | None

    @property
    def last(self) -> float:
        """Where the chain ends."""
        return self.evaluate if self.val_loss is None else self.val_loss

    @property
    def whole(self) -> float:
        """The difference that is taken apart."""
        return self.last - self.loss

    @property
    def rounding(self) -> float:
        """Differences up to this are rounding."""
        return rounding(self.loss, self.last)

    def share(self, part: Part) -> float | None:
        """The part of the whole, 1 for all of it; None if the whole is only rounding."""
        return part.change / self.whole if abs(self.whole) > self.rounding else None

    def _repr_html_(self) -> str:
        """The terminal page, in the cell of a notebook."""
        from fit_unfolded.common.notebook import printed
        from fit_unfolded.gap.page import print_page

        return printed(print_page, f"Epoch {self.epoch}", self)

    def figures(self) -> dict[str, Any]:
        """Everything, for the record."""
        parts = [
            {
                "part": part.name,
                "change": part.change,
                "share": self.share(part),
                "loss_after": part.value,
                "why": part.why,
                "detail": DETAILS[part.name],
            }
            for part in self.parts
        ]
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "evaluate_train": self.evaluate,
            "val_loss": self.val_loss,
            "whole": self.whole,
            "parts": parts,
            "replay_ulp": self.replay_ulp,
            "validation_ulp": self.validation_ulp,
            "plain_mean": self.plain_mean,
            "penalties": dict(zip(("in_training", "at_the_end"), self.penalties, strict=True)),
            "evaluate_validation_after_fit": self.after_fit,
        }


def rounding(*losses: float) -> float:
    """A difference between float32 losses of this size that the order of sums can make."""
    return ROUNDING * float(np.spacing(np.float32(max(map(abs, losses)))))


class NotFinite(ArithmeticError):
    """A loss is NaN or infinite: there is no difference to take apart."""


def decompose(
    model: Any,
    snapshots: Snapshots,
    data: Data,
    fit: dict[str, Any],
    seed: int,
    left: State | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> Gap:
    """Takes the losses of the epoch apart that `snapshots` has kept.

    Args:
        model: the model that fit has trained; its variables and metrics are changed.
        data: as it was given to fit; a `tf.data.Dataset` must be new.
        fit: the other arguments of fit.
        seed: the random seed that was set before fit.
        left: the state that fit has left; None if it was stopped before its last epoch.
        advance: is called after each replay.

    Raises:
        NotFinite: the loss, or a loss of a replay, is NaN or infinite.
    """
    _check_finite(snapshots.loss, snapshots.val_loss)
    replays = Replays(model, snapshots, data, fit, seed)
    chain = _Chain(snapshots.loss)
    train, validation = replays.train, replays.validation
    if snapshots.val_loss is None:
        validation = None
    # weights that the validation has too stay
    drops = train.class_weight is not None or (
        train.weighted and not (validation is not None and validation.weighted)
    )
    adds = validation is not None and validation.weighted and (drops or not train.weighted)

    def measured(replay: Callable[[], Any]) -> Any:
        means = replay()
        _check_finite(*(means if isinstance(means, tuple) else [means]))
        advance()
        return means

    first = measured(replays.training)
    frozen = measured(replays.last_weights)
    others_off = measured(replays.batch_statistics) if replays.norms else None
    inference = measured(replays.inference)
    others_off = others_off or inference

    penalty = first.penalty  # stays in the loss until its turn
    for name, means in (
        ("moving_weights", frozen),
        ("training_mode", others_off),
        ("batch_statistics", inference),
    ):
        chain.add(name, means.loss - means.penalty + penalty, *_words(name, model))
    chain.add("regularizers", inference.loss, *_words("regularizers", model))
    if drops:
        kind = "class weights" if train.class_weight is not None else "sample weights"
        chain.add("weights", measured(replays.unweighted).loss, kind, *WEIGHTS[kind])
    rows = train.without_weights() if drops or adds else train._replace(class_weight=None)
    evaluate = measured(lambda: replays.evaluate(rows, of_validation=False))
    chain.add("batches", evaluate, *_words("batches", model))
    validation_ulp = after_fit = None
    if validation is not None and snapshots.val_loss is not None:
        replayed = measured(lambda: replays.evaluate(validation, of_validation=True))
        validation_ulp = log_distance(replayed, snapshots.val_loss)
        if adds:
            bare = validation.without_weights()
            value = measured(lambda: replays.evaluate(bare, of_validation=True))
            chain.add("rows", value, *_rows_words(value - evaluate))
            chain.add(
                "validation_weights", snapshots.val_loss, *_words("validation_weights", model)
            )
        else:
            chain.add("rows", snapshots.val_loss, *_rows_words(snapshots.val_loss - evaluate))
        if left is not None and _differ(model, left, snapshots.end):
            after_fit = replays.evaluate(validation, of_validation=True, state=left)
    penalties = first.penalty, inference.penalty
    return Gap(
        epoch=snapshots.epoch,
        loss=snapshots.loss,
        evaluate=evaluate,
        val_loss=snapshots.val_loss,
        parts=tuple(p for p in chain.parts if p.name != "regularizers" or any(penalties)),
        replay_ulp=log_distance(first.loss, snapshots.loss),
        validation_ulp=validation_ulp,
        plain_mean=first.plain,
        penalties=penalties,
        after_fit=after_fit,
    )


class _Chain:
    """Parts, each from the loss after the one before."""

    def __init__(self, loss: float):
        self.parts: list[Part] = []
        self._value = loss

    def add(self, name: str, value: float, title: str, why: str, because: str) -> None:
        change = value - self._value
        if abs(change) <= rounding(value, self._value):
            why = NOTHING.get(name, why)
        self.parts.append(Part(name, title, change, value, why, because))
        self._value = value


def _check_finite(*losses: float | None) -> None:
    for loss in losses:
        if loss is not None and not math.isfinite(loss):
            raise NotFinite(f"a loss is {loss}: there is no difference to take apart.")


def _differ(model: Any, a: State, b: State) -> bool:
    """Whether two states have other weights; seed generators are left out."""
    return any(
        variable.name != "seed_generator_state" and not np.array_equal(left, right)
        for variable, left, right in zip(model.variables, a.model, b.model, strict=True)
    )


# Words ----------------------------------------------------------------------------------------

# Of parts that change nothing, where the sentence is another.
NOTHING = {
    "moving_weights": "The weights did not change the loss within the epoch.",
    "training_mode": "No other layer acts differently in training.",
    "batches": "evaluate takes the rows in other batches; the mean over rows is the same.",
}

WEIGHTS = {
    "class weights": (
        "class_weight applies to training only; evaluate and the validation do not have it.",
        "class weights apply to training only",
    ),
    "sample weights": (
        "The training rows are weighted, the validation rows are not.",
        "only the training rows have sample weights",
    ),
}


def _words(name: str, model: Any) -> tuple[str, str, str]:
    """Title, sentence and reason of a part."""
    return {
        "moving_weights": (
            "moving weights",
            "loss is a mean over weights that every batch changes; evaluation uses those at the "
            "end of the epoch.",
            "loss is a mean over weights that changed from batch to batch",
        ),
        "training_mode": _training_mode_words(model),
        "batch_statistics": _batch_statistics_words(model),
        "regularizers": (
            "regularizers",
            "The penalties are in loss and in val_loss; they changed with the weights in the "
            "epoch.",
            "the regularizers' penalties changed in the epoch",
        ),
        "batches": (
            "batches",
            "evaluate takes the rows in other batches: with masks, sums or rows left out, another "
            "mean.",
            "evaluate takes the rows in other batches",
        ),
        "validation_weights": (
            "validation weights",
            "The validation rows are weighted, the training rows are not, or by class.",
            "the validation rows have sample weights",
        ),
    }[name]


def _training_mode_words(model: Any) -> tuple[str, str, str]:
    what = ", ".join(sorted({type(layer).__name__ for layer in _mode_layers(model)}))
    if not what:
        return (
            "training mode",
            "The model acts otherwise in training.",
            "the model acts otherwise in training",
        )
    return (
        "training mode",
        f"{what}: on in training, off in evaluation.",
        f"{what} {'are' if ',' in what else 'is'} on in training only",
    )


def _mode_layers(model: Any) -> list[Any]:
    """The layers that may act otherwise in training, without BatchNormalization.

    Those of Keras that draw random numbers, and those of the user that take `training`; many of
    Keras's layers take it and ignore it.
    """

    def acts(layer: Any) -> bool:
        own = not type(layer).__module__.startswith("keras.")
        draws = any(v.name == "seed_generator_state" for v in layer.variables)
        return draws or (own and "training" in layer.call_signature_parameters)

    layers = model._flatten_layers(include_self=False)
    outer = keras.Model | keras.layers.BatchNormalization
    return [
        layer
        for layer in layers
        if not isinstance(layer, outer)
        and acts(layer)
        and not any(map(acts, layer._flatten_layers(include_self=False)))
    ]


def _batch_statistics_words(model: Any) -> tuple[str, str, str]:
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not found:
        return (
            "BatchNorm",
            "The model has no BatchNormalization.",
            "BatchNormalization uses moving averages in evaluation",
        )
    return (
        "BatchNorm",
        "Statistics of each batch in training, moving averages in evaluation.",
        "BatchNormalization uses each batch's statistics in training and moving averages in "
        "evaluation",
    )


def _rows_words(change: float) -> tuple[str, str, str]:
    fits = {1: "less well than", -1: "better than", 0: "as well as"}[int(np.sign(change))]
    return (
        "rows",
        f"The model fits the validation rows {fits} the training rows.",
        f"the model fits the validation rows {fits} the training rows",
    )
