"""What `compile` makes of `loss` and `loss_weights`: one scalar to minimize.

    loss = sum over outputs of  weight * reduction(loss_fn(y, y_pred) * mask * sample_weight)
         + sum of model.losses

`keras.losses.Loss` applies the mask, the sample weights and the reduction. This module turns names
into losses, finds the loss of each output, and adds the terms in Keras's order
(`keras/src/trainers/compile_utils.py`, `CompileLoss`; `keras/src/trainers/trainer.py`,
`Trainer.compute_loss`, Keras 3.15).
"""

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from manual_loop.compiled.lookup import BY_SHAPE, label_kind, look_up, object_name
from manual_loop.compiled.scaling import (
    scale_loss_for_distribution,
    unscale_loss_for_distribution,
)

tree = keras.tree


@dataclasses.dataclass
class Weighted:
    """An entry of `loss` with its weight: a leaf for `keras.tree`."""

    loss: Any
    weight: float | None


@dataclasses.dataclass
class Term:
    """The loss of one output: its path in `y` and `y_pred`, its weight, its mean for the logs.

    `mean` is None if the model has only one loss.
    """

    path: tuple
    function: keras.losses.Loss
    weight: float | None
    mean: keras.metrics.Mean | None


class CompiledLoss:
    """`loss` and `loss_weights`, resolved from the shapes of the first batch.

    Args:
        loss: name, function, `keras.losses.Loss`, or a list, tuple or dict of these, one for each
            output; None for an output without a loss, or for a model without one.
        loss_weights: None, a float, or floats in the structure of `loss`.
        output_names: the model's output names, or None for a subclassed model.
        make_means: `(y, y_pred) -> list` of `keras.metrics.Mean`, one for each of several losses.
    """

    def __init__(self, loss, loss_weights, output_names, make_means):
        self.loss = loss
        self.loss_weights = loss_weights
        self.output_names = output_names
        self._make_means = make_means
        self.terms: Any = None  # list of Term

    def __call__(self, y, y_pred, sample_weight, losses):
        """The scalar loss of one batch, float32.

        Args:
            y: labels, in the structure of the model's outputs.
            y_pred: the outputs.
            sample_weight: None, a tensor `[batch]` (or `[batch, steps]`), or one for each output.
            losses: `model.losses` after the forward pass.

        Raises:
            ValueError: there is nothing to minimise, or `y` does not fit the outputs.
        """
        values = [] if self.loss is None else self._of_outputs(y, y_pred, sample_weight)
        # each further loss is summed to a scalar first; integers would have no gradient
        values += [scale_loss_for_distribution(keras.ops.sum(_as_float(loss))) for loss in losses]
        if not values:
            raise ValueError("No loss to compute. Provide a `loss` argument in `compile()`.")
        # one reduce_sum over all, not a chain of additions: the last bit depends on it
        return values[0] if len(values) == 1 else keras.ops.sum(values)

    def _of_outputs(self, y, y_pred, sample_weight):
        """What `loss` contributes: a list of one scalar, or an empty one."""
        single = not tree.is_nested(y) and not tree.is_nested(y_pred)
        if not single:
            y = self._in_structure_of(y_pred, y)
        elif y is None:
            raise ValueError("`loss` compares with labels, but `y` is None.")
        if self.terms is None:
            self._resolve(y, y_pred)
        if not _same_structure(self._structure, (y, y_pred)):  # the terms' paths would lead astray
            y, y_pred = tree.pack_sequence_as(self._structure, tree.flatten((y, y_pred)))

        values = []
        for term in self.terms:
            prediction = _at(y_pred, term.path)
            weight = sample_weight
            if tree.is_nested(weight):  # one for each output
                weight = _at(weight, term.path)
            value = term.function(_at(y, term.path), prediction, weight)
            value = keras.ops.cast(value, keras.config.floatx())
            if term.mean is not None and not single:
                # the log of an output ignores `loss_weights`. Each batch is weighted by its
                # *static* size: None, that is 1, if the last batch may be smaller
                # (CompileLoss.call)
                size = tree.flatten(prediction)[0].shape[0]
                term.mean.update_state(unscale_loss_for_distribution(value), sample_weight=size)
            if term.weight is not None:
                value = keras.ops.multiply(value, term.weight)
            values.append(value)
        if single:  # of several losses on one output, Keras minimizes the first
            return values[:1]
        return [sum(values)] if values else []

    def _in_structure_of(self, y_pred, y):
        """`y` in the containers of `y_pred`, which need not be those it came in."""
        if _same_structure(y_pred, y):
            return y
        if not tree.is_nested(y) and hasattr(y_pred, "__len__") and len(y_pred) == 1:
            y = [y]
        names = self.output_names or ()
        if isinstance(y, dict) and isinstance(y_pred, (list, tuple)) and set(y) == set(names):
            y = [y[name] for name in names]
        misfit = contextlib.suppress(ValueError, TypeError)
        with misfit:  # a flat list for outputs in outputs
            return tree.pack_sequence_as(y_pred, y)
        with misfit:  # lists for tuples
            tree.assert_same_paths(y, y_pred)
            return tree.pack_sequence_as(y_pred, tree.flatten(y))
        labels, losses = tree.flatten(y), tree.flatten(self.loss)
        if len(labels) == sum(loss is not None for loss in losses):  # only where there is a loss
            left = iter(labels)
            labels = [None if loss is None else next(left) for loss in losses]
            return tree.pack_sequence_as(self.loss, labels)
        raise ValueError(
            "`y` and the model's outputs have different structures.\n"
            f"y: {tree.map_structure(lambda _: '*', y)}\n"
            f"outputs: {tree.map_structure(lambda _: '*', y_pred)}"
        )

    def _resolve(self, y, y_pred):
        """Turn `loss` and `loss_weights` into terms, once, from the shapes of the first batch."""
        loss, loss_weights, names = self.loss, self.loss_weights, self.output_names
        if isinstance(loss, dict) and not isinstance(y_pred, dict):
            if not names:
                raise TypeError("`loss` is a dict, but the model's outputs have no names.")
            if set(names) != set(loss):
                raise ValueError(
                    f"`loss` must name the outputs {list(names)}. Received: {list(loss)}"
                )
            loss = [loss[name] for name in names]
            if isinstance(loss_weights, dict):
                loss_weights = [loss_weights[name] for name in names]
        loss = _with_weights(loss, loss_weights)
        if not tree.is_nested(loss):  # one loss for every output
            loss = tree.map_structure(lambda _: loss, y_pred)

        self.terms = []
        self._add_terms(y, y_pred, loss, ())
        if len(self.terms) > 1:
            for term, mean in zip(self.terms, self._make_means(y, y_pred), strict=True):
                term.mean = mean
        self._structure = tree.map_structure(lambda _: None, (y, y_pred))

    def _add_terms(self, y, y_pred, loss, path):
        """Traverse `loss` and the outputs together (`CompileLoss._build_nested`)."""
        if isinstance(loss, (list, tuple)):
            flat = not any(map(tree.is_nested, loss))
            if flat and len(loss) == len(tree.flatten(y_pred)):
                loss = tree.pack_sequence_as(y_pred, loss)
            elif not isinstance(y_pred, type(loss)):  # several losses on the same output
                for entry in loss:
                    self._add_terms(y, y_pred, entry, path)
                return
        if not tree.is_nested(loss):
            if loss is not None:
                self.terms.append(Term(path, resolve_loss(loss.loss, y, y_pred), loss.weight, None))
            return
        if not isinstance(loss, type(y_pred)):
            raise KeyError(f"`loss` has an entry at {path} that the model's outputs do not have.")
        for key, entry in loss.items() if isinstance(loss, dict) else enumerate(loss):
            if entry is None:
                continue
            try:
                labels, prediction = y[key], y_pred[key]
            except (KeyError, IndexError, TypeError):
                raise KeyError(
                    f"`loss` has an entry at {(*path, key)} that the outputs or `y` do not have."
                ) from None
            self._add_terms(labels, prediction, entry, (*path, key))


def _with_weights(loss, loss_weights):
    """`loss` with a `Weighted` for each entry; an output without a loss stays None."""
    losses = tree.flatten(loss)
    weights = [None] * len(losses) if loss_weights is None else tree.flatten(loss_weights)
    if len(losses) != len(weights):
        raise ValueError(
            f"`loss_weights` must match the number of losses: {len(losses)} losses and "
            f"{len(weights)} weights."
        )
    if not _same_structure(loss, loss_weights):  # by order, then, and not by name
        loss_weights = tree.pack_sequence_as(loss, weights)
    return tree.map_structure(
        lambda entry, weight: None if entry is None else Weighted(entry, weight), loss, loss_weights
    )


def resolve_loss(loss, y, y_pred):
    """A name, function or object as a `keras.losses.Loss` (`compile_utils.get_loss`).

    Raises:
        ValueError: no loss has this name; the message holds the nearest ones.
    """
    if str(loss).lower() in BY_SHAPE["loss"]:
        function = keras.losses.get(f"{label_kind(y, y_pred)}_crossentropy")
    else:
        function = look_up(keras.losses, "loss", loss)
    if isinstance(function, keras.losses.Loss):
        return function
    # Keras's wrapper of functions is not public, but its losses are such wrappers: one of them
    # with another function handles ranks, mask, weights and mean
    name = loss if isinstance(loss, str) else object_name(function)
    wrapper = keras.losses.MeanSquaredError(name=name)
    wrapper.fn = function
    return wrapper


def _as_float(loss):
    return loss if loss.dtype.is_floating else tf.cast(loss, keras.config.floatx())


def _same_structure(a, b):
    try:
        tree.assert_same_structure(a, b)
    except ValueError:
        return False
    return True


def _at(structure, path):
    for key in path:
        structure = structure[key]
    return structure
