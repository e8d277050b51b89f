"""Data that come in batches already: `tf.data.Dataset`, `keras.utils.PyDataset`, generators.

Each becomes a `tf.data.Dataset`; what is left is to find out how long it is, which shapes its
batches share, and what it wants to be told (`keras/src/trainers/data_adapters/`,
`tf_dataset_adapter.py`, `py_dataset_adapter.py`, `generator_data_adapter.py`, Keras 3.15).
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import random
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data.sample_weights import (
    check_class_weight,
    weigh_classes,
    weigh_classes_in_graph,
)
from manual_loop.data.kinds import is_scipy_sparse
from manual_loop.data.sparse import to_sparse_tensor

tree = keras.tree

PEEK = 2  # batches looked at, to learn which sizes all batches share


@dataclasses.dataclass
class Source:
    """Batches from one kind of data.

    Attributes:
        batches: iterable of `x`, `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, or
            `arrays.Resident`.
        steps: how many there are, or None if unknown.
        batch_size: samples in the first, or None if unknown.
        restarts: whether a new iterator starts from the first batch again.
        on_epoch_begin, on_epoch_end: what the data want to be told.
    """

    batches: Iterable
    steps: int | None
    batch_size: int | None
    restarts: bool = True
    on_epoch_begin: Callable = lambda: None
    on_epoch_end: Callable = lambda: None


def stream_source(x, y, sample_weight, shuffle, class_weight):
    """The `Source` for data that come in batches.

    Raises:
        ValueError: an unknown kind of data, or an argument that belongs into the batches.
    """
    kinds = {
        tf.data.Dataset: "tf.data.Dataset",
        keras.utils.PyDataset: "PyDataset",
        types.GeneratorType: "generator",
    }
    kind = next((kinds[cls] for cls in kinds if isinstance(x, cls)), None)
    if kind is None:
        raise ValueError(f"Unrecognized data type: x={x} (of type {type(x)})")
    for name, argument in (("y", y), ("sample_weight", sample_weight)):
        if argument is not None:
            raise ValueError(
                f"`{name}` must not be given when `x` is a {kind}: it belongs into the batches."
            )
    if class_weight is not None and kind == "generator":
        raise ValueError("`class_weight` is not supported for a generator: yield sample weights.")
    if shuffle and not (kind == "PyDataset" and x.num_batches is not None):
        warnings.warn(
            f"`shuffle=True` was passed, but will be ignored since the data `x` was provided as a "
            f"{kind}, which is expected to be shuffled already.",
            stacklevel=5,
        )
    if kind == "tf.data.Dataset":
        return dataset_source(x, class_weight)
    if kind == "PyDataset":
        return pydataset_source(x, class_weight, shuffle)
    return generator_source(x)


def dataset_source(dataset, class_weight):
    """A `tf.data.Dataset` as it is; its length may be unknown or infinite."""
    if class_weight is not None:
        dataset = dataset.map(weigh_classes_in_graph(class_weight)).prefetch(tf.data.AUTOTUNE)
    cardinality = int(dataset.cardinality())
    shape = getattr(tree.flatten(dataset.element_spec)[0], "shape", None)
    batch_size = shape[0] if shape is not None and shape.rank else None
    return Source(dataset, cardinality if cardinality >= 0 else None, batch_size)


def generator_source(generator):
    """A Python generator: its first batches are looked at, then put back in front."""
    first = list(itertools.islice(generator, PEEK))
    if not first:
        raise ValueError("The generator `x` must yield at least one batch; it is empty.")
    if not isinstance(first[0], tuple):
        raise ValueError(
            "The generator `x` must yield tuples (x,), (x, y) or (x, y, sample_weight). "
            f"Received: {type(first[0]).__name__}"
        )
    signature = common_signature(first)

    def batches():  # the generator goes on where the last walk stopped
        for batch in itertools.chain(first, generator):
            yield tree.map_structure(_to_signature, batch, signature)

    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return Source(dataset, None, first_size(first[0]), restarts=False)


def pydataset_source(data, class_weight, shuffle):
    """A `keras.utils.PyDataset`, in its order or shuffled; with workers, fetched ahead."""
    workers = data.workers if data.workers > 1 or data.use_multiprocessing else 0
    endless = itertools.count()
    fetched: collections.deque = collections.deque()  # what workers fetched ahead of endless data

    def batches():
        if data.num_batches is None:
            indices: Iterator[int] = endless if workers else itertools.count()
        else:
            order = list(range(data.num_batches))
            if shuffle:
                random.shuffle(order)
            indices = iter(order)
            fetched.clear()
        if workers:
            found = fetch_ahead(data, indices, workers, fetched)
        else:
            found = map(data.__getitem__, indices)
        for batch in found:
            yield _standardize(batch, class_weight)

    length = data.num_batches
    peeked = [_standardize(data[i], class_weight) for i in range(PEEK)[:length]]
    if not peeked:
        raise ValueError("The PyDataset `x` has length 0.")
    dataset = tf.data.Dataset.from_generator(batches, output_signature=common_signature(peeked))
    if workers:  # they fetch ahead; what tf.data took ahead of an epoch's end would be lost
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.with_options(options)
    else:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    batch_size = first_size(peeked[0])
    told = {"on_epoch_begin": data.on_epoch_begin, "on_epoch_end": data.on_epoch_end}
    return Source(dataset, length, batch_size, **told)


def first_size(batch):
    """How many samples a batch holds."""
    return next(np.shape(leaf)[0] for leaf in tree.flatten(batch) if leaf is not None)


def _standardize(batch, class_weight):
    """What `PyDataset.__getitem__` returned as a tuple (or a dict, the inputs alone)."""
    if isinstance(batch, dict):
        return batch
    batch = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
    if len(batch) not in (1, 2, 3):
        raise ValueError(
            "`PyDataset.__getitem__` must return (x,), (x, y) or (x, y, sample_weight). "
            f"Received {len(batch)} elements."
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if class_weight is None or y is None:
        return batch
    check_class_weight(y, sample_weight)
    return x, y, weigh_classes(y, class_weight)


def fetch_ahead(data, indices, workers, fetched):
    """Yield `data[i]` for each index in order, fetched by threads or processes.

    Args:
        data: a `keras.utils.PyDataset`: `use_multiprocessing` and `max_queue_size` are its own.
        indices: an iterator.
        workers: how many threads or processes.
        fetched: a deque for what is under way; what is left in it comes first.
    """
    pool: concurrent.futures.Executor
    if data.use_multiprocessing:
        fork = multiprocessing.get_context("fork")  # it inherits the data: nothing is pickled
        pool = concurrent.futures.ProcessPoolExecutor(workers, fork, _share, (data,))
        fetch = _fetch_shared
    else:
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        fetch = data.__getitem__
    with pool:
        coming = (pool.submit(fetch, i) for i in indices)
        fetched.extend(itertools.islice(coming, data.max_queue_size))
        while fetched:
            yield fetched.popleft().result()
            fetched.extend(itertools.islice(coming, 1))


_shared: Any = None  # in a worker process: the dataset it fetches from


def _share(data):
    global _shared
    _shared = data


def _fetch_shared(index):
    return _shared[index]


def common_signature(batches):
    """The `tf.TypeSpec`s of all batches: sizes that differ are open, the batch size always is.

    Raises:
        ValueError: scalars, or batches that differ in rank.
    """
    return tree.map_structure(_common_spec, *batches)


def _common_spec(*leaves):
    first = leaves[0]
    if first is None:
        return tf.OptionalSpec(None)
    shapes = [tuple(np.shape(leaf)) for leaf in leaves]
    if not shapes[0] or len({len(shape) for shape in shapes}) > 1:
        raise ValueError(
            "Arrays in batches must have at least one axis, and as many in every batch. "
            f"Received shapes: {shapes}"
        )
    common = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]
    shape = [None, *common[1:]]
    dtype = keras.backend.standardize_dtype(first.dtype)
    if isinstance(first, tf.RaggedTensor):
        return tf.RaggedTensorSpec(shape, dtype, first.ragged_rank, first.row_splits.dtype)
    if isinstance(first, tf.SparseTensor) or is_scipy_sparse(first):
        return tf.SparseTensorSpec(shape, dtype)
    return tf.TensorSpec(shape, dtype)


def _to_signature(leaf, spec):
    """One array of a generator's batch, as `tf.data` wants it."""
    if leaf is None:
        return tf.experimental.Optional.empty(None)
    if is_scipy_sparse(leaf):
        leaf = to_sparse_tensor(leaf)
    if not spec.shape.is_compatible_with(leaf.shape):
        raise TypeError(
            f"The generator `x` yielded an array of shape {tuple(leaf.shape)} where {spec.shape} "
            "was expected from its first two batches. If a size varies, vary it in these two."
        )
    return leaf
