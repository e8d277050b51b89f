"""What `compile` makes of `loss` and `loss_weights`: one scalar to minimise.

    loss = sum over outputs of  weight * reduction(loss_fn(y, y_pred) * mask * sample_weight)
         + sum of model.losses

The reduction, the mask and the sample weights are the business of `keras.losses.Loss`; here the
names become functions, each output finds its own, and the terms are added in Keras's order
(`keras/src/trainers/compile_utils.py`, `CompileLoss`; `keras/src/trainers/trainer.py`,
`Trainer.compute_loss`, Keras 3.15).
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from manual_loop.names import label_kind, look_up, object_name

tree = keras.tree


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

    Raises:
        ValueError: `loss_weights` is neither a float nor a list, tuple or dict.
    """

    def __init__(self, loss, loss_weights, output_names):
        if loss_weights and not isinstance(loss_weights, (list, tuple, dict, float)):
            raise ValueError(
                "`loss_weights` must be a float (one output) or a list, tuple or dict of floats, "
                f"one for each loss. Received: {loss_weights!r}"
            )
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
        values = [] if self.loss is None else self._terms(y, y_pred, sample_weight)
        # any further loss is summed to a scalar first; integers would not have a gradient
        values += [keras.ops.sum(_as_float(loss)) for loss in losses]
        if not values:
            raise ValueError("No loss to compute. Provide a `loss` argument in `compile()`.")
        # one reduce_sum over all, not a chain of additions: the last bit depends on it
        return values[0] if len(values) == 1 else keras.ops.sum(values)

    def _terms(self, y, y_pred, sample_weight):
        """What `loss` contributes: a list of one scalar, or an empty one."""
        single = not tree.is_nested(y) and not tree.is_nested(y_pred)
        if not single:
            y = self._fit_structure(y, y_pred)
        elif y is None:
            raise ValueError("`loss` compares with labels, but `y` is None.")
        if self.terms is None:
            self._resolve(y, y_pred)
        if not single:
            y = _pack_like(self._y_structure, y)
            y_pred = _pack_like(self._y_pred_structure, y_pred)

        values = []
        for i, term in enumerate(self.terms):
            prediction = _at(y_pred, term.path)
            weight = sample_weight
            if sample_weight is not None and tree.is_nested(sample_weight):
                weight = _at(sample_weight, term.path)
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

    def _fit_structure(self, y, y_pred):
        """`y` in the containers of `y_pred`: labels may come as a list, a tuple or a dict."""
        try:
            tree.assert_same_structure(y_pred, y)
            return y
        except ValueError:
            pass
        if not tree.is_nested(y) and hasattr(y_pred, "__len__") and len(y_pred) == 1:
            y = [y]
        names = self.output_names or ()
        if isinstance(y, dict) and isinstance(y_pred, (list, tuple)) and set(y) == set(names):
            y = [y[name] for name in names]
        attempts = (
            lambda: tree.pack_sequence_as(y_pred, y),
            lambda: (
                tree.assert_same_paths(y, y_pred) or tree.pack_sequence_as(y_pred, tree.flatten(y))
            ),
            lambda: self._labels_of_the_losses(y),
        )
        for attempt in attempts:
            try:
                return attempt()
            except (ValueError, TypeError, KeyError):
                continue
        raise ValueError(
            "`y` and the model's outputs have different structures.\n"
            f"y: {tree.map_structure(lambda _: '*', y)}\n"
            f"outputs: {tree.map_structure(lambda _: '*', y_pred)}"
        )

    def _labels_of_the_losses(self, y):
        """`y` holds labels only for the outputs that have a loss: leave None for the others."""
        labels = iter(tree.flatten(y))
        losses = tree.flatten(self.loss)
        if sum(loss is not None for loss in losses) != len(tree.flatten(y)):
            raise ValueError("The number of labels must match the number of losses.")
        filled = [None if loss is None else next(labels) for loss in losses]
        return tree.pack_sequence_as(self.loss, filled)

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
        weighted = _pair(loss, loss_weights)

        try:
            output_names = tree.pack_sequence_as(y_pred, names)
        except (ValueError, TypeError):  # a subclassed model: its outputs have no names
            output_names = tree.map_structure(lambda _: None, y_pred)
        if not tree.is_nested(weighted):  # one loss for every output
            weighted = tree.map_structure(lambda _: weighted, y_pred)

        self.terms = []
        self._add_terms(y, y_pred, weighted, output_names, ())
        if len(self.terms) > 1:
            self.trackers = [keras.metrics.Mean(name=f"{term.name}_loss") for term in self.terms]
        self._y_structure = tree.map_structure(lambda _: None, y)
        self._y_pred_structure = tree.map_structure(lambda _: None, y_pred)

    def _add_terms(self, y, y_pred, loss, names, path):
        """Walk `loss` and the outputs together (`CompileLoss._build_nested`)."""
        if isinstance(loss, (list, tuple)):
            flat = all(not tree.is_nested(entry) for entry in loss)
            if flat and len(loss) == len(tree.flatten(y_pred)):
                loss = tree.pack_sequence_as(y_pred, list(loss))
            elif not isinstance(y_pred, type(loss)):  # several losses on the same output
                for entry in loss:
                    self._add_terms(y, y_pred, entry, names, path)
                return
        if not tree.is_nested(loss):
            if loss is not None:
                self.terms.append(_term(y, y_pred, loss, names, path))
            return
        if not isinstance(loss, type(y_pred)):
            raise KeyError(f"`loss` has an entry at {path} that the model's outputs do not have.")
        for key, entry in loss.items() if isinstance(loss, dict) else enumerate(loss):
            if entry is None:
                continue
            if not (_has(y, key) and _has(y_pred, key)):
                raise KeyError(
                    f"`loss` has an entry at {(*path, key)} that the outputs or `y` do not have."
                )
            self._add_terms(y[key], y_pred[key], entry, names[key], (*path, key))


class _Weighted:
    """A loss with its weight, opaque to `keras.tree`."""

    def __init__(self, loss, weight):
        self.loss = loss
        self.weight = weight


def _pair(loss, loss_weights):
    """`loss` with each entry joined to its weight; an output without a loss stays None."""
    if loss_weights is None:
        loss_weights = tree.map_structure(lambda _: None, loss)
    else:
        try:
            tree.assert_same_structure(loss, loss_weights)
        except ValueError:
            losses, weights = tree.flatten(loss), tree.flatten(loss_weights)
            if len(losses) != len(weights):
                raise ValueError(
                    f"`loss_weights` must match the number of losses: {len(losses)} losses and "
                    f"{len(weights)} weights."
                ) from None
            loss_weights = tree.pack_sequence_as(loss, weights)
    return tree.map_structure(
        lambda entry, weight: None if entry is None else _Weighted(entry, weight),
        loss,
        loss_weights,
    )


def _term(y, y_pred, weighted, output_name, path):
    function = resolve_loss(weighted.loss, y, y_pred)
    name_path = path
    if not tree.is_nested(output_name):
        leaf = function.name if output_name is None else output_name
        if not path:
            name_path = (leaf,)
        elif isinstance(path[-1], int):
            name_path = (*path[:-1], leaf)
    name = "/".join(str(key) for key in name_path)
    if not name:
        name = "_".join(output_name if isinstance(output_name, dict) else tree.flatten(output_name))
    return Term(path, function, weighted.weight, name)


def resolve_loss(loss, y, y_pred):
    """A name, function or object as a `keras.losses.Loss` (`compile_utils.get_loss`).

    `"crossentropy"` and `"ce"` become the binary, sparse or categorical one that the shapes of
    `y` and `y_pred` ask for.

    Raises:
        ValueError: no loss has this name; the message holds the nearest ones.
    """
    if str(loss).lower() in ("crossentropy", "ce"):
        kind = label_kind(y, y_pred)
        function = getattr(keras.losses, f"{kind}_crossentropy")
    else:
        function = look_up(keras.losses, "loss", loss)
    if isinstance(function, keras.losses.Loss):
        return function
    name = loss if isinstance(loss, str) else object_name(function)
    return _FunctionLoss(function, name)


class _FunctionLoss(keras.losses.Loss):
    """`fn(y_true, y_pred)` with a per-sample result, as a Loss: mask, weights and mean come along.

    Keras's own wrapper (`losses.LossFunctionWrapper`) is not public.
    """

    def __init__(self, function, name):
        super().__init__(name=name)
        self.function = function

    def call(self, y_true, y_pred):
        pairs = tree.map_structure(_same_rank, y_true, y_pred)
        return self.function(
            tree.map_structure_up_to(y_true, lambda pair: pair[0], pairs),
            tree.map_structure_up_to(y_true, lambda pair: pair[1], pairs),
        )


def _same_rank(y_true, y_pred):
    """Labels `[n]` against predictions `[n, 1]`, or the reverse, would broadcast to `[n, n]`."""
    ranks = len(y_true.shape), len(y_pred.shape)
    if ranks[0] == ranks[1] + 1 and y_true.shape[-1] == 1:
        if ranks[1] == 1:
            return y_true, keras.ops.expand_dims(y_pred, -1)
        return keras.ops.squeeze(y_true, -1), y_pred
    if ranks[1] == ranks[0] + 1 and y_pred.shape[-1] == 1:
        if ranks[0] == 1:
            return keras.ops.expand_dims(y_true, -1), y_pred
        return y_true, keras.ops.squeeze(y_pred, -1)
    return y_true, y_pred


def _as_float(loss):
    loss = tf.convert_to_tensor(loss)
    return loss if loss.dtype.is_floating else tf.cast(loss, keras.config.floatx())


def _at(structure, path):
    for key in path:
        structure = structure[key]
    return structure


def _has(structure, key):
    if isinstance(structure, dict):
        return key in structure
    return isinstance(structure, (list, tuple)) and isinstance(key, int) and key < len(structure)


def _pack_like(structure, value):
    """`value` in the containers of the first batch, so that the terms' paths lead to it."""
    try:
        tree.assert_same_structure(structure, value)
        return value
    except ValueError:
        return tree.pack_sequence_as(structure, tree.flatten(value))
