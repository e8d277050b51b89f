"""What `compile` makes of `loss` and `loss_weights`: one scalar to minimise.

    loss = sum over outputs of  weight * reduction(loss_fn(y, y_pred) * mask * sample_weight)
         + sum of model.losses

The reduction, the mask and the sample weights are the business of `keras.losses.Loss`; here the
names become functions, each output finds its own, and the terms are added in Keras's order
(`keras/src/trainers/compile_utils.py`, `CompileLoss`; `keras/src/trainers/trainer.py`,
`Trainer.compute_loss`, Keras 3.15).
"""

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from manual_loop.compiled.lookup import find
from manual_loop.distribution.replicas import LossMean, share

tree = keras.tree


@dataclasses.dataclass
class Weighted:
    """An entry of `loss` with its weight; `keras.tree` does not look inside."""

    loss: Any
    weight: float | None


@dataclasses.dataclass
class Term:
    """The loss of one output: where to find it in `y` and `y_pred`, and how much it counts."""

    path: tuple
    function: keras.losses.Loss
    weight: float | None
    name: str


class Objective:
    """`loss` and `loss_weights`, resolved when the first batch shows its shapes.

    Args:
        loss: name, function, `keras.losses.Loss`, or a list, tuple or dict of these, one for each
            output; None for an output that has none, or altogether.
        loss_weights: None, a float, or floats in the structure of `loss`.
        output_names: the model's output names, or None for a subclassed model.
    """

    def __init__(self, loss, loss_weights, output_names):
        self.loss = loss
        self.loss_weights = loss_weights
        self.output_names = output_names
        self.terms: Any = None  # list of Term
        self.trackers: list = []  # one mean per output, when there are several: `klass_loss`, ...

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
        # any further loss is summed to a scalar first; integers would not have a gradient
        values += [share(keras.ops.sum(_as_float(loss))) for loss in losses]
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
        for i, term in enumerate(self.terms):
            prediction = _at(y_pred, term.path)
            weight = sample_weight
            if tree.is_nested(weight):  # one for each output
                weight = _at(weight, term.path)
            value = term.function(_at(y, term.path), prediction, weight)
            value = keras.ops.cast(value, keras.config.floatx())
            if self.trackers and not single:
                # the log of one output does not know `loss_weights`. Its weight is the *static*
                # batch size: None, so 1, where the last batch may be smaller (CompileLoss.call)
                size = tree.flatten(prediction)[0].shape[0]
                self.trackers[i].update_state(value, sample_weight=size)
            if term.weight is not None:
                value = keras.ops.multiply(value, term.weight)
            values.append(value)
        if single:  # of several losses on one output, Keras minimises the first
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
        try:
            names = tree.pack_sequence_as(y_pred, names)
        except (ValueError, TypeError):  # a subclassed model: its outputs have no names
            names = tree.map_structure(lambda _: None, y_pred)

        self.terms = []
        self._add_terms(y, y_pred, loss, names, ())
        if len(self.terms) > 1:
            self.trackers = [LossMean(name=f"{term.name}_loss") for term in self.terms]
        self._structure = tree.map_structure(lambda _: None, (y, y_pred))

    def _add_terms(self, y, y_pred, loss, names, path):
        """Walk `loss` and the outputs together (`CompileLoss._build_nested`)."""
        if isinstance(loss, (list, tuple)):
            flat = not any(map(tree.is_nested, loss))
            if flat and len(loss) == len(tree.flatten(y_pred)):
                loss = tree.pack_sequence_as(y_pred, loss)
            elif not isinstance(y_pred, type(loss)):  # several losses on the same output
                for entry in loss:
                    self._add_terms(y, y_pred, entry, names, path)
                return
        if not tree.is_nested(loss):
            if loss is not None:
                function = resolve_loss(loss.loss, y, y_pred)
                name = _term_name(path, names, function)
                self.terms.append(Term(path, function, loss.weight, name))
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
            self._add_terms(labels, prediction, entry, names[key], (*path, key))


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


def _term_name(path, output_name, function):
    """The output's name; in nested outputs its path, `rest/size`."""
    if tree.is_nested(output_name) and not path:  # one loss compares all outputs at once
        return "_".join(output_name if isinstance(output_name, dict) else tree.flatten(output_name))
    if not tree.is_nested(output_name) and (not path or isinstance(path[-1], int)):
        path = (*path[:-1], function.name if output_name is None else output_name)
    return "/".join(map(str, path))


def resolve_loss(loss, y, y_pred):
    """A name, function or object as a `keras.losses.Loss` (`compile_utils.get_loss`).

    Raises:
        ValueError: no loss has this name; the message holds the nearest ones.
    """
    function, name = find(keras.losses, "loss", loss, y, y_pred)
    if isinstance(function, keras.losses.Loss):
        return function
    # Keras's wrapper of functions is not public, but its losses are such wrappers: one of them,
    # with another function, brings ranks, mask, weights and mean along
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
