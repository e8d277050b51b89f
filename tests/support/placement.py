"""Where a traced call would run on a GPU, and what it would copy, told without one.

The second of two logical CPUs stands in for the GPU: what is trained under `tf.device("CPU:1")`
must run there alone. What a GPU would have to copy is read from the graph that TensorFlow ran, by
the rules of TensorFlow itself (`MemoryTypesForNode`, tensorflow/core/framework/memory_types.cc):
the kernels registered for GPUs, which a TensorFlow built with CUDA lists without having one, say
which of their arguments lie in the host's memory; a tensor that goes from one memory to the other
is copied.

Run as `python tests/support/placement.py`, it prints JSON: for each case a list of `Call`s.
"""

import functools
import json
import os
from itertools import chain
from typing import NamedTuple

# before TensorFlow is imported: ops that oneDNN puts in the place of others have no GPU kernels
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.eager import context  # noqa: E402
from tensorflow.python.framework import kernels, op_def_registry  # noqa: E402

import keras_fit  # noqa: E402
import manual_loop  # noqa: E402
from manual_loop.data import resident  # noqa: E402
from manual_loop.data.resident import ResidentDataset  # noqa: E402

HOST, DEVICE = "host", "GPU"


class Graph(NamedTuple):
    """What was found of one graph that was run.

    Attributes:
        devices: of its nodes.
        unplaced: the ops that have no GPU kernel.
        copies: tensors that go from one memory to the other: `[to, dtype, ops, name]`, where `ops`
            are the one that gives it and the one that takes it, and `name` is the latter's.
    """

    devices: list
    unplaced: list
    copies: list


def inspect(graph):
    """The `Graph` of a `GraphDef` that TensorFlow ran."""
    nodes = {node.name: node for node in graph.node}
    unplaced = [f"{node.op} {node.name}" for node in graph.node if memories(node) is None]
    copies = []
    for node in graph.node:
        if memories(node) is None:
            continue
        wanted, _, dtypes = memories(node)
        inputs = [name for name in node.input if not name.startswith("^")]
        for name, memory, dtype in zip(inputs, wanted, dtypes, strict=True):
            producer, _, output = name.partition(":")
            source = memories(nodes[producer])
            if source is not None and source[1][int(output or 0)] != memory:
                ops = f"{nodes[producer].op} > {node.op}"
                copies.append([memory, dtype.name, ops, node.name])
    return Graph(sorted({node.device for node in graph.node}), unplaced, copies)


def memories(node):
    """`memories of the inputs, of the outputs, dtypes of the inputs`; None without a GPU kernel."""
    return _memories(node.SerializeToString(deterministic=True))


@functools.cache
def _memories(serialized):
    node = tf.compat.v1.NodeDef.FromString(serialized)
    definition = op_def_registry.get(node.op)
    inputs = arguments(node, definition.input_arg)
    outputs = arguments(node, definition.output_arg)
    dtypes = [dtype for _, dtype in inputs]
    if node.op in ("_Arg", "_Retval", "PartitionedCall", "StatefulPartitionedCall", "While"):
        compiled = node.attr["_XlaMustCompile"].b
        host = [tf.resource, tf.string] + [tf.int32] * (not compiled)

        def where(argument):
            return HOST if argument[1] in host else DEVICE
    else:
        kernel = gpu_kernel(node)
        if kernel is None:
            return None

        def where(argument):
            always = argument[1] in (tf.resource, tf.string)
            return HOST if always or argument[0] in kernel.host_memory_arg else DEVICE

    return [where(i) for i in inputs], [where(o) for o in outputs], dtypes


def arguments(node, definitions):
    """`(name, dtype)` of each tensor that an op takes or gives."""
    found = []
    for definition in definitions:
        if definition.type_list_attr:
            dtypes = node.attr[definition.type_list_attr].list.type
        else:
            count = node.attr[definition.number_attr].i if definition.number_attr else 1
            given = definition.type or node.attr[definition.type_attr].type
            dtypes = [given] * count
        found += [(definition.name, tf.as_dtype(dtype)) for dtype in dtypes]
    return found


def gpu_kernel(node):
    """The kernel that would run on a GPU, or None: its own first, then one for any device."""
    for device in ("GPU", "DEFAULT"):
        fitting = [
            kernel
            for kernel in registered(node.op)
            if kernel.device_type == device and fits(kernel, node) and not kernel.label
        ]
        if fitting:
            return max(fitting, key=lambda kernel: kernel.priority)
    return None


@functools.cache
def registered(op):
    return kernels.get_registered_kernels_for_op(op).kernel


def fits(kernel, node):
    """Whether all dtypes are among those that the kernel is for."""
    for constraint in kernel.constraint:
        attribute = node.attr[constraint.name]
        dtypes = attribute.list.type or [attribute.type]
        if not set(dtypes) <= set(constraint.allowed_values.list.type):
            return False
    return True


def loop_graph(x, y, partial=False, **how):
    """The graph of one call of the loop, on arrays of 22 samples in batches of 8."""
    function = compiled(manual_loop.Trainer, **how)._function("train")
    iterator = iter(ResidentDataset((x, y), len(x), 8, shuffle=True))
    bound = function._on_arrays.of(iterator.dataset)
    bound.bind(iterator)
    if "steps_per_execution" in how:
        return graph_of(bound._run_block)
    return graph_of(bound._run_partial if partial else bound._run_full)


def fit_graph(x, y):
    """The same of `fit`."""
    model = compiled(keras_fit.Trainer).model
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.make_train_function()
    iterator = iter(batches)
    return graph_of(lambda: model.train_function(iterator))


def compiled(Trainer, **how):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input([8]), *layers])
    trainer = Trainer(model)
    loss = keras.losses.SparseCategoricalCrossentropy()
    trainer.compile("adam", loss, metrics=["acc"], **how)
    trainer.optimizer.build(model.trainable_variables)
    return trainer


def slicing_graph():
    """Of a function that must copy: a slice takes its bounds from the host."""
    array, at = tf.Variable(tf.zeros([8, 2])), tf.Variable(2, dtype=tf.int64)
    return graph_of(tf.function(lambda: array[at : at + 2]))


def hosted_graph():
    """Of a function that a GPU could not run alone: it has no kernel that shuffles."""
    array = tf.Variable(tf.zeros([8]))
    return graph_of(tf.function(lambda: tf.random.shuffle(array)))


def graph_of(function):
    """The `Graph` of the largest graph that TensorFlow runs for a first call of `function`."""
    context.enable_run_metadata()
    function()
    ran = context.export_run_metadata()
    context.disable_run_metadata()
    graphs = max((f.partition_graphs for f in ran.function_graphs), key=size)
    found = [inspect(graph) for graph in graphs]
    return Graph(*(list(chain(*parts)) for parts in zip(*found, strict=True)))


def size(graphs):
    return sum(len(graph.node) for graph in graphs)


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, logical)
    resident.on_gpu = lambda: True  # arrays are prepared as they would be there
    random = np.random.default_rng(0)
    x = random.normal(size=[22, 8]).astype("float32")
    y = random.integers(3, size=[22], dtype="int32")
    block, xla = {"steps_per_execution": 2}, {"jit_compile": True}
    with tf.device("CPU:1"):
        found = {
            "a slice": slicing_graph(),
            "a shuffle": hosted_graph(),
            "fit": fit_graph(x, y),
            "one batch": loop_graph(x, y),
            "partial batch": loop_graph(x, y, partial=True),
            "block": loop_graph(x, y, **block),
            "XLA": loop_graph(x, y, **xla),
            "XLA, block": loop_graph(x, y, **xla, **block),
        }
    print(json.dumps({case: graph._asdict() for case, graph in found.items()}))


if __name__ == "__main__":
    main()
