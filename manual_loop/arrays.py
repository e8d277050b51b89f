"""What `fit` makes of arrays in memory: a split, a permutation, batches.

The permutation is drawn by the ops that Keras uses, in their order, so that the same global seed
draws the same one (`keras/src/trainers/data_adapters/array_data_adapter.py`,
`ArrayDataAdapter.get_tf_dataset`, Keras 3.15).

Two things that surprise: the validation split is the *last* rows, before any shuffling; and under
a global seed every epoch has the *same* permutation, since each epoch's iterator starts the random
generator anew.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from manual_loop import sparse, weights
from manual_loop.streams import Source

tree = keras.tree

# Arrays up to this many bytes lie on the device for the whole of `fit`; larger ones stay in the
# host's memory and come to it batch by batch.
RESIDENT_BYTES = 2**30


def is_array(x):
    """Whether `x` is None or can be sliced along its samples: NumPy, TensorFlow, pandas, ..."""
    return x is None or hasattr(x, "__array__") or tf.is_tensor(x) or sparse.is_scipy_sparse(x)


def array_source(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight):
    """Batches of arrays in memory.

    Args:
        x, y, sample_weight: arrays `[samples, ...]`, or lists, tuples or dicts of them.
        batch_size: samples a batch; None for 32, or for what makes `steps_per_epoch` batches.
        steps_per_epoch: see `batch_size`.
        shuffle: True for a permutation of all samples, `"batch"` for one within each batch.
        class_weight: None, or dict: class number -> weight.
    """
    if class_weight is not None:
        weights.check_class_weight(y, sample_weight)
        sample_weight = weights.weigh_classes(y, class_weight)
    sample_weight = weights.one_for_each_output(y, sample_weight)
    arrays = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    samples = _count_samples(x, y, sample_weight)
    if not batch_size:  # None, and 0 as in Keras
        batch_size = math.ceil(samples / steps_per_epoch) if steps_per_epoch else 32
    if batch_size < 0:
        raise ValueError(f"`batch_size` must be positive. Received: {batch_size}")
    arrays = tree.lists_to_tuples(tree.map_structure(to_gatherable, arrays))
    steps = math.ceil(samples / batch_size)
    if sum(getattr(array, "nbytes", 0) for array in tree.flatten(arrays)) > RESIDENT_BYTES:
        dataset = stream_arrays(arrays, samples, batch_size, shuffle)
        return Source(lambda: iter(dataset), steps)
    arrays = tree.map_structure(
        lambda array: tf.convert_to_tensor(array) if hasattr(array, "__array__") else array, arrays
    )
    return Source(lambda: Walk(arrays, draw_order(samples, batch_size, shuffle), batch_size), steps)


class Walk:
    """One epoch through arrays on the device: the order of the samples, and how far we are.

    Attributes:
        arrays: tensors `[samples, ...]`, or a tuple or dict of them.
        full: int64 `[full batches, batch_size]`: the samples of each batch.
        rest: int64 `[samples % batch_size]`: those of the partial batch; None if there is none.
    """

    def __init__(self, arrays, order, batch_size):
        whole = len(order) // batch_size * batch_size
        self.arrays = arrays
        self.full = tf.reshape(order[:whole], [-1, batch_size])
        self.rest = order[whole:] if whole < len(order) else None
        self.steps = len(self.full) + (self.rest is not None)
        # with a partial batch no batch has a static size: fit's pipeline has one shape for all
        size = batch_size if self.rest is None else None
        specs = tree.map_structure(_open_samples, arrays)
        order = tf.TensorSpec([None, size], tf.int64)
        rest = None if self.rest is None else tf.TensorSpec([None], tf.int64)
        number = tf.TensorSpec([], tf.int32)
        self.batch_signature = Signature((specs, tf.TensorSpec([size], tf.int64)))
        self.block_signature = Signature((specs, order, rest, number, number))
        self._position = 0
        self._each = None

    def __iter__(self):
        return self

    def __next__(self):
        """The next batch."""
        first, _ = self.next_block(1)
        return gather(self.arrays, self.indices(first))

    def indices(self, number):
        """The samples of one batch, int64 `[batch_size]` or fewer."""
        if self._each is None:
            rest = [] if self.rest is None else [self.rest]
            self._each = tf.unstack(self.full) + rest if len(self.full) else rest
        return self._each[number]

    def next_block(self, count):
        """The numbers of the next batch and of the one behind the block of `count` batches.

        Raises:
            StopIteration: the epoch has ended.
        """
        first = self._position
        if first >= self.steps:
            raise StopIteration
        self._position = min(first + count, self.steps)
        return first, self._position


class Signature:
    """The `tf.TypeSpec`s of a call, to look up the graph that was traced for them."""

    def __init__(self, specs):
        self.specs = specs
        self._key = repr(specs)
        self._hash = hash(self._key)

    def __eq__(self, other):
        return self._key == other._key

    def __hash__(self):
        return self._hash


def _open_samples(array):
    spec = None if array is None else tf.type_spec_from_value(array)
    if isinstance(spec, tf.TensorSpec):
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    return spec


def gather(arrays, indices):
    """The samples `indices` of each array."""
    return tree.traverse(functools.partial(_rows, indices=indices), arrays)


def _rows(array, indices):
    """The samples `indices` of one array. None makes `tree.traverse` go into a structure."""
    if isinstance(array, sparse.SparseRows):
        return sparse.gather_rows(array, indices)
    return tf.gather(array, indices, axis=0) if tf.is_tensor(array) else None


def to_gatherable(x):
    """`to_array`, and sparse tensors as rows."""
    x = to_array(x)
    return sparse.to_rows(x) if isinstance(x, tf.SparseTensor) else x


def draw_order(samples, batch_size, shuffle):
    """The order of the samples in one epoch, int64 `[samples]`, drawn as fit draws it."""
    if shuffle == "batch":
        return tf.concat(list(index_batches(samples, batch_size, shuffle)), 0)
    return _permutations(samples, shuffle).get_single_element()


def index_batches(samples, batch_size, shuffle):
    """A `tf.data.Dataset` of the numbers of the samples of each batch, the partial one last."""
    whole = samples // batch_size * batch_size

    def slices(order):
        full = tf.reshape(order[:whole], [whole // batch_size, batch_size])
        batches = tf.data.Dataset.from_tensor_slices(full)
        if whole < samples:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(order[whole:]))
        return batches

    indices = _permutations(samples, shuffle).prefetch(1).flat_map(slices)
    return indices.map(tf.random.shuffle) if shuffle == "batch" else indices


def _permutations(samples, shuffle):
    def permutation(_):
        order = tf.range(samples, dtype=tf.int64)
        return tf.random.shuffle(order) if shuffle and shuffle != "batch" else order

    return tf.data.Dataset.range(1).map(permutation)


def stream_arrays(arrays, samples, batch_size, shuffle):
    """A `tf.data.Dataset` that is one epoch of batches, gathered on the host, a few ahead."""
    data = tf.data.Dataset.from_tensors(arrays).repeat()
    indices = index_batches(samples, batch_size, shuffle)
    dataset = tf.data.Dataset.zip((indices, data)).map(
        lambda indices, arrays: gather(arrays, indices), tf.data.AUTOTUNE
    )
    # rewriting the graph of so short a pipeline costs more than it saves
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def split(x, y, sample_weight, fraction):
    """The first rows to train on, the last rows to validate on (`train_validation_split`).

    Args:
        fraction: `validation_split`: the part of the samples to validate on, in [0, 1).

    Returns:
        `(x, y, sample_weight), (x, y, sample_weight)`, the second for validation.
    """
    arrays = x, y, sample_weight
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: {fraction}")
    if not all(map(is_array, tree.flatten(arrays))):
        raise ValueError(
            "`validation_split` is only supported for arrays in memory, not for data that come in "
            f"batches. Received: x of type {type(x).__name__}"
        )
    samples = next(len_(array) for array in tree.flatten(arrays) if array is not None)
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        raise ValueError(
            f"{samples} samples are too few for validation_split={fraction}: one of the two parts "
            "would be empty. Provide more data or another `validation_split`."
        )
    arrays = tree.map_structure(to_array, arrays)

    def part(start, stop):
        return tree.map_structure(lambda array: slice_rows(array, start, stop), arrays)

    return part(0, at), part(at, samples)


def slice_rows(array, start, stop):
    """Samples `start` to `stop` of an array as `to_array` gives it."""
    if isinstance(array, tf.SparseTensor):
        return sparse.gather_rows(sparse.to_rows(array), tf.range(start, stop))
    return None if array is None else array[start:stop]


def to_array(x):
    """`x` as something that `tf.gather` takes: floats as floatx, everything else as it is.

    A pandas Series becomes a column (`array_slicing.convert_to_sliceable`).
    """
    if sparse.is_scipy_sparse(x):
        x = sparse.to_sparse_tensor(x)
    if x is None or tf.is_tensor(x):
        if x is not None and x.dtype.is_floating and x.dtype != keras.config.floatx():
            x = tf.cast(x, keras.config.floatx())
        return x
    column = type(x).__name__ == "Series"
    x = np.asarray(x)
    if x.dtype == object and all(isinstance(element, str) for element in x):
        return tf.convert_to_tensor(x, dtype=tf.string)
    if tf.as_dtype(x.dtype).is_floating and x.dtype != keras.config.floatx():
        x = x.astype(keras.config.floatx())
    return np.expand_dims(x, -1) if column else x


def len_(array):
    """Samples in an array, tensor or data frame."""
    return int(array.shape[0])


def _count_samples(x, y, sample_weight):
    sizes = {
        name: [len_(array) for array in tree.flatten(arrays) if array is not None]
        for name, arrays in (("x", x), ("y", y), ("sample_weight", sample_weight))
    }
    distinct = {size for group in sizes.values() for size in group}
    if len(distinct) != 1:
        counts = ", ".join(f"{name}: {group}" for name, group in sizes.items() if group)
        raise ValueError(
            f"All arrays must contain the same number of samples. Received {counts or 'no data'}."
        )
    return distinct.pop()
