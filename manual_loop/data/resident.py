"""Arrays that stay on the device for the whole of `fit`, and the order that an epoch takes them in.

`fit` feeds its graph from a `tf.data` iterator, which costs more than the arithmetic of a small
step. Here the step's graph gathers its batch itself: from the arrays, from the epoch's permutation
of the samples, and from the position in it (`execution/bound_step.py`).

On a GPU all of these are in its memory, and no step copies anything to or from the host. TensorFlow
takes slice bounds, shapes and conditions from the host, and runs all int32 arithmetic there, while
int64 and `tf.gather` run on the GPU. So *which* samples is int64 and gathered, never sliced; *how
many* is int32. (`tests/support/placement.py` looks up the kernels that TensorFlow has registered.)
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data import sparse

tree = keras.tree

# dtypes that `tf.gather` has no GPU kernel for, or that TensorFlow keeps in host memory (int32:
# `MTypeFromDType` in tensorflow/core/framework/memory_types.cc), and a wider dtype that holds
# their values exactly.
WIDENED = {
    tf.int8: tf.float16,
    tf.uint8: tf.float16,
    tf.int16: tf.float32,
    tf.uint16: tf.float32,
    tf.int32: tf.int64,
    tf.uint32: tf.int64,
    tf.uint64: tf.int64,
}


def permutation(samples, shuffle):
    """The order in which an epoch takes the samples: int64 `[samples]`.

    The op is the one that fit draws with, in a graph of its own, so that the same global seed gives
    the same order (`array_data_adapter.py`, `ArrayDataAdapter.get_tf_dataset`, Keras 3.15).

    Args:
        samples: how many.
        shuffle: whether at random. `"batch"` is not random here: it shuffles within each batch.
    """
    order = tf.range(samples, dtype=tf.int64)
    return tf.random.shuffle(order) if shuffle and shuffle != "batch" else order


class ResidentDataset:
    """Epochs of batches, gathered from arrays on the device.

    Args:
        arrays: NumPy arrays, tensors or `sparse.SparseRows` `[samples, ...]`, or a structure of
            them.
        samples: how many.
        batch_size: samples in each batch but the last.
        shuffle: True for a permutation of all samples, `"batch"` for one within each batch.

    Attributes:
        arrays: tensors, or a structure of them; on a GPU some are `WidenedTensor`s.
        full_batches, num_batches: batches without the partial last one, and with it.
        rest: samples in the partial batch, 0 if there is none.
        specs: `tf.TypeSpec`s of the arrays, of the indices of full batches `[batches, batch_size]`
            and of the partial batch `[samples]`, None if there is none.
        signature: text of `specs`, equal for datasets that one traced graph can serve.
    """

    def __init__(self, arrays, samples, batch_size, shuffle):
        self.arrays = tree.map_structure(
            lambda array: tf.convert_to_tensor(array) if hasattr(array, "__array__") else array,
            arrays,
        )
        if on_gpu():
            self.arrays = tree.traverse(widen, self.arrays)
        self.batch_size = batch_size
        self._shuffle = shuffle
        self._samples = samples
        self._permutation = functools.partial(permutation, samples, shuffle)
        self._draws_anew = False
        if shuffle:  # otherwise nothing is drawn, and a graph is not worth its time
            draw = tf.function(self._permutation, autograph=False)
            self._permutation = draw.get_concrete_function()
            self._draws_anew = self._permutation.graph.seed is None
        self._within_batches = tf.function(tf.random.shuffle, autograph=False)
        self._drawn = None

        self.full_batches, self.rest = divmod(samples, batch_size)
        self.num_batches = self.full_batches + (self.rest > 0)
        # with a partial batch no batch size is static: fit's pipeline has one shape for all batches
        size = None if self.rest else batch_size
        full = tf.TensorSpec([None, size], tf.int64)
        partial = tf.TensorSpec([None], tf.int64) if self.rest else None
        self.specs = tree.map_structure(_open_samples, self.arrays), full, partial
        self.signature = repr(self.specs)

    def __iter__(self):
        return ArrayIterator(self)

    def epoch_indices(self):
        """The samples of each batch of the next epoch, drawn as fit draws them.

        Under a global seed all epochs have the same order: fit starts its pipeline anew for each
        epoch, and with it the pipeline's random generator.

        Returns:
            int64 `[full batches, batch_size]`, and int64 `[rest]` or None for the partial batch.
        """
        if self._drawn is None or self._draws_anew:
            self._drawn = self._draw()
        return self._drawn

    def _draw(self):
        order, size = self._permutation(), self.batch_size
        if self._shuffle == "batch":
            starts = range(0, self._samples, size)
            shuffled = self._within_batches.get_concrete_function(tf.TensorSpec([None], tf.int64))
            order = tf.concat([shuffled(order[at : at + size]) for at in starts], 0)
        return self._divide(order)

    def _divide(self, order):
        """An order of the samples as `epoch_indices` returns it."""
        whole = self.full_batches * self.batch_size
        partial = order[whole:] if whole < self._samples else None
        return tf.reshape(order[:whole], [-1, self.batch_size]), partial

    def can_resume(self, steps_per_epoch):
        """Whether the order can be kept, see `data/position.py`."""
        return True

    def get_state(self, iterator, at):
        """The order of an `ArrayIterator` that is at batch number `at`, or of the next: array
        `[samples]`; None if it is not drawn yet, or not at random.
        """
        drawn = iterator.indices if at else self._drawn
        if drawn is None or not self._shuffle:
            return None
        order = np.concatenate([part.numpy().ravel() for part in drawn if part is not None])
        return order.astype("int32") if self._samples < 2**31 else order

    def set_state(self, state, iterator, at):
        """Bring a new iterator to the place of `get_state`, with the same order.

        Raises:
            ValueError: the order is of another number of samples.
        """
        if state is not None:
            if len(state) != self._samples:
                raise ValueError(
                    f"is of a training on {len(state)} samples, and these are {self._samples}"
                )
            self._drawn = self._divide(tf.constant(state, tf.int64))
            iterator.indices = self._drawn
        iterator.position = at


class ArrayIterator:
    """The batches of one epoch of a `ResidentDataset`, and the position among them.

    Attributes:
        dataset: as given.
        position: the number of the next batch.
        chosen_steps: how many steps the next call runs, if the loop has chosen; None for the number
            that its function was traced with.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.position = 0
        self.chosen_steps = None

    @functools.cached_property
    def indices(self):
        """`ResidentDataset.epoch_indices` of this epoch."""
        return self.dataset.epoch_indices()

    def __iter__(self):
        return self

    def __next__(self):
        """The next batch."""
        (at,) = self.advance(1)
        full, partial = self.indices
        indices = full[at] if at < self.dataset.full_batches else partial
        return gather(self.dataset.arrays, indices)

    def advance(self, count):
        """Move on by `count` batches, or to the end of the epoch; returns their numbers, a range.

        Raises:
            StopIteration: the epoch has ended.
        """
        first = self.position
        if first >= self.dataset.num_batches:
            raise StopIteration
        self.position = min(first + count, self.dataset.num_batches)
        return range(first, self.position)


class WidenedTensor(tf.experimental.ExtensionType):
    """An array, or a batch of it, in a dtype that a GPU can gather.

    Attributes:
        values: `[samples, ...]`, in the dtype that `WIDENED` gives.
        dtype: the array's own.
    """

    values: tf.Tensor
    dtype: tf.DType


def on_gpu():
    """Whether TensorFlow trains on one."""
    return bool(tf.config.list_logical_devices("GPU"))


def widen(array):
    """A tensor as a GPU can gather it. None makes `tree.traverse` descend into a structure."""
    if isinstance(array, tf.Tensor) and array.dtype in WIDENED:
        return WidenedTensor(tf.cast(array, WIDENED[array.dtype]), array.dtype)
    return array if tf.is_tensor(array) or isinstance(array, sparse.SparseRows) else None


def narrow(array):
    """The tensor that `widen` was given; everything else as it is."""
    return tf.cast(array.values, array.dtype) if isinstance(array, WidenedTensor) else array


def _open_samples(array):
    if isinstance(array, WidenedTensor):
        return WidenedTensor.Spec(_open_samples(array.values), array.dtype)
    spec = None if array is None else tf.type_spec_from_value(array)
    if isinstance(spec, tf.TensorSpec):
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    return spec


def gather(arrays, indices):
    """The samples `indices` of each array."""
    return tree.traverse(functools.partial(_rows, indices=indices), arrays)


def _rows(array, indices):
    """The samples `indices` of one array. None makes `tree.traverse` descend into a structure."""
    if isinstance(array, sparse.SparseRows):
        return sparse.gather_rows(array, indices)
    if isinstance(array, WidenedTensor):  # the step narrows it
        return WidenedTensor(tf.gather(array.values, indices, axis=0), array.dtype)
    return tf.gather(array, indices, axis=0) if tf.is_tensor(array) else None
