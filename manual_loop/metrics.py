"""What `compile` makes of `metrics` and `weighted_metrics`, and what the logs are made of.

A metric is a running sum: updated on every batch, read after every batch, reset before every
epoch. The logs of a batch are therefore means over the epoch so far
(`keras/src/trainers/trainer.py`, `Trainer.compute_metrics`, `get_metrics_result`, Keras 3.15).
"""

import collections
from typing import Any

import keras
import tensorflow as tf

from manual_loop.names import label_kind, look_up, object_name

tree = keras.tree


class Metrics:
    """All the metrics of a model, as `fit` updates, reads and resets them.

    Args:
        model: the model, for the metrics that it and its layers carry themselves.
        objective: `objective.Objective`, for the loss of each output.
        compiled: `CompiledMetrics`, or None if `compile` was given none.
    """

    def __init__(self, model, objective, compiled):
        self.loss = keras.metrics.Mean(name="loss")
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
            with tf.init_scope():  # the first batch may be being traced
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


class CompiledMetrics:
    """`metrics` and `weighted_metrics`, resolved when the first batch shows its shapes.

    Args:
        metrics: None, or a list, tuple or dict of names, functions and `keras.metrics.Metric`s, in
            any of the nestings that Keras takes (`compile_utils.CompileMetrics`). They see every
            sample alike.
        weighted_metrics: likewise; these are given `sample_weight` (and so `class_weight`).
        output_names: the model's output names, or None for a subclassed model.

    Raises:
        ValueError: not a list, tuple or dict; later, an unknown name or a structure that the
            outputs do not have.
    """

    def __init__(self, metrics, weighted_metrics, output_names):
        for argument, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if given and not isinstance(given, (list, tuple, dict)):
                raise ValueError(f"`{argument}` must be a list, tuple or dict. Received: {given!r}")
        self.metrics = metrics
        self.weighted_metrics = weighted_metrics
        self.output_names = output_names
        # [(output name or None, [metric, ...]), ...], once plain and once weighted
        self.per_output: Any = None

    @property
    def names(self):
        """The metrics' own names, without those of the outputs."""
        return [metric.name for _, metric in self._named()]

    def update_state(self, y, y_pred, sample_weight):
        """Update every metric with its output's labels and predictions."""
        if self.per_output is None:
            self._resolve(y, y_pred)
        y, y_pred = self._flatten(y), self._flatten(y_pred)
        plain, weighted = self.per_output
        for (_, metrics), labels, predictions in zip(plain, y, y_pred, strict=False):
            for metric in metrics:
                metric.update_state(labels, predictions, sample_weight=None)

        weights = [None] * len(y)
        if sample_weight is not None:
            weights = self._flatten(sample_weight)
            if len(weights) < len(y):  # one array for all outputs
                weights = [weights[0]] * len(y)
        rows = zip(weighted, y, y_pred, weights, strict=False)
        for (_, metrics), labels, predictions, weight in rows:
            for metric in metrics:
                metric.update_state(labels, predictions, sample_weight=weight)

    def result(self):
        """dict: log name -> value. A name that is taken gets `weighted_` in front, or a number."""
        if self.per_output is None:
            raise ValueError("The metrics have no result yet: no batch was seen.")
        results = {}
        taken: collections.Counter[str] = collections.Counter()
        plain, weighted = self.per_output
        for is_weighted, outputs in ((False, plain), (True, weighted)):
            for output_name, metrics in outputs:
                prefix = f"{output_name}_" if output_name else ""
                for metric in metrics:
                    name = f"{prefix}{metric.name}"
                    if taken[name] and is_weighted:
                        name = f"{prefix}weighted_{metric.name}"
                    taken[name] += 1
                    if taken[name] > 1:
                        name = f"{name}_{taken[name] - 1}"
                    results[name] = metric.result()
        return results

    def reset_state(self):
        """Reset every metric; nothing to do before the first batch."""
        for _, metric in self._named():
            metric.reset_state()

    def _named(self):
        return [
            (output_name, metric)
            for outputs in self.per_output or ()
            for output_name, metrics in outputs
            for metric in metrics
        ]

    def _resolve(self, y, y_pred):
        """Find each output's metrics (`CompileMetrics.build`)."""
        outputs = tree.flatten(y_pred)
        shallow = tree.is_nested(y_pred) and len(y_pred) == len(outputs)
        names = self.output_names
        if shallow and isinstance(y_pred, dict) and not (names and set(names) == set(y_pred)):
            ordered = isinstance(y_pred, collections.OrderedDict)
            names = list(y_pred) if ordered else sorted(y_pred)
        self._keys = names if shallow and len(outputs) > 1 else None
        self.per_output = None
        self.per_output = [
            self._assign(argument, metrics, names, y, y_pred, shallow)
            for argument, metrics in (
                ("metrics", self.metrics),
                ("weighted_metrics", self.weighted_metrics),
            )
        ]

    def _assign(self, argument, metrics, names, y, y_pred, shallow):
        """[(output name, [metric, ...])] for one of the two arguments, an entry an output."""
        outputs = tree.flatten(y_pred)
        if not metrics:
            return [(None, [])] * len(outputs)
        if len(outputs) == 1:  # all metrics belong to the one output, whatever their nesting
            return [(None, resolve_metrics(tree.flatten(metrics), tree.flatten(y)[0], outputs[0]))]

        entries = None  # one for each output, in order
        if shallow and isinstance(metrics, (list, tuple)) and len(metrics) == len(outputs):
            entries = metrics
        elif shallow and isinstance(metrics, dict) and names and set(metrics) <= set(names):
            entries = [metrics.get(name) for name in names]
        try:
            if entries is not None:
                rows = zip(
                    names or [None] * len(outputs),
                    entries,
                    self._flatten(y),
                    self._flatten(y_pred),
                    strict=False,
                )
                return [
                    (name, resolve_metrics(entry, labels, predictions))
                    for name, entry, labels, predictions in rows
                ]
            return self._assign_nested(metrics, names, y, y_pred)
        except (ValueError, TypeError) as error:
            structure = tree.map_structure(lambda _: "X", y_pred)
            outputs = f"the outputs {self.output_names} or " if self.output_names else ""
            raise ValueError(
                f"{error}\n`{argument}` must match {outputs}the model's output structure "
                f"{structure}. Received: {argument}={metrics}"
            ) from error

    def _assign_nested(self, metrics, names, y, y_pred):
        """Outputs in outputs: `metrics` and `y` have the structure of `y_pred`, lists as tuples."""
        structure = tree.lists_to_tuples(y_pred)
        names = tree.pack_sequence_as(structure, names or [None] * len(tree.flatten(y_pred)))
        found = []
        tree.map_structure_up_to(
            structure,
            lambda entry, labels, predictions, name: found.append(
                (name, resolve_metrics(entry, labels, predictions))
            ),
            tree.lists_to_tuples(metrics),
            tree.lists_to_tuples(y),
            structure,
            names,
        )
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

    `"accuracy"` and `"acc"` become `BinaryAccuracy`, `SparseCategoricalAccuracy` or
    `CategoricalAccuracy`, as the shapes of `y` and `y_pred` ask, and keep their short name.

    Raises:
        ValueError: no metric has this name; the message holds the nearest ones.
    """
    if metric is None:
        raise ValueError("A metric is None.")
    if str(metric).lower() in ("accuracy", "acc"):
        found = {
            "binary": keras.metrics.BinaryAccuracy,
            "sparse_categorical": keras.metrics.SparseCategoricalAccuracy,
            "categorical": keras.metrics.CategoricalAccuracy,
        }[label_kind(y, y_pred)]()
    else:
        found = look_up(keras.metrics, "metric", metric)
    name = metric if isinstance(metric, str) else object_name(found)
    if not isinstance(found, keras.metrics.Metric):
        found = keras.metrics.MeanMetricWrapper(found)
    found.name = name
    return found
