"""Small helpers for traced functions."""

import itertools
import re

import keras
import tensorflow as tf

from manual_loop.data.resident import narrow

tree = keras.tree

DRAWS = re.compile(r"Random(?!Dataset)|(Parameterized)?TruncatedNormal|Multinomial")


def graph(function, jit_compile=False):
    """`tf.function`. Without AutoGraph: it would rewrite the Python inside layers; fit does not."""
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


def on_plain_tensors(step):
    """`step` for batches as they come from the data.

    A missing array comes from a generator as an empty `tf.experimental.Optional`; on a GPU, arrays
    of some dtypes come as `WidenedTensor`.
    """

    def plain(leaf):
        return None if isinstance(leaf, tf.experimental.Optional) else narrow(leaf)

    def one_step(data):  # no lambda: TensorFlow finds the traceback of an op by this name
        return step(tree.map_structure(plain, data))

    return one_step


def nodes_of(definition):
    """All nodes of a `GraphDef`, including those of the functions in it."""
    functions = (function.node_def for function in definition.library.function)
    return itertools.chain(definition.node, *functions)


def empty(spec):
    """Zeros of this shape and dtype, with size 0 where it is open."""
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)


def draws(function_graph):
    """Whether a graph holds an op with random numbers of its own.

    The state of such an op (`tf.random.normal`, say; not Keras's layers, which draw from a seed
    generator) is in the kernel: each graph that calls a function has another, which starts anew.
    """
    return any(DRAWS.match(node.op) for node in nodes_of(function_graph.as_graph_def()))
