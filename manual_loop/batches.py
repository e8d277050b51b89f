"""What `fit` makes of `x` and `y`: a split, a permutation, batches, epochs.

Whatever the data, they become a `tf.data.Dataset` of batches, and an epoch is a walk over it. For
arrays in memory that dataset is built from the ops that Keras uses, in their order: the same global
seed then draws the same permutation (`keras/src/trainers/data_adapters/array_data_adapter.py`,
`ArrayDataAdapter.get_tf_dataset`; `keras/src/trainers/epoch_iterator.py`, Keras 3.15).

Two things that surprise: the validation split is the *last* rows, before any shuffling; and under
a global seed every epoch has the *same* permutation, since each epoch's iterator starts the random
generator anew.
"""

import functools
import itertools
import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from manual_loop import sparse, weights
from manual_loop.streams import Source, stream_source

tree = keras.tree

# Arrays up to this size live on the device for the whole of `fit`; larger ones stay in the host's
# memory and come to it batch by batch.
RESIDENT_BYTES = 2**30


class Epochs:
    """The data of one `fit`, `evaluate` or `predict`, as epochs of batches.

    Iterating over an `Epochs` walks through one epoch and yields `(first step, last step,
    iterator)` for each call of the train function, which takes its batches from the iterator.

    Args:
        x, y, sample_weight, batch_size, shuffle, class_weight: as in `keras.Model.fit`.
        steps_per_epoch: batches an epoch; None for as many as there are. If given, an epoch goes on
            where the last one stopped.
        steps_per_execution: batches a call.

    Raises:
        ValueError: data of unknown kind, of different lengths, or arguments that exclude each
            other.
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
    ):
        limit = keras.config.max_steps_per_epoch()
        if limit and (not steps_per_epoch or limit < steps_per_epoch):
            warnings.warn(f"Limiting steps_per_epoch to {limit}", stacklevel=3)
            steps_per_epoch = limit
        self._steps_per_epoch = steps_per_epoch
        self._steps_per_execution = steps_per_execution
        self._source = make_source(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
        )
        self._steps = self._source.steps
        self._iterator = None
        self._steps_seen = 0

    @property
    def steps(self):
        """Batches an epoch, or None as long as it is not known."""
        return self._steps_per_epoch or self._steps

    def reset(self):
        """Forget how far the last walk came."""
        self._iterator = None
        self._steps = self._source.steps
        self._steps_seen = 0
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
            iterator = self._source.walk()
            step = 0
            while True:  # until the iterator ends: see __exit__
                self._steps_seen = step + block
                yield step, step + block - 1, iterator
                step += block
        self._source.on_epoch_end()

    def _renew_iterator(self):
        self._iterator = self._source.walk()
        self._steps_seen = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        """The data ended inside the block: keep what is known now, say so, and go on."""
        if kind is None or not issubclass(kind, (StopIteration, tf.errors.OutOfRangeError)):
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


def make_source(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight):
    """The `Source` for this kind of data (`data_adapters/__init__.py`, `get_data_adapter`)."""
    if all(map(is_array, tree.flatten((x, y, sample_weight)))):
        return array_source(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight)
    return stream_source(x, y, sample_weight, shuffle, class_weight)


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
    if _bytes(arrays) > RESIDENT_BYTES:
        dataset = stream_arrays(arrays, samples, batch_size, shuffle)
        return Source(lambda: iter(dataset), steps)
    arrays = tree.map_structure(_on_device, arrays)
    return Source(lambda: Walk(arrays, draw_order(samples, batch_size, shuffle), batch_size), steps)


class Walk:
    """One epoch through arrays that lie on the device: the order of the samples, and how far we are.

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
        return gather(self.arrays, self.next_indices())

    def next_indices(self):
        """The samples of the next batch, int64 `[batch_size]` or fewer."""
        if self._each is None:
            rest = [] if self.rest is None else [self.rest]
            self._each = tf.unstack(self.full) + rest if len(self.full) else rest
        first, _ = self.next_block(1)
        return self._each[first]

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


def _rows(array, indices):
    """For `tree.traverse`: the samples `indices` of one array; None goes into a structure."""
    if isinstance(array, sparse.SparseRows):
        return sparse.gather_rows(array, indices)
    return tf.gather(array, indices, axis=0) if tf.is_tensor(array) else None


def to_gatherable(x):
    """`to_array`, and sparse tensors as rows."""
    x = to_array(x)
    return sparse.to_rows(x) if isinstance(x, tf.SparseTensor) else x


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


def _on_device(array):
    return (
        array if array is None or not hasattr(array, "__array__") else tf.convert_to_tensor(array)
    )


def _bytes(arrays):
    return sum(getattr(array, "nbytes", 0) for array in tree.flatten(arrays))
