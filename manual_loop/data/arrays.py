"""What `fit` makes of arrays in memory: a split, a permutation, batches.

The permutation is drawn by the op that Keras uses, in a graph of its own, so that the same global
seed draws the same one (`keras/src/trainers/data_adapters/array_data_adapter.py`,
`ArrayDataAdapter.get_tf_dataset`, Keras 3.15).

Two things that surprise: the validation split is the *last* rows, before any shuffling; and under
a global seed every epoch of a fit has the *same* permutation.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data import kinds, sparse
from manual_loop.data import sample_weights as weights
from manual_loop.data.streams import Source

tree = keras.tree

# What `tf.gather` has no kernel for on a GPU, or what TensorFlow keeps in the host's memory (int32,
# `MTypeFromDType` in tensorflow/core/framework/memory_types.cc), and what holds it there exactly.
CARRIERS = {
    tf.int8: tf.float16,
    tf.uint8: tf.float16,
    tf.int16: tf.float32,
    tf.uint16: tf.float32,
    tf.int32: tf.int64,
    tf.uint32: tf.int64,
    tf.uint64: tf.int64,
}

# Arrays up to this many bytes lie on the device for the whole of `fit`; larger ones stay in the
# host's memory and come to it batch by batch.
RESIDENT_BYTES = 2**30


def is_array(x):
    """Whether `x` is None or an array of any library (`array_slicing.py`, `can_slice_array`)."""
    return (
        x is None
        or hasattr(x, "__array__")
        or isinstance(x, (tf.RaggedTensor, tf.SparseTensor))
        or kinds.is_scipy_sparse(x)
        or kinds.is_jax_sparse(x)
    )


def array_source(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident):
    """Batches of arrays in memory.

    Args:
        x, y, sample_weight: arrays `[samples, ...]`, or lists, tuples or dicts of them.
        batch_size: samples a batch; None for 32, or for what makes `steps_per_epoch` batches.
        steps_per_epoch: see `batch_size`.
        shuffle: True for a permutation of all samples, `"batch"` for one within each batch.
        class_weight: None, or dict: class number -> weight.
        resident: whether they may lie on the device, if they are not too large.
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
    bytes_ = sum(getattr(array, "nbytes", 0) for array in tree.flatten(arrays))
    walked = Resident if resident and bytes_ <= RESIDENT_BYTES else stream_arrays
    return Source(walked(arrays, samples, batch_size, shuffle), steps, batch_size)


class Resident:
    """Arrays on the device, and how one epoch after the other leads through them.

    Attributes:
        arrays: tensors `[samples, ...]`, or a tuple or dict of them; on a GPU some are `Carried`.
        batch_size: int.
        signature: of `arrays`, of full batches and of the partial one.
    """

    def __init__(self, arrays, samples, batch_size, shuffle):
        self.arrays = tree.map_structure(
            lambda array: tf.convert_to_tensor(array) if hasattr(array, "__array__") else array,
            arrays,
        )
        if on_gpu():
            self.arrays = tree.traverse(carry, self.arrays)
        self.batch_size = batch_size
        self._samples, self._shuffle = samples, shuffle
        self._drawn = None
        self._shuffled = tf.function(tf.random.shuffle, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.int64)
        )
        # with a partial batch no batch has a static size: fit's pipeline has one shape for all
        partial = samples % batch_size > 0
        size = None if partial else batch_size
        specs = tree.map_structure(_open_samples, self.arrays)
        full = tf.TensorSpec([None, size], tf.int64)
        rest = tf.TensorSpec([None], tf.int64) if partial else None
        self.signature = Signature((specs, full, rest))

    def __iter__(self):
        return Walk(self)

    def order(self):
        """The `Order` of the next epoch, drawn as fit draws it.

        Under a global seed that is the same order every time: fit's pipeline is started anew for
        each epoch, and its random generator with it. Without one, every epoch has another.
        """
        if self._drawn is None or self._shuffled.graph.seed is None:
            self._drawn = Order(self._draw(), self.batch_size)
        return self._drawn

    def _draw(self):
        order, size = tf.range(self._samples, dtype=tf.int64), self.batch_size
        if self._shuffle == "batch":
            starts = range(0, self._samples, size)
            return tf.concat([self._shuffled(order[at : at + size]) for at in starts], 0)
        return self._shuffled(order) if self._shuffle else order


class Order:
    """The order in which one epoch takes the samples.

    Attributes:
        full: int64 `[full batches, batch_size]`: the samples of each batch.
        rest: int64 `[samples % batch_size]`: those of the partial batch; None if there is none.
        full_batches, steps: how many there are, without the partial one and with it.
    """

    def __init__(self, samples, batch_size):
        whole = len(samples) // batch_size * batch_size
        self.full = tf.reshape(samples[:whole], [-1, batch_size])
        self.rest = samples[whole:] if whole < len(samples) else None
        self.full_batches = whole // batch_size
        self.steps = self.full_batches + (self.rest is not None)


class Walk:
    """One epoch through arrays on the device: an iterator that knows how far it is.

    Attributes:
        data: the `Resident` arrays.
        position: the number of the next batch.
    """

    def __init__(self, data):
        self.data = data
        self.position = 0

    @functools.cached_property
    def order(self):
        """The `Order` of this epoch."""
        return self.data.order()

    def laid_out(self):
        """What a desk needs to go on: arrays, full batches, the partial one."""
        return self.data.arrays, self.order.full, self.order.rest

    def __iter__(self):
        return self

    def __next__(self):
        """The next batch."""
        (at,) = self.advance(1)
        order = self.order
        return gather(self.data.arrays, order.full[at] if at < order.full_batches else order.rest)

    def advance(self, count):
        """Go on by `count` batches, or to the end of the epoch; returns their numbers, a range.

        Raises:
            StopIteration: the epoch has ended.
        """
        first = self.position
        if first >= self.order.steps:
            raise StopIteration
        self.position = min(first + count, self.order.steps)
        return range(first, self.position)


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


class Carried(tf.experimental.ExtensionType):
    """An array, or a batch of it, as it lies on a GPU.

    Attributes:
        values: `[samples, ...]` in the dtype that `CARRIERS` names.
        dtype: the array's own.
    """

    values: tf.Tensor
    dtype: tf.DType


def on_gpu():
    """Whether TensorFlow trains on one."""
    return bool(tf.config.list_logical_devices("GPU"))


def carry(array):
    """A tensor as it lies on a GPU. None makes `tree.traverse` go into a structure."""
    if isinstance(array, tf.Tensor) and array.dtype in CARRIERS:
        return Carried(tf.cast(array, CARRIERS[array.dtype]), array.dtype)
    return array if tf.is_tensor(array) or isinstance(array, sparse.SparseRows) else None


def _open_samples(array):
    if isinstance(array, Carried):
        return Carried.Spec(_open_samples(array.values), array.dtype)
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
    if isinstance(array, Carried):  # still so: as a batch it goes into the step's function
        return Carried(tf.gather(array.values, indices, axis=0), array.dtype)
    return tf.gather(array, indices, axis=0) if tf.is_tensor(array) else None


def to_gatherable(x):
    """`to_array`, and sparse tensors as rows."""
    x = to_array(x)
    return sparse.to_rows(x) if isinstance(x, tf.SparseTensor) else x


def stream_arrays(arrays, samples, batch_size, shuffle):
    """A `tf.data.Dataset` that is one epoch of batches, gathered on the host, a few ahead."""
    whole = samples // batch_size * batch_size

    def permutation(_):
        order = tf.range(samples, dtype=tf.int64)
        return tf.random.shuffle(order) if shuffle and shuffle != "batch" else order

    def slices(order):
        full = tf.reshape(order[:whole], [whole // batch_size, batch_size])
        batches = tf.data.Dataset.from_tensor_slices(full)
        if whole < samples:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(order[whole:]))
        return batches

    indices = tf.data.Dataset.range(1).map(permutation).prefetch(1).flat_map(slices)
    if shuffle == "batch":
        indices = indices.map(tf.random.shuffle)
    dataset = tf.data.Dataset.zip((indices, tf.data.Dataset.from_tensors(arrays).repeat())).map(
        lambda indices, arrays: gather(arrays, indices), tf.data.AUTOTUNE
    )
    # rewriting the graph of so short a pipeline costs more than it saves
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    # a strategy copies the pipeline, its random generator included
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def split(x, y, sample_weight, fraction):
    """Split arrays into the first samples, to train on, and the last, to validate on.

    (`array_slicing.py`, `train_validation_split`, Keras 3.15.)

    Args:
        fraction: `validation_split`: the fraction of the samples to validate on, in [0, 1).

    Returns:
        `(x, y, sample_weight), (x, y, sample_weight)`, the second for validation.

    Raises:
        ValueError: a fraction outside [0, 1), or so few samples that a part is empty; data that
            are not arrays.
    """
    arrays = x, y, sample_weight
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: {fraction}")
    if not all(map(is_array, tree.flatten(arrays))):
        raise ValueError(
            "Argument `validation_split` is only supported for tensors or NumPy arrays. Pass "
            "`validation_data` for data that arrive in batches. Received: x of type "
            f"{type(x).__name__}"
        )
    samples = next((len_(array) for array in tree.flatten(arrays) if array is not None), None)
    if samples is None:
        return arrays, arrays  # no data at all: `array_source` raises the error
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        raise ValueError(
            f"Training data contains {samples} samples, which is not sufficient to split it into a "
            f"validation and training set as specified by `validation_split={fraction}`. Provide "
            "more data or another `validation_split`."
        )
    arrays = tree.map_structure(to_array, arrays)

    def part(start, stop):
        return tree.map_structure(lambda array: slice_rows(array, start, stop), arrays)

    return part(0, at), part(at, samples)


def slice_rows(array, start, stop):
    """Samples `start` to `stop` of an array that `to_array` returned."""
    if isinstance(array, tf.SparseTensor):
        return sparse.gather_rows(sparse.to_rows(array), tf.range(start, stop))
    return None if array is None else array[start:stop]


def to_array(x):
    """`x` as a NumPy array or a tensor that `tf.gather` takes, floats as `keras.config.floatx()`.

    Other dtypes stay. A pandas Series becomes a column `[samples, 1]`. A DataFrame that has floats
    of another dtype is cast as a whole, so bool columns beside float64 become floats, while beside
    float32 they make an array of objects (`array_slicing.py`, `convert_to_sliceable`, Keras 3.15).

    Raises:
        ValueError: a dtype that Keras does not have, such as `Int64` or `category` of pandas, or
            columns without a common dtype.
    """
    if x is None:
        return None
    if isinstance(x, np.ndarray) and x.dtype == object and all(isinstance(s, str) for s in x):
        return tf.convert_to_tensor(x, dtype=tf.string)
    if kinds.is_scipy_sparse(x):
        x = sparse.scipy_to_sparse_tensor(x)
    elif kinds.is_jax_sparse(x):
        x = sparse.jax_to_sparse_tensor(x)
    if tf.is_tensor(x):
        return tf.cast(x, keras.config.floatx()) if is_other_float(x.dtype) else x
    if kinds.is_data_frame(x):
        return frame_to_array(x)
    if kinds.is_torch_tensor(x):
        return torch_to_array(x)
    column = kinds.is_series(x)
    if not column:
        x = np.asarray(x)
    if is_other_float(x.dtype):
        x = x.astype(keras.config.floatx())
    return np.expand_dims(x.to_numpy(), -1) if column else x


def frame_to_array(frame):
    """`to_array` of a pandas DataFrame: NumPy array `[samples, columns]`."""
    if any(map(is_other_float, frame.dtypes)):  # columns after the first such one may be anything
        return frame.astype(keras.config.floatx()).to_numpy()
    array = frame.to_numpy()
    if array.dtype == object and any(dtype.name != "string" for dtype in frame.dtypes):
        names = ", ".join(sorted({str(dtype) for dtype in frame.dtypes}))
        raise ValueError(
            f"The columns of a DataFrame have no common dtype, but: {names}. Convert them to one "
            "first, as by `frame.astype('float32')`."
        )
    return array


def torch_to_array(tensor):
    """`to_array` of a `torch.Tensor`; NumPy lacks bfloat16, all of whose values float32 has."""
    other = is_other_float(tensor.dtype)
    if other and not str(tensor.dtype).endswith("float64"):
        tensor = tensor.float()
    array = np.asarray(tensor)
    return array.astype(keras.config.floatx()) if other else array


def is_other_float(dtype):
    """Whether a dtype of any library is one of floats, but not `keras.config.floatx()`.

    Raises:
        ValueError: Keras does not have it.
    """
    try:
        name = keras.backend.standardize_dtype(dtype)
    except ValueError:
        raise ValueError(
            f"Invalid dtype: {getattr(dtype, 'name', dtype)}. Convert the data to a dtype that "
            "Keras has, as by `.astype('float32')`."
        ) from None
    return keras.backend.is_float_dtype(name) and name != keras.config.floatx()


def len_(array):
    """Number of samples in an array, tensor or data frame."""
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
            "Data cardinality is ambiguous. Make sure all arrays contain the same number of "
            f"samples. Received {counts or 'no data'}."
        )
    return distinct.pop()
