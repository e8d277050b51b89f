"""Data that arrive in batches: `tf.data.Dataset`, `keras.utils.PyDataset`, generators, loaders.

Each becomes a `tf.data.Dataset`. What remains is to find how many batches there are, which shapes
they share, and which methods to call around an epoch (`keras/src/trainers/data_adapters/`,
`tf_dataset_adapter.py`, `py_dataset_adapter.py`, `generator_data_adapter.py`,
`torch_data_loader_adapter.py`, Keras 3.15).
"""

import itertools
import types
import warnings

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
from manual_loop.data.kinds import (
    is_instance,
    is_jax_sparse,
    is_scipy_sparse,
    is_torch_data_loader,
    is_torch_tensor,
)
from manual_loop.data.py_dataset import pydataset_adapter
from manual_loop.data.sample_weights import (
    weigh_classes_in_graph,
)
from manual_loop.data.sparse import jax_to_sparse_tensor, scipy_to_sparse_tensor
from manual_loop.keras_version import EMPTY_GENERATOR_ERROR, WARNS_OF_IGNORED_SHUFFLE

tree = keras.tree


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
    ignored = shuffle and not (kind == "PyDataset" and x.num_batches is not None)
    if ignored and WARNS_OF_IGNORED_SHUFFLE:
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
    num_batches = cardinality if cardinality >= 0 else None
    return DataAdapter(dataset, num_batches, batch_size, kind="tf.data.Dataset")


def generator_adapter(generator):
    """The `DataAdapter` for a Python generator. Its first batches are read, and then used first."""
    first = list(itertools.islice(generator, PEEK))
    if not first:
        raise EMPTY_GENERATOR_ERROR(
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

    dataset = generated_dataset(batches, signature)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return DataAdapter(dataset, None, first_size(first[0]), restarts=False, kind="generator")


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
    dataset = generated_dataset(batches, signature)
    steps = len(loader) if hasattr(loader.dataset, "__len__") else None
    return DataAdapter(dataset, steps, loader.batch_size, kind="torch DataLoader")


def _from_torch(leaf):
    return np.asarray(leaf.cpu() if is_torch_tensor(leaf) else leaf)


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
