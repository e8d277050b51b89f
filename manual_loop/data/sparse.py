"""Sparse arrays of TensorFlow, SciPy or JAX, whose rows are gathered like those of dense arrays.

A `tf.SparseTensor` cannot be gathered. Its indices and values, as one ragged row for each sample,
can (`keras/src/trainers/data_adapters/array_slicing.py`, `TensorflowSparseWrapper`, Keras
3.15).
"""

import collections

import numpy as np
import tensorflow as tf

from manual_loop.data.kinds import is_instance

# `columns`: ragged [samples, values, axes - 1]; `values`: ragged [samples, values];
# `like`: an empty tensor with the static shape of the sparse one, except for the samples.
SparseRows = collections.namedtuple("SparseRows", ["columns", "values", "like"])


def scipy_to_sparse_tensor(x):
    """A SciPy sparse matrix as `tf.SparseTensor`, its rows in order."""
    x = x.tocsr().tocoo()
    return tf.SparseTensor(np.stack([x.row, x.col], axis=1).astype("int64"), x.data, x.shape)


def jax_to_sparse_tensor(x):
    """A `jax.experimental.sparse.BCOO` as `tf.SparseTensor`.

    Raises:
        ValueError: another sparse format of JAX.
    """
    if not is_instance(x, "jax", "BCOO"):
        raise ValueError(
            f"Of JAX's sparse formats only BCOO is supported. Received: {type(x).__name__}. "
            "Convert it first, as by `BCOO.fromdense(x.todense())`."
        )
    return tf.SparseTensor(x.indices, x.data, x.shape)


def to_rows(sparse):
    """A `tf.SparseTensor` `[samples, ...]` as `SparseRows`."""
    rows = tf.cast(sparse.indices[:, 0], tf.int64)
    samples = sparse.dense_shape[0]
    return SparseRows(
        tf.RaggedTensor.from_value_rowids(sparse.indices[:, 1:], rows, samples),
        tf.RaggedTensor.from_value_rowids(sparse.values, rows, samples),
        tf.zeros([0, *sparse.shape[1:]], sparse.dtype),
    )


def gather_rows(rows, indices):
    """The samples `indices` of a `SparseRows`, as `tf.SparseTensor` `[len(indices), ...]`."""
    columns, values = tf.gather(rows.columns, indices), tf.gather(rows.values, indices)
    positions = tf.concat([columns.value_rowids()[:, None], columns.flat_values], axis=1)
    size = indices.shape[0] if indices.shape[0] is not None else tf.shape(indices)[0]
    return tf.SparseTensor(positions, values.flat_values, (size, *rows.like.shape[1:]))
