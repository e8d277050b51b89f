"""How `fit` turns `class_weight` and `sample_weight` into one weight for each sample.

A class weight is a sample weight that is looked up by the label, in training alone
(`keras/src/trainers/data_adapters/data_adapter_utils.py`, `class_weight_to_sample_weights`;
`tf_dataset_adapter.py`, `make_class_weight_map_fn`; Keras 3.15).
"""

import keras
import numpy as np
import tensorflow as tf

tree = keras.tree


def weigh_classes(y, class_weight):
    """`class_weight` as `sample_weight`: float `[samples]`, 1 for a class that is not listed.

    Args:
        y: class numbers `[samples]` or `[samples, 1]`, or one-hot `[samples, classes]`.
        class_weight: dict: class number -> weight.

    Raises:
        AttributeError: `class_weight` is not a dict, as in Keras.
        IndexError: there are no labels, as in Keras.
    """
    _assert_dict(class_weight)
    y = keras.ops.convert_to_numpy(y)
    if not y.ndim:
        raise IndexError(f"`class_weight` looks weights up by label. Received: y={y}")
    if y.ndim > 1:
        y = np.squeeze(y, -1) if y.shape[-1] == 1 else np.argmax(y, -1)
    classes = np.round(y).astype("int32")
    weights = [class_weight.get(int(number), 1.0) for number in classes]
    return np.array(weights, keras.config.floatx())


def weigh_classes_in_graph(class_weight):
    """`weigh_classes` for `tf.data`: a function that adds the weights to a batch."""
    _assert_dict(class_weight)
    classes = range(max(class_weight) + 1)
    table = tf.convert_to_tensor([class_weight.get(number, 1.0) for number in classes])

    def add_weights(*batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        check_class_weight(y, sample_weight)
        if y.shape.rank < 2:
            numbers = as_numbers(y)
        else:  # the size of the last axis may be known only at run time
            one_hot = tf.shape(y)[-1] > 1
            numbers = tf.cond(one_hot, lambda: of_one_hot(y), lambda: as_numbers(y[..., 0]))
        return x, y, tf.gather(table, numbers)

    def as_numbers(y):
        return tf.cast(tf.round(y), tf.int32)

    def of_one_hot(y):
        return tf.argmax(y, -1, output_type=tf.int32)

    return add_weights


def _assert_dict(class_weight):
    if not hasattr(class_weight, "get"):
        raise AttributeError(
            f"`class_weight` must be a dict: class number -> weight. Received: {class_weight!r}"
        )


def check_class_weight(y, sample_weight):
    """Raise ValueError if `class_weight` cannot become a sample weight."""
    if sample_weight is not None:
        raise ValueError(
            "You cannot `class_weight` and `sample_weight` at the same time: pass one of the two."
        )
    if tree.is_nested(y):
        raise ValueError(
            "`class_weight` is only supported for Models with a single output. Pass `sample_weight`"
            " instead, one array for each output."
        )


def one_for_each_output(y, sample_weight):
    """`sample_weight` in the structure of `y`: a single array applies to every output.

    Raises:
        ValueError: a structure other than that of `y`, or a single array with several weights per
            sample for several outputs.
    """
    if sample_weight is None or not tree.is_nested(y):
        return sample_weight
    if not isinstance(sample_weight, (list, tuple, dict)):
        shape = tuple(sample_weight.shape)
        if len(shape) != 1 and shape[1:] != (1,):
            raise ValueError(
                "For a model with multiple outputs, when providing a single `sample_weight` array, "
                "it must have shape [samples]. Pass one array for each output instead. Received "
                f"shape: {shape}"
            )
        return tree.map_structure(lambda _: sample_weight, y)
    try:
        tree.assert_same_structure(y, sample_weight)
    except ValueError:
        raise ValueError(
            "You should provide one `sample_weight` array per output in `y`. Received structures "
            f"y: {tree.map_structure(lambda _: '*', y)} and "
            f"sample_weight: {tree.map_structure(lambda _: '*', sample_weight)}"
        ) from None
    return sample_weight
