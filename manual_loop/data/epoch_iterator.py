"""`EpochIterator`: the steps of one epoch after another (`keras/src/trainers/epoch_iterator.py`,
class of the same name, Keras 3.15).
"""

import contextlib
import itertools
import warnings

import keras
import tensorflow as tf

from manual_loop.data import position
from manual_loop.data.arrays import array_adapter, is_array
from manual_loop.data.streams import stream_adapter


class EpochIterator:
    """The data of one `fit`, `evaluate` or `predict`, epoch by epoch.

    Iterating gives one epoch: `(first step, last step, iterator)` for each call of the train
    function, which takes its batches from the iterator.

    Args:
        x, y, sample_weight, batch_size, shuffle, class_weight: as in `keras.Model.fit`.
        steps_per_epoch: batches in an epoch; None for all there are. If given, each epoch
            continues where the last one stopped.
        steps_per_execution: batches in one call.
        distribution: how batches reach the devices, see `distribution/single_device.py`.

    Raises:
        ValueError: data of unknown kind, of different lengths, arguments that exclude each other,
            or batches too small for the devices.
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
        *,
        steps_per_execution,
        distribution,
    ):
        limit = keras.config.max_steps_per_epoch()
        if limit and (not steps_per_epoch or limit < steps_per_epoch):
            # past the trainer, to its caller
            warnings.warn(f"Limiting steps_per_epoch to {limit}", stacklevel=5)
            steps_per_epoch = limit
        self._steps_per_epoch = steps_per_epoch
        self._steps_per_execution = steps_per_execution
        self._distribution = distribution
        self._adapter = get_data_adapter(
            x,
            y,
            sample_weight,
            batch_size,
            steps_per_epoch,
            shuffle,
            class_weight,
            resident=distribution.keeps_arrays_on_device,
        )
        self._batches = distribution.distribute(self._adapter.dataset, self._adapter.batch_size)
        # Under a strategy, fit builds the model from a first batch, and with data that restart, the
        # epoch that it took that batch from has begun.
        self._begins_twice = distribution.takes_a_first_batch and self._adapter.restarts
        self._num_batches = self._adapter.num_batches
        self._iterator = None
        self._iterators = 0  # made so far
        self._steps_seen = 0
        self._first_step = 0  # of the next epoch, where one is resumed

    @property
    def dataset(self):
        """The batches, before they are distributed to devices."""
        return self._adapter.dataset

    @property
    def element_spec(self):
        """A batch as `tf.TypeSpec`s."""
        dataset = self.dataset
        return dataset.element_spec if hasattr(dataset, "element_spec") else dataset.specs[0]

    @property
    def num_batches(self):
        """Batches in an epoch, or None as long as it is not known."""
        return self._steps_per_epoch or self._num_batches

    def reset(self):
        """Start from the first batch again."""
        if self._begins_twice:
            for _, _, iterator in self:
                next(iterator)
                break
        self._iterator = None
        self._num_batches = self._adapter.num_batches
        self._adapter.on_epoch_end()

    def __iter__(self):
        return self.calls(lambda *_: self._steps_per_execution)

    def calls(self, choose_steps):
        """One epoch, with as many batches in each call as a function chooses.

        Not in the first call: after one step the progress bar is drawn, and the epoch ends if a
        callback has set `stop_training` before it.

        Args:
            choose_steps: `(iterator, left) -> int`: how many, of those left in the epoch.
        """
        self._adapter.on_epoch_begin()
        size = self._steps_per_execution
        first, self._first_step = self._first_step, 0
        if not first and (self._iterator is None or self._steps_per_epoch is None):
            self._renew_iterator()
        if self.num_batches:
            step = first
            starts = range(0, self.num_batches, size)  # of calls, as in fit: none if size < 0
            while starts and step < self.num_batches:
                if self._num_batches and self._steps_seen >= self._num_batches:
                    if self._steps_per_epoch:
                        _warn_out_of_data(stacklevel=3)
                    break
                if step:
                    size = choose_steps(self._iterator, self.num_batches - step)
                self._steps_seen += size
                yield step, step + size - 1, self._iterator
                step += size
            if self._num_batches and self._steps_seen >= self._num_batches:
                self._renew_iterator()
        else:
            for step in itertools.count(first, size):  # until the iterator ends
                self._steps_seen = step + size
                yield step, step + size - 1, self._iterator
        self._adapter.on_epoch_end()

    def _renew_iterator(self):
        self._iterator = iter(self._batches)
        self._iterators += 1
        self._steps_seen = 0

    def check_resumable(self, generator):
        """See `position.check`."""
        position.check(self._adapter, self._steps_per_epoch, generator)

    def get_state(self, step):
        """Where the data stand, as plain values and arrays.

        Args:
            step: batches taken from the epoch; 0 between epochs.
        """
        at = 0 if self._iterator is None else self._steps_seen
        order = self._adapter.order
        return {
            "step": step,
            "at": at,
            "num_batches": self._num_batches,
            "iterators": self._iterators,
            "order": None if order is None else order.get_state(self._iterator, at),
            "iterator": position.get_iterator(self._adapter, self._iterator),
        }

    def set_state(self, state, generator=None):
        """Go on from where `get_state` was called.

        Args:
            state: what it returned.
            generator: see `Backup`.

        Returns:
            In words: how the place was found again.
        """
        self._num_batches, self._first_step = state["num_batches"], state["step"]
        way = position.way_of(self._adapter, state, generator)
        self._renew_iterator()
        # each new iterator may draw another order than the one before
        while self._iterators < position.iterators_before(state, way):
            self._renew_iterator()
        self._iterators, self._steps_seen = state["iterators"], state["at"]
        if self._adapter.order is not None:
            self._adapter.order.set_state(state["order"], self._iterator, state["at"])
        position.set_iterator(self._iterator, state, way)
        return way

    @contextlib.contextmanager
    def catch_stop_iteration(self):
        """Around an epoch: if the data end in it, warn, remember their length and go on."""
        try:
            with self._distribution.errors_of_lost_workers():
                yield
        except (StopIteration, tf.errors.OutOfRangeError):
            if self._num_batches is None:
                self._num_batches = self._steps_seen
            _warn_out_of_data(stacklevel=4)  # past contextlib, to the epoch loop
            self._iterator = None
            self._adapter.on_epoch_end()


def _warn_out_of_data(stacklevel):
    warnings.warn(
        "Your input ran out of data; interrupting training. Make sure that your dataset or "
        "generator can generate at least `steps_per_epoch * epochs` batches. You may need to use "
        "the `.repeat()` function when building your dataset.",
        stacklevel=stacklevel,
    )


def get_data_adapter(
    x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident
):
    """The `DataAdapter` for this kind of data (`data_adapters/__init__.py`, `get_data_adapter`)."""
    if all(map(is_array, keras.tree.flatten((x, y, sample_weight)))):
        return array_adapter(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident
        )
    return stream_adapter(x, y, sample_weight, shuffle, class_weight)
