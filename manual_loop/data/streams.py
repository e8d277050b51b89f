"""Data that arrive in batches: `tf.data.Dataset`, `keras.utils.PyDataset`, generators, loaders.

Each becomes a `tf.data.Dataset`. What remains is to find how many batches there are, which shapes
they share, and which methods to call around an epoch (`keras/src/trainers/data_adapters/`,
`tf_dataset_adapter.py`, `py_dataset_adapter.py`, `generator_data_adapter.py`,
`torch_data_loader_adapter.py`, Keras 3.15).

A `PyDataset` with workers differs from fit in one way, because fit is not repeatable there: a
thread of its own (`OrderedEnqueuer._run`) submits batches while the main thread continues. How many
it has submitted when an epoch ends early, and whether worker processes are forked before or after
`PyDataset.on_epoch_begin`, changes from run to run. Here both are fixed, at what fit does most
often: see `Enqueuer`.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import random
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data.adapter import DataAdapter
from manual_loop.data.kinds import (
    is_instance,
    is_jax_sparse,
    is_scipy_sparse,
    is_torch_data_loader,
    is_torch_tensor,
)
from manual_loop.data.sample_weights import (
    check_class_weight,
    weigh_classes,
    weigh_classes_in_graph,
)
from manual_loop.data.sparse import jax_to_sparse_tensor, scipy_to_sparse_tensor

tree = keras.tree

PEEK = 2  # batches read ahead, to find the sizes that all batches share


def stream_adapter(x, y, sample_weight, shuffle, class_weight):
    """The `DataAdapter` for data that arrive in batches.

    Raises:
        ValueError: an unknown kind of data, one that is refused by name, or an argument that must
            be part of the batches.
    """
    kind = kind_of(x)
    for name, argument, contents in (
        ("y", y, "the targets"),
        ("sample_weights", sample_weight, "the sample weights"),
    ):
        if argument is not None:
            raise ValueError(
                f"When providing `x` as a {kind}, `{name}` should not be passed. Include {contents}"
                " in its batches instead: (x, y) or (x, y, sample_weight)."
            )
    if class_weight is not None and kind in ("generator", "torch DataLoader"):
        raise ValueError(
            f"Argument `class_weight` is not supported for a {kind}. Add the weights to its "
            f"batches instead: (x, y, sample_weight). Received: class_weight={class_weight}"
        )
    if shuffle and not (kind == "PyDataset" and x.num_batches is not None):
        warnings.warn(
            f"`shuffle=True` was passed, but will be ignored since the data `x` was provided as a "
            f"{kind}, which is expected to be shuffled already.",
            stacklevel=5,
        )
    if kind == "tf.data.Dataset":
        return dataset_adapter(x, class_weight)
    if kind == "PyDataset":
        return pydataset_adapter(x, class_weight, shuffle)
    return generator_adapter(x) if kind == "generator" else torch_adapter(x)


def kind_of(x):
    """The kind of data in words.

    Raises:
        ValueError: a kind that is refused by name, or an unknown one.
    """
    if isinstance(x, tf.distribute.DistributedDataset):
        raise ValueError(
            f"`x` is a {type(x).__name__}, which is not supported. Pass the `tf.data.Dataset` "
            "itself, with the batches of all replicas together: under a strategy, each replica "
            "gets its part."
        )
    if any(is_instance(x, "grain", name) for name in ("MapDataset", "IterDataset", "DataLoader")):
        raise ValueError(
            "`x` is a dataset of Grain, which is not supported. Pass a generator over its batches: "
            "`(batch for batch in x)`."
        )
    if is_torch_data_loader(x):
        return "torch DataLoader"
    kinds = {
        tf.data.Dataset: "tf.data.Dataset",
        keras.utils.PyDataset: "PyDataset",
        types.GeneratorType: "generator",
    }
    for cls, kind in kinds.items():
        if isinstance(x, cls):
            return kind
    raise ValueError(f"Unrecognized data type: x={x} (of type {type(x)})")


def dataset_adapter(dataset, class_weight):
    """The `DataAdapter` for a `tf.data.Dataset`, of any length: known, unknown or infinite."""
    if class_weight is not None:
        dataset = dataset.map(weigh_classes_in_graph(class_weight)).prefetch(tf.data.AUTOTUNE)
    cardinality = int(dataset.cardinality())
    shape = getattr(tree.flatten(dataset.element_spec)[0], "shape", None)
    batch_size = shape[0] if shape is not None and shape.rank else None
    return DataAdapter(dataset, cardinality if cardinality >= 0 else None, batch_size)


def generator_adapter(generator):
    """The `DataAdapter` for a Python generator. Its first batches are read, and then used first."""
    first = list(itertools.islice(generator, PEEK))
    if not first:
        raise ValueError(
            "When passing a Python generator to a Keras model, the generator must yield at least "
            "one batch. `x` is empty."
        )
    if not isinstance(first[0], tuple):
        raise ValueError(
            "When passing a Python generator to a Keras model, the generator must return a tuple: "
            f"(x,), (x, y) or (x, y, sample_weight). `x` yielded: {type(first[0]).__name__}"
        )
    signature = common_signature(first)

    def batches():  # a new iterator continues where the last one stopped
        for batch in itertools.chain(first, generator):
            yield tree.map_structure(_to_signature, batch, signature)

    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return DataAdapter(dataset, None, first_size(first[0]), restarts=False)


def torch_adapter(loader):
    """The `DataAdapter` for a `torch.utils.data.DataLoader`."""

    def batches():
        for batch in loader:
            yield tuple(tree.map_structure(_from_torch, batch))

    peeked = list(itertools.islice(loader, PEEK))
    if not peeked:
        raise ValueError("The torch DataLoader `x` must yield at least one batch; it is empty.")
    if not isinstance(peeked[0], (list, tuple)):
        raise TypeError(
            "The torch DataLoader `x` must yield lists or tuples: (x,), (x, y) or (x, y, "
            f"sample_weight). Received: {type(peeked[0]).__name__}"
        )
    signature = tuple(common_signature(peeked))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    steps = len(loader) if hasattr(loader.dataset, "__len__") else None
    return DataAdapter(dataset, steps, loader.batch_size)


def _from_torch(leaf):
    return np.asarray(leaf.cpu() if is_torch_tensor(leaf) else leaf)


def pydataset_adapter(data, class_weight, shuffle):
    """The `DataAdapter` for a `keras.utils.PyDataset`; with workers, batches are fetched ahead."""
    enqueuer = None
    if data.workers > 1 or (data.workers > 0 and data.use_multiprocessing):
        enqueuer = Enqueuer(data, shuffle)

    def batches():
        if enqueuer:
            found = enqueuer.get()
        elif data.num_batches is None:
            found = map(data.__getitem__, itertools.count())
        else:
            found = map(data.__getitem__, epoch_order(data.num_batches, shuffle))
        for batch in found:
            yield _standardize(batch, class_weight)

    length = data.num_batches
    peeked = [_standardize(data[i], class_weight) for i in range(PEEK)[:length]]
    if not peeked:
        raise ValueError("The PyDataset has length 0: `x` must hold at least one batch.")
    dataset = tf.data.Dataset.from_generator(batches, output_signature=common_signature(peeked))
    batch_size = first_size(peeked[0])
    if enqueuer is None:
        hooks = {"on_epoch_begin": data.on_epoch_begin, "on_epoch_end": data.on_epoch_end}
        return DataAdapter(dataset.prefetch(tf.data.AUTOTUNE), length, batch_size, **hooks)

    def on_epoch_begin():
        data.on_epoch_begin()
        enqueuer.start()

    def on_epoch_end():
        enqueuer.stop()
        data.on_epoch_end()

    # the workers fetch ahead; batches that tf.data took ahead of an epoch's end would be lost
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    dataset = dataset.with_options(options)
    return DataAdapter(
        dataset, length, batch_size, on_epoch_begin=on_epoch_begin, on_epoch_end=on_epoch_end
    )


def epoch_order(length, shuffle):
    """The indices of one epoch of a `PyDataset`, shuffled by Python's `random`."""
    order = list(range(length))
    if shuffle:
        random.shuffle(order)
    return order


def first_size(batch):
    """Number of samples in a batch."""
    return next(np.shape(leaf)[0] for leaf in tree.flatten(batch) if leaf is not None)


def _standardize(batch, class_weight):
    """The value of `PyDataset.__getitem__` as a tuple, or as a dict of the inputs alone."""
    if isinstance(batch, dict):
        return batch
    if isinstance(batch, np.ndarray):
        batch = (batch,)
    if not isinstance(batch, (list, tuple)) or len(batch) not in (1, 2, 3):
        count = f" of {len(batch)} elements" if isinstance(batch, (list, tuple)) else ""
        raise ValueError(
            "PyDataset.__getitem__() must return a tuple or a dict. A tuple must be (x,), (x, y) "
            f"or (x, y, sample_weight). Received: {type(batch).__name__}{count}"
        )
    batch = tuple(batch)
    if class_weight is None or len(batch) == 1:
        return batch
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    check_class_weight(y, sample_weight)
    return x, y, weigh_classes(y, class_weight)


class Enqueuer:
    """Threads or processes that fetch the batches of a `PyDataset` ahead, in order.

    Between `start` and `stop`, `max_queue_size` batches and one more are under way at all times.
    `stop` keeps those that were not taken, and they come first after the next `start`, which begins
    with the first index again. So an epoch that ends early, as with `validation_steps`, leaves
    batches to the next. (`py_dataset_adapter.py`, `PyDatasetEnqueuer`, `OrderedEnqueuer`, Keras
    3.15.)

    Args:
        data: a `keras.utils.PyDataset`: `workers`, `use_multiprocessing` and `max_queue_size` are
            its own.
        shuffle: whether to draw another order of the indices at each `start`.

    Raises:
        ValueError: data without a length and a queue without a limit.
    """

    def __init__(self, data, shuffle):
        if data.num_batches is None and data.max_queue_size < 1:
            raise ValueError(
                "`max_queue_size` must be positive for a PyDataset with workers and without a "
                f"length. Received: {data.max_queue_size}"
            )
        self._data = data
        self._shuffle = shuffle
        self._endless = itertools.count()  # continues at the next start
        self._left: collections.deque = collections.deque()  # fetched for an earlier start
        self._coming: collections.deque = collections.deque()  # futures
        self._indices: Iterator[int] = iter(())
        self._pool: concurrent.futures.Executor | None = None
        self._lock = threading.Lock()  # a strategy takes batches in threads of its own

    def start(self):
        """Fetch batches, from the first index on. Does nothing if already started."""
        with self._lock:
            if self._pool is not None:
                return
            data = self._data
            pool: concurrent.futures.Executor
            if data.num_batches is None:
                self._indices = self._endless
            else:
                self._indices = iter(epoch_order(data.num_batches, self._shuffle))
            if data.use_multiprocessing:
                fork = multiprocessing.get_context("fork")  # it inherits the data: no pickling
                workers = data.workers, fork, _share, (data,)
                pool = concurrent.futures.ProcessPoolExecutor(*workers)
                self._fetch = lambda index: pool.submit(_fetch_shared, index)
            else:
                pool = concurrent.futures.ThreadPoolExecutor(data.workers)
                self._fetch = lambda index: pool.submit(data.__getitem__, index)
            self._pool = pool
            ahead = data.max_queue_size + 1 if data.max_queue_size > 0 else data.num_batches
            self._coming.extend(map(self._fetch, itertools.islice(self._indices, ahead)))

    def stop(self):
        """Wait for the batches under way, and keep them for the next `start`."""
        with self._lock:
            if self._pool is None:
                return
            pool, self._pool = self._pool, None
            coming, self._coming = self._coming, collections.deque()
            with pool:
                found = (future.result() for future in coming)
                self._left.extend(batch for batch in found if batch is not None)

    def get(self):
        """Yield the batches of one epoch: those that were left, then those that are fetched.

        Raises:
            ValueError: stopped meanwhile.
        """
        for number in itertools.count(1):
            batch = self._next()
            if batch is None:
                return
            yield batch
            if number == self._data.num_batches:
                self.stop()
                return

    def _next(self):
        """The next batch that is not None; None at the end."""
        while True:
            with self._lock:
                if self._pool is None:
                    raise ValueError(
                        "Iterator called after `on_epoch_end` or before `on_epoch_begin`."
                    )
                if self._left:
                    return self._left.popleft()
                if not self._coming:
                    return None
                future = self._coming.popleft()
                self._coming.extend(map(self._fetch, itertools.islice(self._indices, 1)))
            try:
                batch = future.result()
            except BaseException:
                self.stop()
                raise
            if batch is not None:
                return batch


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


def _to_signature(leaf, spec):
    """One array of a generator's batch, as `tf.data` takes it."""
    if leaf is None:
        return tf.experimental.Optional.empty(None)
    if is_scipy_sparse(leaf):
        leaf = scipy_to_sparse_tensor(leaf)
    elif is_jax_sparse(leaf):
        leaf = jax_to_sparse_tensor(leaf)
    if not spec.shape.is_compatible_with(leaf.shape):
        raise TypeError(
            f"The generator `x` yielded an array of shape {tuple(leaf.shape)} where an array of "
            f"shape {spec.shape} was expected. If a size varies, make it differ in the generator's "
            "first two batches."
        )
    return leaf
