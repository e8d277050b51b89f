"""What `compile` makes of `metrics` and `weighted_metrics`: metric objects, each on its output.

A metric is a running sum: updated on every batch, read after every batch, reset before every
epoch. The logs of a batch are therefore means over the epoch so far
(`keras/src/trainers/trainer.py`, `Trainer.compute_metrics`, `get_metrics_result`, Keras 3.15).

The metric objects are Keras's own: `keras.metrics.get` makes them of names, `"acc"` by the shapes
of labels and predictions (`lookup.label_kind` has that rule). The loop updates the objects that
`model.metrics` lists, so that callbacks can read and reset them there.
"""

import collections
import dataclasses
from typing import Any

import keras

from manual_loop.compiled.lookup import nearest_names

tree = keras.tree


@dataclasses.dataclass
class Entry:
    """A metric, the index of its output, and whether it is given sample weights."""

    metric: keras.metrics.Metric
    output: int
    is_weighted: bool


class CompiledMetrics:
    """`metrics` and `weighted_metrics`, resolved from the shapes of the first batch.

    Args:
        loss: the `keras.metrics.Mean` of the batches' losses.
        metrics: None, or a list, tuple or dict of names, functions and `keras.metrics.Metric`s, in
            any of the nestings that Keras takes (`compile_utils.CompileMetrics`). They ignore
            sample weights.
        weighted_metrics: likewise; these are given `sample_weight` (and so `class_weight`).
        output_names: the model's output names, or None for a subclassed model.
        make_metrics: `(y, y_pred) -> list` of `keras.metrics.Metric`: one for each name or object
            in `metrics`, then `weighted_metrics`, output by output.

    Attributes:
        loss: as given.

    Raises:
        ValueError: when the first batch is seen: an unknown name, or a structure that the outputs
            do not have.
    """

    def __init__(self, loss, metrics, weighted_metrics, output_names, make_metrics):
        self.loss = loss
        self.arguments = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        self.output_names = output_names
        self._make_metrics = make_metrics
        self.entries: Any = None  # list of Entry, in the order of the logs

    def update_state(self, y, y_pred, sample_weight):
        """Update every metric with its output's labels and predictions.

        Args:
            y, y_pred: tensors `[batch, ...]`, or structures of them, one for each output.
            sample_weight: None, a tensor `[batch]`, or a structure like `y`.
        """
        if self.entries is None:
            self._resolve(y, y_pred)
        y, y_pred = self._flatten(y), self._flatten(y_pred)
        weights = [None] if sample_weight is None else self._flatten(sample_weight)
        if len(weights) < len(y):  # one array for all outputs
            weights = weights[:1] * len(y)
        for entry in self.entries:
            i = entry.output
            if i < len(y):  # the last outputs may have no labels
                weight = weights[i] if entry.is_weighted else None
                entry.metric.update_state(y[i], y_pred[i], sample_weight=weight)

    def _resolve(self, y, y_pred):
        """Find the output of each metric (`CompileMetrics.build`)."""
        outputs = tree.flatten(y_pred)
        shallow = tree.is_nested(y_pred) and len(y_pred) == len(outputs)
        names = self.output_names
        if shallow and isinstance(y_pred, dict) and not (names and set(names) == set(y_pred)):
            ordered = isinstance(y_pred, collections.OrderedDict)
            names = list(y_pred) if ordered else sorted(y_pred)
        self._keys = names if shallow and len(outputs) > 1 else None

        identifiers = tree.flatten(list(self.arguments.values()))
        with nearest_names(keras.metrics, "metric", identifiers):
            made = self._make_metrics(y, y_pred)
        places = [
            (output, argument == "weighted_metrics")
            for argument, metrics in self.arguments.items()
            # the last outputs may have no labels, and then no metrics
            for output, count in enumerate(
                self._counts(metrics, names, y_pred, shallow)[: len(self._flatten(y))]
            )
            for _ in range(count)
        ]
        self.entries = [Entry(m, *place) for m, place in zip(made, places, strict=True)]

    def _counts(self, metrics, names, y_pred, shallow):
        """How many metrics each output has."""
        if not metrics:
            return []
        outputs = len(tree.flatten(y_pred))
        if outputs == 1:  # all metrics belong to the one output, whatever their nesting
            return [len(tree.flatten(metrics))]
        if shallow and isinstance(metrics, dict) and names and set(metrics) <= set(names):
            metrics = [metrics.get(name) for name in names]
        if not (shallow and isinstance(metrics, (list, tuple)) and len(metrics) == outputs):
            # nested outputs: `metrics` is nested like them, except that lists and tuples are alike
            found: list[Any] = []
            y_pred, metrics = map(tree.lists_to_tuples, (y_pred, metrics))
            tree.map_structure_up_to(y_pred, found.append, metrics)
            metrics = found
        return [len(m) if isinstance(m, (list, tuple)) else int(m is not None) for m in metrics]

    def _flatten(self, structure):
        if isinstance(structure, dict) and self._keys is not None:
            return [structure[name] for name in self._keys]
        return tree.flatten(structure)
