"""What `fit` makes of arrays in memory: a split, a permutation, batches
(`keras/src/trainers/data_adapters/array_data_adapter.py`, `array_slicing.py`, Keras 3.15).

Two things that surprise: the validation split is the *last* rows, before any shuffling; and under
a global seed every epoch of a fit has the *same* permutation.
"""

import math
import operator

import keras
import numpy as np
import tensorflow as tf

from manual_loop.data import kinds, sample_weights, sparse
from manual_loop.data.adapter import DataAdapter
from manual_loop.data.resident import ResidentDataset, gather, permutation

tree = keras.tree

# Arrays up to this many bytes are copied to the device for the whole of `fit`; larger ones stay in
# host memory and are copied batch by batch.
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


def array_adapter(
    x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, resident
):
    """Batches of arrays in memory, as a `DataAdapter`.

    Args:
        x, y, sample_weight: arrays `[samples, ...]`, or lists, tuples or dicts of them.
        batch_size: samples a batch; None for 32, or for what makes `steps_per_epoch` batches.
        steps_per_epoch: see `batch_size`.
        shuffle: True for a permutation of all samples, `"batch"` for one within each batch.
        class_weight: None, or dict: class number -> weight.
        resident: whether they may be kept on the device, if they are not too large.

    Raises:
        ValueError: arrays of different lengths, a negative batch size, or weights that do not fit.
    """
    if class_weight is not None:
        sample_weights.check_class_weight(y, sample_weight)
        sample_weight = sample_weights.weigh_classes(y, class_weight)
    sample_weight = sample_weights.one_for_each_output(y, sample_weight)
    arrays = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    samples = _count_samples(x, y, sample_weight)
    given = batch_size
    if not batch_size:  # None, and 0 as in Keras
        batch_size = math.ceil(samples / steps_per_epoch) if steps_per_epoch else 32
    batch_size = operator.index(batch_size)
    if batch_size < 0:
        raise ValueError(
            "`batch_size` and the number of steps must be positive. Received: "
            f"{given} and {steps_per_epoch}"
        )
    if shuffle and shuffle != "batch":  # whatever counts as true
        shuffle = True
    arrays = tree.lists_to_tuples(tree.map_structure(to_gatherable, arrays))
    steps = math.ceil(samples / batch_size)
    bytes_ = sum(getattr(array, "nbytes", 0) for array in tree.flatten(arrays))
    if resident and bytes_ <= RESIDENT_BYTES:
        dataset = ResidentDataset(arrays, samples, batch_size, shuffle)
        return DataAdapter(dataset, steps, batch_size, order=dataset)
    return DataAdapter(stream_arrays(arrays, samples, batch_size, shuffle), steps, batch_size)


def to_gatherable(x):
    """`to_array`, and sparse tensors as rows."""
    x = to_array(x)
    return sparse.to_rows(x) if isinstance(x, tf.SparseTensor) else x


def stream_arrays(arrays, samples, batch_size, shuffle):
    """A `tf.data.Dataset` that is one epoch of batches, gathered on the host, a few ahead."""
    whole = samples // batch_size * batch_size

    def slices(order):
        full = tf.reshape(order[:whole], [whole // batch_size, batch_size])
        batches = tf.data.Dataset.from_tensor_slices(full)
        if whole < samples:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(order[whole:]))
        return batches

    order = tf.data.Dataset.range(1).map(lambda _: permutation(samples, shuffle))
    indices = order.prefetch(1).flat_map(slices)
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
        return arrays, arrays  # no data at all: `array_adapter` raises the error
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
