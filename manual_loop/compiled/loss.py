"""What `compile` makes of `loss` and `loss_weights`: one scalar to minimize.

    loss = sum over outputs of  weight * reduction(loss_fn(y, y_pred) * mask * sample_weight)
         + sum of model.losses

`keras.losses.Loss` applies the mask, the sample weights and the reduction. Here the terms are
added, in Keras's order (`keras/src/trainers/compile_utils.py`, `CompileLoss.call`;
`keras/src/trainers/trainer.py`, `Trainer.compute_loss`, Keras 3.15).
"""

import contextlib

import keras
import tensorflow as tf

from manual_loop.compiled.scaling import scale_loss_for_distribution, unscale_loss_for_distribution

tree = keras.tree


class CompiledLoss:
    """The loss of a compiled model.

    Args:
        resolved: `configuration.ResolvedLoss`; None if `compile` was given no loss.
    """

    def __init__(self, resolved):
        self._resolved = resolved

    def __call__(self, y, y_pred, sample_weight, losses):
        """The scalar loss of one batch, float32.

        Args:
            y: labels, in the structure of the model's outputs.
            y_pred: the outputs.
            sample_weight: None, a tensor `[batch]` (or `[batch, steps]`), or one for each output.
            losses: `model.losses` after the forward pass.

        Raises:
            ValueError: there is nothing to minimize, or `y` does not fit the outputs.
        """
        values = [] if self._resolved is None else self._of_outputs(y, y_pred, sample_weight)
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
        terms, structure = self._resolved.terms(y, y_pred)
        if not single and not _same_structure(structure, (y, y_pred)):
            y, y_pred = tree.pack_sequence_as(structure, tree.flatten((y, y_pred)))

        values = []
        for term in terms:
            prediction = _at(y_pred, term.path)
            weight = sample_weight
            if tree.is_nested(weight):  # one for each output
                weight = _at(weight, term.path)
            value = term.loss_fn(_at(y, term.path), prediction, weight)
            value = keras.ops.cast(value, keras.config.floatx())
            if term.mean is not None and not single:
                # the log of an output ignores `loss_weights`. Each batch is weighted by its
                # *static* size: None, that is 1, if the last batch may be smaller
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
        names = self._resolved.output_names or ()
        if isinstance(y, dict) and isinstance(y_pred, (list, tuple)) and set(y) == set(names):
            y = [y[name] for name in names]
        misfit = contextlib.suppress(ValueError, TypeError)
        with misfit:  # a flat list for nested outputs
            return tree.pack_sequence_as(y_pred, y)
        with misfit:  # lists for tuples
            tree.assert_same_paths(y, y_pred)
            return tree.pack_sequence_as(y_pred, tree.flatten(y))
        labels, losses = tree.flatten(y), tree.flatten(self._resolved.given)
        if len(labels) == sum(loss is not None for loss in losses):  # only where there is a loss
            left = iter(labels)
            labels = [None if loss is None else next(left) for loss in losses]
            return tree.pack_sequence_as(self._resolved.given, labels)
        raise ValueError(
            "y_true and y_pred have different structures. `y` must have the structure of the "
            "model's outputs.\n"
            f"y: {tree.map_structure(lambda _: '*', y)}\n"
            f"outputs: {tree.map_structure(lambda _: '*', y_pred)}"
        )


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
