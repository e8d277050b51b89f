"""`keras.utils.PyDataset`: batches by index, fetched by worker threads or processes if asked for
(`keras/src/trainers/data_adapters/py_dataset_adapter.py`, Keras 3.15).

With workers, fit is not repeatable: a thread of its own (`OrderedEnqueuer._run`) submits batches
while the main thread continues. How many it has submitted when an epoch ends early, and whether
worker processes are forked before or after `PyDataset.on_epoch_begin`, changes from run to run.
Here both are fixed, at what fit does most often: see `Enqueuer`.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import random
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data.adapter import (
    PEEK,
    DataAdapter,
    common_signature,
    first_size,
    generated_dataset,
)
from manual_loop.data.sample_weights import check_class_weight, weigh_classes


def pydataset_adapter(data, class_weight, shuffle):
    """The `DataAdapter` for a `keras.utils.PyDataset`; with workers, batches are fetched ahead."""
    order, enqueuer = Order(data, shuffle), None
    if data.workers > 1 or (data.workers > 0 and data.use_multiprocessing):
        enqueuer = Enqueuer(data, order)

    def batches():
        found = enqueuer.get() if enqueuer else map(data.__getitem__, order.next_epoch())
        for batch in found:
            yield _standardize(batch, class_weight)

    length = data.num_batches
    peeked = [_standardize(data[i], class_weight) for i in range(PEEK)[:length]]
    if not peeked:
        raise ValueError("The PyDataset has length 0: `x` must hold at least one batch.")
    dataset = generated_dataset(batches, common_signature(peeked))
    batch_size = first_size(peeked[0])
    if enqueuer is None:
        hooks = {"on_epoch_begin": order.on_epoch_begin, "on_epoch_end": data.on_epoch_end}
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
        return DataAdapter(dataset, length, batch_size, **hooks, kind="PyDataset", order=order)

    def on_epoch_begin():
        order.on_epoch_begin()
        enqueuer.start()

    def on_epoch_end():
        enqueuer.stop()
        data.on_epoch_end()

    # the workers fetch ahead; batches that tf.data took ahead of an epoch's end would be lost
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    dataset = dataset.with_options(options)
    hooks = {"on_epoch_begin": on_epoch_begin, "on_epoch_end": on_epoch_end}
    return DataAdapter(dataset, length, batch_size, **hooks, kind="PyDataset", order=order)


class Order:
    """The indices of a `PyDataset`, epoch by epoch, shuffled by Python's `random` if asked for.

    Its state holds that of the data too, if they have `get_state` and `set_state`.

    Args:
        data: a `keras.utils.PyDataset`.
        shuffle: whether to shuffle those of a data set with a length.

    Attributes:
        first: number of the batch that this epoch begins with; not 0 if it is resumed.
    """

    def __init__(self, data, shuffle):
        self._data = data
        self._shuffle = shuffle
        self._indices: Any = None
        self._resumed_at = 0
        self.first = 0

    def on_epoch_begin(self):
        """`PyDataset.on_epoch_begin`, unless the state of the data is from after it."""
        if not (self._resumed_at and hasattr(self._data, "set_state")):
            self._data.on_epoch_begin()

    def next_epoch(self):
        """The indices of the next epoch, or of what is left of one that is resumed."""
        length = self._data.num_batches
        self.first, self._resumed_at = self._resumed_at, 0
        if length is None:
            return itertools.count(self.first)
        if not self.first:
            self._indices = list(range(length))
            if self._shuffle:
                random.shuffle(self._indices)
        return self._indices[self.first :]

    def can_resume(self, steps_per_epoch):
        """Whether the order can be kept, see `data/position.py`."""
        data = self._data
        fetches_ahead = data.workers > 1 or (data.workers > 0 and data.use_multiprocessing)
        return not fetches_ahead or (data.num_batches is not None and not steps_per_epoch)

    def get_state(self, _, at):
        """The indices of the epoch that is at batch number `at`, and the state of the data."""
        own = self._data.get_state() if hasattr(self._data, "get_state") else None
        return {"indices": self._indices if at else None, "data": own}

    def set_state(self, state, _, at):
        """Go on from `get_state`."""
        if state["data"] is not None:
            self._data.set_state(state["data"])
        self._indices, self._resumed_at = state["indices"], at


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
        order: an `Order`, whose next epoch is taken at each `start`.

    Raises:
        ValueError: data without a length and a queue without a limit.
    """

    def __init__(self, data, order):
        if data.num_batches is None and data.max_queue_size < 1:
            raise ValueError(
                "`max_queue_size` must be positive for a PyDataset with workers and without a "
                f"length. Received: {data.max_queue_size}"
            )
        self._data = data
        self._order = order
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
                self._indices = iter(self._order.next_epoch())
            if data.use_multiprocessing:
                context = multiprocessing.get_context()  # on Linux a fork: it inherits the data
                workers = data.workers, context, _share, (data,)
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
        for number in itertools.count(self._order.first + 1):
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
