"""From a compiled model to the loop's loss and metrics.

`Model.compile` keeps its arguments in the model, and on the first batch Keras turns names into
objects and finds the output of each: `"acc"` becomes `BinaryAccuracy` if there is one prediction
per sample, `SparseCategoricalAccuracy` if the labels lack the predictions' last axis or have it
with size 1, else `CategoricalAccuracy` (`keras/src/trainers/compile_utils.py`, `CompileLoss.build`,
`CompileMetrics.build`, `is_binary_or_sparse_categorical`, Keras 3.15). The loop takes what was
found; what is then computed from it on each batch is written out in `loss.py` and `metrics.py`.

So the metric objects are those that `model.metrics` lists, and whatever compiled the model last
counts, as it does in fit: this trainer, another trainer of the same model, or `model.compile`.

Keras has no public names for this. The private attributes that the loop reads to train are all in
this file.
"""

import collections
from typing import Any

import keras

from manual_loop.compiled.lookup import nearest_names
from manual_loop.compiled.loss import CompiledLoss
from manual_loop.compiled.metrics import CompiledMetrics
from manual_loop.compiled.overrides import OwnMetrics, own_loss, own_method

tree = keras.tree

# The loss of one output: its path in `y` and `y_pred`, its weight in the sum or None, and its
# `keras.metrics.Mean` for the logs, None if the model has only one loss.
Term = collections.namedtuple("Term", ["path", "loss_fn", "weight", "mean"])

# A metric, the index of its output, and whether it is given sample weights.
Entry = collections.namedtuple("Entry", ["metric", "output", "is_weighted"])


class Configuration:
    """The loss and the metrics of a compiled model.

    Args:
        model: a `keras.Model`.

    Attributes:
        loss: `CompiledLoss`.
        metrics: `CompiledMetrics`.
        has_loss, has_metrics: whether `compile` was given any.
    """

    def __init__(self, model):
        self._model = model
        loss, metrics = model._compile_loss, model._compile_metrics
        self.has_loss, self.has_metrics = loss is not None, metrics is not None
        self.loss = CompiledLoss(ResolvedLoss(loss) if loss else None)
        resolved = ResolvedMetrics(metrics) if metrics else None
        self.metrics = CompiledMetrics(model, model._loss_tracker, resolved)

    def of_batch(self, data, training):
        """`loss` and `metrics` for one batch; in their place, if the model overrides them, its own
        `compute_loss` and `compute_metrics`, which are given more of the batch.

        Args:
            data: `x`, `(x, y)` or `(x, y, sample_weight)`.
            training: whether the batch is trained on.
        """
        loss: Any = self.loss
        metrics: Any = self.metrics
        compute_loss = own_method(self._model, "compute_loss")
        compute_metrics = own_method(self._model, "compute_metrics")
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if compute_loss:
            loss = own_loss(compute_loss, x, training)
        if compute_metrics:
            metrics = OwnMetrics(compute_metrics, x, metrics.loss)
        return loss, metrics

    @property
    def is_current(self):
        """False after the model was compiled again: that makes a new mean of the loss."""
        return self.metrics.loss is self._model._loss_tracker


class ResolvedLoss:
    """`loss` and `loss_weights` as `keras.losses.Loss` objects, one for each output that has one.

    Args:
        container: Keras's `CompileLoss`.

    Attributes:
        given: `loss` as it was given to `compile`.
        output_names: the model's output names, or None for a subclassed model.
    """

    def __init__(self, container):
        self._container = container
        self.given = container._user_loss
        self.output_names = container.output_names

    def terms(self, y, y_pred):
        """The `Term`s, resolved from the shapes of the first batch; the structure of their paths.

        Raises:
            ValueError, KeyError, TypeError: an unknown name; or `loss` does not match the outputs.
        """
        container = self._container
        if not container.built:
            by_name = isinstance(self.given, dict) and not isinstance(y_pred, dict)
            if by_name and not self.output_names:
                raise TypeError("`loss` is a dict, but the model's outputs have no names.")
            with nearest_names(keras.losses, "loss", tree.flatten(self.given)):
                container.build(y, y_pred)
        losses = container._flat_losses
        means = container.metrics or [None] * len(losses)
        terms = [
            Term(loss.path, loss.loss, loss.loss_weights, mean)
            for loss, mean in zip(losses, means, strict=True)
        ]
        return terms, (container._y_true_build_structure, container._y_pred_build_structure)


class ResolvedMetrics:
    """`metrics` and `weighted_metrics` as `keras.metrics.Metric` objects, each for one output.

    Args:
        container: Keras's `CompileMetrics`.
    """

    def __init__(self, container):
        self._container = container

    def entries(self, y, y_pred):
        """The `Entry`s, in the order of the logs, resolved from the shapes of the first batch; and
        the function that makes a list, output by output, of a structure like `y`.

        Raises:
            ValueError: an unknown name; or a structure that the outputs do not have.
        """
        container = self._container
        if not container.built:
            given = container._user_metrics, container._user_weighted_metrics
            with nearest_names(keras.metrics, "metric", tree.flatten(given)):
                container.build(y, y_pred)
        both = (container._flat_metrics, False), (container._flat_weighted_metrics, True)
        entries = [
            Entry(metric, output, is_weighted)
            for outputs, is_weighted in both
            for output, metrics in enumerate(outputs)
            for metric in (metrics.metrics if metrics else ())
        ]
        return entries, container._flatten_y
