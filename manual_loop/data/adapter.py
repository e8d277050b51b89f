"""What every kind of data becomes: a `DataAdapter`; and the specs that its batches share."""

import dataclasses
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data.kinds import is_jax_sparse, is_scipy_sparse

PEEK = 2  # batches read ahead, to find the sizes that all batches share


@dataclasses.dataclass
class DataAdapter:
    """Batches from one kind of data (`keras/src/trainers/data_adapters/data_adapter.py`).

    Attributes:
        dataset: iterable of `x`, `(x, y)` or `(x, y, sample_weight)`, one epoch: a
            `tf.data.Dataset` or a `resident.ResidentDataset`.
        num_batches: how many there are, or None if unknown.
        batch_size: samples in the first batch, or None if unknown.
        restarts: whether a new iterator starts from the first batch again.
        on_epoch_begin, on_epoch_end: called around each epoch.
        kind: of data, in words.
        order: what knows the order of the batches, so that it can be kept: a `ResidentDataset` or
            a `py_dataset.Order`; None for streams.
    """

    dataset: Iterable
    num_batches: int | None
    batch_size: int | None
    restarts: bool = True
    on_epoch_begin: Callable = lambda: None
    on_epoch_end: Callable = lambda: None
    kind: str = "arrays"
    order: Any = None


def generated_dataset(batches, signature):
    """A `tf.data.Dataset` of what a Python function yields.

    As `tf.data.Dataset.from_generator`, but the data are freed with the dataset. TensorFlow keeps
    the function that it is given for good (`_py_funcs_used_in_graph` in
    tensorflow/python/ops/script_ops.py, TensorFlow 2.21), and with it, after each fit, all that the
    function refers to.

    Args:
        batches: function that returns a new iterator over batches.
        signature: structure of `tf.TypeSpec`s of a batch.
    """
    reference: Any = weakref.ref(batches)
    dataset = tf.data.Dataset.from_generator(lambda: reference()(), output_signature=signature)
    dataset.generator = batches  # what is made of the dataset refers to it
    return dataset


def first_size(batch):
    """Number of samples in a batch."""
    return next(np.shape(leaf)[0] for leaf in keras.tree.flatten(batch) if leaf is not None)


def common_signature(batches):
    """The `tf.TypeSpec`s of all batches: sizes that differ are open, the batch size always is.

    Raises:
        ValueError: scalars, or batches that differ in rank.
    """
    return keras.tree.map_structure(_common_spec, *batches)


def _common_spec(*leaves):
    first = leaves[0]
    if first is None:
        return tf.OptionalSpec(None)
    shapes = [tuple(np.shape(leaf)) for leaf in leaves]
    if not shapes[0]:
        raise ValueError(
            "When passing a dataset to a Keras model, the arrays must be at least rank 1. "
            f"Received shape: {shapes[0]}"
        )
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(
            "When passing a dataset to a Keras model, the corresponding arrays in each batch must "
            f"have the same rank. Received shapes: {shapes}"
        )
    common = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]
    shape = [None, *common[1:]]
    dtype = keras.backend.standardize_dtype(first.dtype)
    if isinstance(first, tf.RaggedTensor):
        return tf.RaggedTensorSpec(shape, dtype, first.ragged_rank, first.row_splits.dtype)
    if isinstance(first, tf.SparseTensor) or is_scipy_sparse(first) or is_jax_sparse(first):
        return tf.SparseTensorSpec(shape, dtype)
    return tf.TensorSpec(shape, dtype)
