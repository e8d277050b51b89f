"""What `compile` makes of `metrics` and `weighted_metrics`, and what the logs are made of.

A metric is a running sum: updated on every batch, read after every batch, reset before every
epoch. The logs of a batch are therefore means over the epoch so far
(`keras/src/trainers/trainer.py`, `Trainer.compute_metrics`, `get_metrics_result`, Keras 3.15).
"""

import collections
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from manual_loop.compiled.lookup import find
from manual_loop.distribution.replicas import LossMean

tree = keras.tree


class Metrics:
    """All the metrics of a model, as `fit` updates, reads and resets them.

    Args:
        model: the model, for the metrics that it and its layers carry themselves.
        objective: `objective.Objective`, for the loss of each output.
        compiled: `CompiledMetrics`, or None if `compile` was given none.
    """

    def __init__(self, model, objective, compiled):
        self.loss = LossMean(name="loss")
        self._model = model
        self._objective = objective
        self._compiled = compiled
        self._specs: Any = None  # of the first batch's y and y_pred
        self._wanted = False

    def update(self, y, y_pred, sample_weight):
        """Take one batch in; the loss was taken in by the step. Returns the logs."""
        if self._compiled is not None:
            self._compiled.update_state(y, y_pred, sample_weight)
        if self._specs is None:
            self._specs = tree.map_structure(tf.type_spec_from_value, (y, y_pred))
            if self._wanted:
                self.announce()
        return self.result()

    def announce(self):
        """Put the compiled metrics where callbacks look for them, as soon as they are known.

        `EarlyStopping` and its kin ask `model.metrics` whether more of a metric is better, and
        there only Keras's own container counts (`callbacks/monitor_callback.py`,
        `_set_monitor_op`). Tracing, without running, makes Keras fill that container.
        """
        self._wanted = self._specs is None
        if self._compiled is not None and not self._wanted:
            # the first batch may be being traced, and nothing is to be counted
            with tf.init_scope(), keras.StatelessScope():
                compute = tf.function(self._model.compute_metrics, autograph=False)
                compute.get_concrete_function(None, *self._specs)

    def result(self):
        """dict: name -> scalar tensor (or a dict of them, for a metric that returns one)."""
        logs = {}
        for metric in self._all():
            result = metric.result()
            if isinstance(result, dict):
                logs.update(result)
            else:
                logs[metric.name] = result
        return logs

    @property
    def variables(self):
        """Those of all metrics."""
        return [variable for metric in self._all() for variable in metric.variables]

    def reset(self):
        """Back to zero: before each epoch and each evaluation."""
        for metric in self._all():
            metric.reset_state()

    def in_order(self, logs):
        """The values of `logs` as `evaluate` returns them without `return_dict`.

        Returns:
            list of floats, or one float if it is the only one. Compiled metrics are sought under
            their own name: those of several outputs (`klass_acc`) come last, by the alphabet
            (`Trainer._flatten_metrics_in_order`).
        """
        names: list[str] = []
        for metric in self._all():
            names += metric.names if metric is self._compiled else [metric.name]
        values = [logs[name] for name in names if name in logs]
        values += [logs[name] for name in sorted(logs) if name not in names]
        return values[0] if len(values) == 1 else values

    def _all(self):
        compiled = [] if self._compiled is None else [self._compiled]
        return [self.loss, *compiled, *self._objective.trackers, *own_metrics(self._model)]


def own_metrics(model):
    """The metrics that a model and its layers carry themselves, none of `compile`'s.

    `Model.metrics` puts what `Model.compile` made in front; an uncompiled model lists only its own.
    """
    compiled, model.compiled = model.compiled, False
    try:
        return model.metrics
    finally:
        model.compiled = compiled


@dataclasses.dataclass
class Entry:
    """A metric, the output that it looks at, counted from 0, and its name in the logs."""

    metric: keras.metrics.Metric
    output: int
    is_weighted: bool
    log_name: str


class CompiledMetrics:
    """`metrics` and `weighted_metrics`, resolved when the first batch shows its shapes.

    Args:
        metrics: None, or a list, tuple or dict of names, functions and `keras.metrics.Metric`s, in
            any of the nestings that Keras takes (`compile_utils.CompileMetrics`). They see every
            sample alike.
        weighted_metrics: likewise; these are given `sample_weight` (and so `class_weight`).
        output_names: the model's output names, or None for a subclassed model.

    Raises:
        ValueError: when the first batch is seen: an unknown name or a structure that the outputs
            do not have.
    """

    def __init__(self, metrics, weighted_metrics, output_names):
        self.arguments = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        self.output_names = output_names
        self.entries: Any = None  # list of Entry, in the order of the logs

    @property
    def names(self):
        """The metrics' own names, without those of the outputs."""
        return [entry.metric.name for entry in self.entries or ()]

    @property
    def variables(self):
        """The metrics' variables."""
        return [v for entry in self.entries or () for v in entry.metric.variables]

    def update_state(self, y, y_pred, sample_weight):
        """Update every metric with its output's labels and predictions."""
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

    def result(self):
        """dict: log name -> value."""
        if self.entries is None:
            raise ValueError("The metrics have no result yet: no batch was seen.")
        return {entry.log_name: entry.metric.result() for entry in self.entries}

    def reset_state(self):
        """Reset every metric; nothing to do before the first batch."""
        for entry in self.entries or ():
            entry.metric.reset_state()

    def _resolve(self, y, y_pred):
        """Find each output's metrics, and their names in the logs (`CompileMetrics.build`).

        A name that is taken gets `weighted_` in front, or a number.
        """
        outputs = tree.flatten(y_pred)
        shallow = tree.is_nested(y_pred) and len(y_pred) == len(outputs)
        names = self.output_names
        if shallow and isinstance(y_pred, dict) and not (names and set(names) == set(y_pred)):
            ordered = isinstance(y_pred, collections.OrderedDict)
            names = list(y_pred) if ordered else sorted(y_pred)
        self._keys = names if shallow and len(outputs) > 1 else None

        entries = []
        taken: collections.Counter[str] = collections.Counter()
        for argument in self.arguments:
            is_weighted = argument == "weighted_metrics"
            for output, metrics in enumerate(self._assign(argument, names, y, y_pred, shallow)):
                prefix = f"{names[output]}_" if names and len(outputs) > 1 else ""
                for metric in metrics:
                    name = f"{prefix}{metric.name}"
                    if taken[name] and is_weighted:
                        name = f"{prefix}weighted_{metric.name}"
                    log_name = f"{name}_{taken[name]}" if taken[name] else name
                    taken[name] += 1
                    entries.append(Entry(metric, output, is_weighted, log_name))
        self.entries = entries

    def _assign(self, argument, names, y, y_pred, shallow):
        """The metrics of each output, a list of lists, for one of the two arguments."""
        metrics = self.arguments[argument]
        if not metrics:
            return []
        outputs = self._flatten(y_pred)
        if len(outputs) == 1:  # all metrics belong to the one output, whatever their nesting
            return [resolve_metrics(tree.flatten(metrics), tree.flatten(y)[0], outputs[0])]
        if shallow and isinstance(metrics, dict) and names and set(metrics) <= set(names):
            metrics = [metrics.get(name) for name in names]
        if shallow and isinstance(metrics, (list, tuple)) and len(metrics) == len(outputs):
            rows = zip(metrics, self._flatten(y), outputs, strict=False)
            return [resolve_metrics(*row) for row in rows]
        # outputs in outputs: `metrics` and `y` are nested alike, but for lists and tuples
        y_pred, metrics, y = map(tree.lists_to_tuples, (y_pred, metrics, y))
        found: list[list] = []
        try:
            tree.map_structure_up_to(
                y_pred, lambda *row: found.append(resolve_metrics(*row)), metrics, y, y_pred
            )
        except (ValueError, TypeError) as error:
            either = f"the outputs {self.output_names} or " if self.output_names else ""
            raise ValueError(
                f"{error}\n`{argument}` must match {either}the model's output structure "
                f"{tree.map_structure(lambda _: 'X', y_pred)}. Received: {argument}={metrics}"
            ) from error
        return found

    def _flatten(self, structure):
        if isinstance(structure, dict) and self._keys is not None:
            return [structure[name] for name in self._keys]
        return tree.flatten(structure)


def resolve_metrics(metrics, y, y_pred):
    """The metrics of one output as a list of `keras.metrics.Metric`; None gives an empty one."""
    if metrics is None:
        return []
    if not isinstance(metrics, (list, tuple)):
        metrics = [metrics]
    return [resolve_metric(metric, y, y_pred) for metric in metrics]


def resolve_metric(metric, y, y_pred):
    """A name, function or object as a `keras.metrics.Metric` (`compile_utils.get_metric`).

    Raises:
        ValueError: no metric has this name; the message holds the nearest ones.
    """
    if metric is None:
        raise ValueError("A metric is None.")
    found, name = find(keras.metrics, "metric", metric, y, y_pred)
    if not isinstance(found, keras.metrics.Metric):
        found = keras.metrics.MeanMetricWrapper(found)
    found.name = name
    return found
