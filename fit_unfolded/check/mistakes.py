"""Known mistakes, as changes of this project's loop that can be run on any model and data.

A mistake with an `edit` replaces lines of `manual_loop/steps.py`; one with a `loss` replaces the
compiled loss. Those that are pitfalls of the catalogue too bear its name.
"""

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded import pitfalls
from fit_unfolded.check.reference import Reference
from fit_unfolded.check.rows import Problem
from fit_unfolded.pitfalls.source import Edit, Place

TRAIN_STEP = "manual_loop.distribution.single_device:train_step"
TEST_STEP = "manual_loop.distribution.single_device:test_step"
# `(y, y_pred, sample_weight, losses) -> loss`
CompiledLoss = Callable[[Any, Any, Any, list[Any]], Any]

TRAINER = "keras.src.backend.tensorflow.trainer:TensorFlowTrainer"
FORWARD = Place(f"{TRAINER}.train_step", "y_pred = self(x, training=True)")
LOSS_CALLED = Place(f"{TRAINER}.train_step", "loss = self._compute_loss(")
FURTHER_LOSSES = Place(
    "keras.src.trainers.trainer:Trainer.compute_loss", "for loss in self.losses:"
)
REDUCED = Place("keras.src.losses.loss:reduce_values", "divisor = ops.cast(")
WEIGHTED = Place("keras.src.trainers.compile_utils:CompileLoss.call", "loss_fn(y_t, y_p, _sample")
MASKED = Place("keras.src.losses.loss:Loss.__call__", "in_mask = backend.get_keras_mask(y_pred)")
OUTPUT_WEIGHTED = Place(
    "keras.src.trainers.compile_utils:CompileLoss.call", "if loss_weight is not None:"
)
METRICS = Place(f"{TRAINER}.train_step", "return self.compute_metrics(")
VALIDATED = Place(f"{TRAINER}.fit", "self._eval_epoch_iterator = TFEpochIterator(")


@dataclass(frozen=True)
class Mistake:
    """One way to write a step wrong.

    Attributes:
        name: the pitfall's, if the catalogue has one.
        title: one line.
        stages: where it can be the first to show.
        keras: where fit does it right.
        write: the line to write.
        edit: of `train_step` or `test_step`.
        loss: `(reference, batch_size) -> compiled loss`, None where it cannot be made.
        applies: whether the model has what it concerns.
    """

    name: str
    title: str
    stages: tuple[str, ...]
    keras: Place
    write: str
    edit: Edit | None = None
    loss: Callable[[Reference, int], CompiledLoss | None] | None = None
    applies: Callable[[Any], bool] = lambda model: True

    def change(
        self, reference: Reference, batch_size: int
    ) -> tuple[Callable | None, CompiledLoss | None] | None:
        """The step function and the loss that are wrong so; None where it cannot be made."""
        loss = self.loss(reference, batch_size) if self.loss else reference.loss
        if self.loss and loss is None:
            return None
        function = reference.step_function
        if self.edit is not None:
            with contextlib.ExitStack() as stack:
                for edit in reference.edits:
                    stack.enter_context(edit.applied())
                try:
                    function = self.edit.wrong_function()
                except LookupError:  # the lines are gone already
                    return None
        return function, loss


def has(*classes: type) -> Callable[[Any], bool]:
    """Whether a model has a layer of these classes, in models inside it too."""

    def applies(model: Any) -> bool:
        return any(isinstance(layer, classes) for layer in model._flatten_layers())

    return applies


# Losses ---------------------------------------------------------------------------------------


def _plain(change: Callable[..., Any]) -> Callable[[Reference, int], CompiledLoss]:
    """`change(right, y, y_pred, sample_weight, losses, batch_size)` as a compiled loss."""

    def make(reference: Reference, batch_size: int) -> CompiledLoss:
        right = reference.compiled_loss
        return lambda y, y_pred, weight, losses: change(
            right, y, y_pred, weight, losses, batch_size
        )

    return make


def _with(data_loss: Any, losses: list[Any]) -> Any:
    return keras.ops.sum([data_loss, *map(keras.ops.sum, losses)]) if losses else data_loss


def _samples(y_pred: Any) -> Any:
    return tf.cast(tf.shape(keras.tree.flatten(y_pred)[0])[0], keras.config.floatx())


def _regularizers_left_out(right, y, y_pred, weight, losses, batch_size):
    return right(y, y_pred, weight, [])


def _regularizers_twice(right, y, y_pred, weight, losses, batch_size):
    return right(y, y_pred, weight, [*losses, *losses])


def _regularizers_divided(right, y, y_pred, weight, losses, batch_size):
    return right(y, y_pred, weight, [part / _samples(y_pred) for part in losses])


def _regularizers_divided_by_size(right, y, y_pred, weight, losses, batch_size):
    return right(y, y_pred, weight, [part / batch_size for part in losses])


def _summed(right, y, y_pred, weight, losses, batch_size):
    return _with(right(y, y_pred, weight, []) * _samples(y_pred), losses)


def _all_summed(right, y, y_pred, weight, losses, batch_size):
    """The regularizers in each term of the sum too, as of a loss of shape [batch]."""
    return right(y, y_pred, weight, losses) * _samples(y_pred)


def _summed_elements(right, y, y_pred, weight, losses, batch_size):
    size = tf.cast(tf.size(keras.tree.flatten(y_pred)[0]), keras.config.floatx())
    return _with(right(y, y_pred, weight, []) * size, losses)


def _by_batch_size(right, y, y_pred, weight, losses, batch_size):
    return _with(right(y, y_pred, weight, []) * (_samples(y_pred) / batch_size), losses)


def _weights_left_out(right, y, y_pred, weight, losses, batch_size):
    return right(y, y_pred, None, losses)


def _weights_twice(right, y, y_pred, weight, losses, batch_size):
    square = keras.tree.map_structure(lambda w: w * w, weight)
    return right(y, y_pred, square, losses)


def _mean_over_weights(right, y, y_pred, weight, losses, batch_size):
    total = tf.reduce_sum(tf.cast(weight, keras.config.floatx()))
    return _with(right(y, y_pred, weight, []) * (_samples(y_pred) / total), losses)


def _mask_left_out(right, y, y_pred, weight, losses, batch_size):
    return right(y, keras.tree.map_structure(tf.identity, y_pred), weight, losses)


def _single_loss(reference: Reference) -> Any:
    """The `keras.losses.Loss` of a model with one output; None for more."""
    container = reference.model._compile_loss
    flat = getattr(container, "_flat_losses", None) or []
    return flat[0].loss if len(flat) == 1 else None


def _other_logits(reference: Reference, batch_size: int) -> CompiledLoss | None:
    loss = _single_loss(reference)
    function = getattr(loss, "fn", None)
    if function is None or "from_logits" not in inspect.signature(function).parameters:
        return None
    other = copy.copy(loss)
    given = loss._fn_kwargs
    object.__setattr__(
        other, "_fn_kwargs", given | {"from_logits": not given.get("from_logits", False)}
    )
    return lambda y, y_pred, weight, losses: _with(other(y, y_pred, weight), losses)


def _without_option(option: str) -> Callable[[Reference, int], CompiledLoss | None]:
    def make(reference: Reference, batch_size: int) -> CompiledLoss | None:
        loss = _single_loss(reference)
        given = getattr(loss, "_fn_kwargs", {})
        if not given.get(option):
            return None
        other = copy.copy(loss)
        rest = {name: value for name, value in given.items() if name != option}
        object.__setattr__(other, "_fn_kwargs", rest)
        return lambda y, y_pred, weight, losses: _with(other(y, y_pred, weight), losses)

    return make


def _broadcast(reference: Reference, batch_size: int) -> CompiledLoss | None:
    """Labels `[batch]` minus predictions `[batch, 1]` are `[batch, batch]`."""
    name = getattr(getattr(_single_loss(reference), "fn", None), "__name__", "")
    terms = {"mean_squared_error": tf.square, "mean_absolute_error": tf.abs}.get(name)
    if terms is None:
        return None

    def wrong(y: Any, y_pred: Any, weight: Any, losses: list[Any]) -> Any:
        differences = tf.reshape(tf.cast(y, y_pred.dtype), [1, -1]) - tf.reshape(y_pred, [-1, 1])
        return _with(tf.reduce_mean(terms(differences)), losses)

    return wrong


def _outputs_unweighted(reference: Reference, batch_size: int) -> CompiledLoss | None:
    if not reference.arguments.get("loss_weights"):
        return None
    return reference.changed(loss_weights=None).configuration.loss


# The list -------------------------------------------------------------------------------------


def _pitfall(name: str, stages: tuple[str, ...], write: str, **more: Any) -> Mistake:
    found = pitfalls.get(name)
    edit = None if "loss" in more else found.edit
    return Mistake(name, found.title, stages, found.keras, write, **{"edit": edit} | more)


def _train_edit(right: str, wrong: str) -> Edit:
    return Edit(TRAIN_STEP, right, wrong)


Y_PRED = "y_pred = forward(model, x, training=True)"
UPDATE_METRICS = "compiled_metrics.update_state(y, y_pred, sample_weight)"
LOSS = "loss = compiled_loss(y, y_pred, sample_weight, model.losses)"
CALL = "y_pred = model(x, training=True)"
MEAN_LOSS = "loss_mean.update_state(loss, sample_weight=tf.shape(x)[0])"


def of_train_step(problem: Problem) -> list[Mistake]:
    """Mistakes in a training step."""
    forward, loss = ("forward",), ("loss",)
    return [
        _pitfall(
            "dropout-without-training", forward, CALL, applies=lambda m: not has(_batch_norm())(m)
        ),
        _pitfall("batchnorm-without-training", forward, CALL, applies=has(_batch_norm())),
        Mistake(
            "forward-twice",
            "The model is called twice in training mode",
            forward,
            FORWARD,
            "use y_pred of the first call for loss and metrics",
            edit=_train_edit(Y_PRED, f"{Y_PRED}\nforward(model, x, training=True)"),
        ),
        _pitfall(
            "regularizers-left-out",
            loss,
            "loss = loss_fn(y, y_pred) + tf.add_n(model.losses)",
            loss=_plain(_regularizers_left_out),
        ),
        Mistake(
            "regularizers-twice",
            "Regularizers counted twice",
            loss,
            FURTHER_LOSSES,
            "loss = loss_fn(y, y_pred) + tf.add_n(model.losses)",
            loss=_plain(_regularizers_twice),
        ),
        Mistake(
            "regularizers-divided",
            "Regularizers divided by the size of the batch",
            loss,
            FURTHER_LOSSES,
            "loss = loss_fn(y, y_pred) + tf.add_n(model.losses)",
            loss=_plain(_regularizers_divided),
        ),
        Mistake(
            "regularizers-divided",
            "Regularizers divided by batch_size",
            loss,
            FURTHER_LOSSES,
            "loss = loss_fn(y, y_pred) + tf.add_n(model.losses)",
            loss=_plain(_regularizers_divided_by_size),
        ),
        Mistake(
            "sum-for-mean",
            "The losses of the samples are summed, not averaged",
            loss,
            REDUCED,
            "loss = tf.reduce_mean(losses)",
            loss=_plain(_summed),
        ),
        Mistake(
            "loss-of-shape-batch",
            "The tape is given one loss for each sample, and sums them",
            loss,
            REDUCED,
            "loss = tf.reduce_mean(losses), before tape.gradient",
            loss=_plain(_all_summed),
        ),
        Mistake(
            "sum-over-elements",
            "The losses of all elements are summed, not averaged",
            loss,
            REDUCED,
            "loss = tf.reduce_mean(losses)",
            loss=_plain(_summed_elements),
        ),
        Mistake(
            "divided-by-batch-size",
            "The last, smaller batch is divided by the full batch size",
            loss,
            REDUCED,
            "loss = tf.reduce_sum(losses) / tf.cast(tf.shape(x)[0], losses.dtype)",
            loss=_plain(_by_batch_size),
        ),
        Mistake(
            "weights-left-out",
            "Sample or class weights left out of the loss",
            loss,
            WEIGHTED,
            "loss = loss_fn(y, y_pred, sample_weight)",
            loss=_plain(_weights_left_out),
        ),
        _pitfall(
            "class-weight-twice",
            loss,
            "loss = loss_fn(y, y_pred, sample_weight), once",
            loss=_plain(_weights_twice),
        ),
        _pitfall(
            "mean-over-weights",
            loss,
            "loss = tf.reduce_mean(losses * sample_weight)",
            loss=_plain(_mean_over_weights),
        ),
        Mistake(
            "mask-left-out",
            "The mask left out of the loss",
            loss,
            MASKED,
            "loss = loss_fn(y, y_pred) with a keras.losses.Loss, which reads y_pred's mask",
            loss=_plain(_mask_left_out),
        ),
        _pitfall(
            "logits-as-probabilities",
            loss,
            "loss_fn = ...(from_logits=...) as the model's last activation says",
            loss=_other_logits,
        ),
        _pitfall(
            "broadcast-labels",
            loss,
            "loss = loss_fn(y[:, None], y_pred): labels of the predictions' shape",
            loss=_broadcast,
        ),
        Mistake(
            "label-smoothing-left-out",
            "Label smoothing left out",
            loss,
            LOSS_CALLED,
            "loss_fn = ...(label_smoothing=...) as in COMPILE",
            loss=_without_option("label_smoothing"),
        ),
        Mistake(
            "loss-weights-ignored",
            "The weights of the outputs' losses left out",
            loss,
            OUTPUT_WEIGHTED,
            "loss = sum(weight * loss for weight, loss in zip(loss_weights, losses))",
            loss=_outputs_unweighted,
        ),
        _pitfall("loss-not-scaled", loss, "loss = optimizer.scale_loss(loss)"),
        *_weights_normalized(problem),
    ]


def _weights_normalized(problem: Problem) -> Iterator[Mistake]:
    """Class or sample weights that are divided by their mean, sum or maximum."""
    weight = problem.train.sample_weight
    if not isinstance(weight, np.ndarray):
        return
    of_class = problem.class_weight is not None
    values = np.array(list((problem.class_weight or {}).values()) or weight, np.float64)
    divisors = {
        "their mean": values.mean(),
        "their sum": values.sum(),
        "the largest": values.max(),
        "the mean over the samples": weight.mean(dtype=np.float64),
    }
    for by, divisor in divisors.items():
        if not math.isfinite(divisor) or divisor in (0.0, 1.0):
            continue

        def wrong(right, y, y_pred, weight, losses, batch_size, divisor=divisor):
            return _with(right(y, y_pred, weight, []) / tf.cast(divisor, "float32"), losses)

        yield Mistake(
            "class-weight-normalized",
            f"{'Class' if of_class else 'Sample'} weights are divided by {by}",
            ("loss",),
            WEIGHTED,
            "loss = loss_fn(y, y_pred, sample_weight) with the weights as they are",
            loss=_plain(wrong),
        )


def of_logs() -> list[Mistake]:
    """Mistakes in the metrics of a training step, which leave the weights alone."""
    metrics = ("metrics",)
    return [
        Mistake(
            "regularizers-not-logged",
            "The logged loss has no regularizers",
            metrics,
            FURTHER_LOSSES,
            "loss_mean.update_state(loss) with the loss that is differentiated",
            edit=_train_edit(
                """
compiled_metrics.loss.update_state(
    unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
)
""",
                """
compiled_metrics.loss.update_state(
    compiled_loss(y, y_pred, sample_weight, []), sample_weight=sample_count(x)
)
""",
            ),
        ),
        *(
            Mistake(
                "metrics-after-update",
                f"Metrics of a second call after the update, with training={training}",
                metrics,
                METRICS,
                "metric.update_state(y, y_pred) with y_pred of the training step",
                edit=_train_edit(
                    UPDATE_METRICS,
                    f"y_pred = forward(model, x, training={training})\n{UPDATE_METRICS}",
                ),
            )
            for training in (False, True)
        ),
        Mistake(
            "weighted-metrics-without-weights",
            "Sample or class weights left out of weighted metrics",
            metrics,
            METRICS,
            "metric.update_state(y, y_pred, sample_weight)",
            edit=_train_edit(UPDATE_METRICS, "compiled_metrics.update_state(y, y_pred, None)"),
        ),
    ]


def of_test_step() -> list[Mistake]:
    """Mistakes in the validation."""
    validation = ("validation",)
    return [
        _pitfall("evaluating-in-training-mode", validation, "y_pred = model(x, training=False)"),
        Mistake(
            "regularizers-left-out",
            "Validation loss without regularizers",
            validation,
            FURTHER_LOSSES,
            "loss = loss_fn(y, y_pred) + tf.add_n(model.losses)",
            edit=Edit(TEST_STEP, LOSS, "loss = compiled_loss(y, y_pred, sample_weight, [])"),
        ),
        Mistake(
            "weights-left-out",
            "Sample weights left out of the validation",
            validation,
            WEIGHTED,
            "loss = loss_fn(y, y_pred, sample_weight)",
            edit=Edit(TEST_STEP, LOSS, f"sample_weight = None\n{LOSS}"),
        ),
    ]


def _batch_norm() -> type:
    return keras.layers.BatchNormalization
