"""Epochs of batches: how many there are, where an epoch goes on, and what happens at the end.

(`keras/src/trainers/epoch_iterator.py`, `EpochIterator`, Keras 3.15. What becomes of the arrays
themselves is in `arrays.py`; of data that come in batches already, in `streams.py`.)
"""

import itertools
import warnings

import keras
import tensorflow as tf

from manual_loop.data.arrays import array_source, is_array
from manual_loop.data.streams import stream_source
from manual_loop.distribution import multi_worker as workers
from manual_loop.distribution.replicas import spread


class Epochs:
    """The data of one `fit`, `evaluate` or `predict`, as epochs of batches.

    Iterating over an `Epochs` walks through one epoch and yields `(first step, last step,
    iterator)` for each call of the train function, which takes its batches from the iterator.

    Args:
        x, y, sample_weight, batch_size, shuffle, class_weight: as in `keras.Model.fit`.
        steps_per_epoch: batches an epoch; None for as many as there are. If given, an epoch goes on
            where the last one stopped.
        steps_per_execution: batches a call.
        strategy: a `tf.distribute.Strategy`, for batches in parts; None for whole ones.

    Raises:
        ValueError: data of unknown kind, of different lengths, or arguments that exclude each
            other; batches too small for the strategy's replicas.
    """

    def __init__(
        self,
        x,
        y=None,
        sample_weight=None,
        batch_size=None,
        steps_per_epoch=None,
        shuffle=False,
        class_weight=None,
        steps_per_execution=1,
        strategy=None,
    ):
        limit = keras.config.max_steps_per_epoch()
        if limit and (not steps_per_epoch or limit < steps_per_epoch):
            warnings.warn(f"Limiting steps_per_epoch to {limit}", stacklevel=3)
            steps_per_epoch = limit
        self._steps_per_epoch = steps_per_epoch
        self._steps_per_execution = steps_per_execution
        self._source = make_source(
            x,
            y,
            sample_weight,
            batch_size,
            steps_per_epoch,
            shuffle,
            class_weight,
            resident=strategy is None,
        )
        self._batches = self._source.batches
        self._strategy = strategy
        if strategy is not None:
            self._batches = spread(strategy, self._batches, self._source.batch_size)
        # fit builds the model from a first batch then; where data are shuffled anew for every
        # epoch, that begins one that counts. A generator would lose what is taken from it.
        self._begins_twice = strategy is not None and self._source.restarts
        self._steps = self._source.steps
        self._iterator = None
        self._steps_seen = 0

    @property
    def source(self):
        """The batches as they came, whole."""
        return self._source.batches

    @property
    def steps(self):
        """Batches an epoch, or None as long as it is not known."""
        return self._steps_per_epoch or self._steps

    def reset(self):
        """Forget how far the last walk came."""
        if self._begins_twice:
            for _, _, iterator in self:
                next(iterator)
                break
        self._iterator = None
        self._steps = self._source.steps
        self._source.on_epoch_end()

    def __iter__(self):
        self._source.on_epoch_begin()
        block = self._steps_per_execution
        steps = self.steps
        if steps:
            if self._iterator is None or self._steps_per_epoch is None:
                self._renew_iterator()
            for step in range(0, steps, block):
                if self._steps and self._steps_seen >= self._steps:
                    if self._steps_per_epoch:
                        _warn_out_of_data()
                    break
                self._steps_seen += block
                yield step, step + block - 1, self._iterator
            if self._steps and self._steps_seen >= self._steps:
                self._renew_iterator()
        else:
            iterator = iter(self._batches)
            step = 0
            while True:  # until the iterator ends: see __exit__
                self._steps_seen = step + block
                yield step, step + block - 1, iterator
                step += block
        self._source.on_epoch_end()

    def _renew_iterator(self):
        self._iterator = iter(self._batches)
        self._steps_seen = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        """The data ended inside the block: keep what is known now, say so, and go on."""
        if kind is None or not issubclass(kind, (StopIteration, tf.errors.OutOfRangeError)):
            workers.raise_if_lost(self._strategy, error)
            return False
        if self._steps is None:
            self._steps = self._steps_seen
        _warn_out_of_data()
        self._iterator = None
        self._source.on_epoch_end()
        return True


def _warn_out_of_data():
    warnings.warn(
        "Your input ran out of data; interrupting training. Make sure that your dataset or "
        "generator can generate at least `steps_per_epoch * epochs` batches. You may need to use "
        "the `.repeat()` function when building your dataset.",
        stacklevel=3,
    )


def take(iterator, count):
    """A list of the next `count` batches, or of those that are left.

    Raises:
        StopIteration: there is none.
    """
    batches = [next(iterator)]
    for batch in itertools.islice(iterator, count - 1):
        batches.append(batch)
    return batches


def make_source(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident):
    """The `Source` for this kind of data (`data_adapters/__init__.py`, `get_data_adapter`)."""
    if all(map(is_array, keras.tree.flatten((x, y, sample_weight)))):
        return array_source(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident
        )
    return stream_source(x, y, sample_weight, shuffle, class_weight)
