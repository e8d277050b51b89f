"""`Dispatcher`: the cheapest way for Python to call a traced function without arguments.

A call of a `ConcreteFunction`, even of an empty one, takes longer than the arithmetic of a small
step: TensorFlow hands the function to a thread pool and waits for it (`make bench` times it). But a
graph calls a function by an op, `StatefulPartitionedCall`, and an op can be called eagerly too.
Then the ops of the function run one after another in the calling thread. So a step of large ops,
of which several can run at a time, stays with the thread pool.
"""

import math
import re

import tensorflow as tf

from manual_loop.data.resident import on_gpu
from manual_loop.execution.graph import nodes_of

# TensorFlow optimizes the graph once more for the op, which pays after this many calls.
CALLS = 500
# Elements of the largest tensor of a small step: below this, an op is over before another thread
# has taken it up.
SMALL = 2**16
# Ops that act outside the graph: Python code, prints, files.
OUTSIDE = re.compile(r"(Eager)?PyFunc|Print|Write\w*Summary|WriteFile|Save")


class Dispatcher:
    """Calls a `tf.types.experimental.ConcreteFunction` that has no arguments.

    Args:
        function: the function.
        is_small: whether to call it by an op, after `CALLS` calls.

    Attributes:
        function: as given.
    """

    def __init__(self, function, is_small):
        self.function = function
        self._calls_left = CALLS if is_small else math.inf
        self._op = None

    def __call__(self):
        """What the function returns.

        Raises:
            tf.errors.OpError: with the traceback of the op that failed.
        """
        if self._calls_left > 0:
            self._calls_left -= 1
            return self.function()
        if self._op is None:
            self._op = op_of(self.function)
        try:
            return self._op()
        except tf.errors.OpError as error:
            raise with_traceback(self.function, error) from None


def is_small(traced, batch_size):
    """Whether the op is the better way to call a step: decided from its graph alone.

    Not on a GPU, where a call returns before its work is done; and not for a step that acts outside
    the graph, because a failing step is run again for its traceback.

    Args:
        traced: the step as a `ConcreteFunction`.
        batch_size: for the sizes that the graph leaves open.
    """
    if on_gpu():
        return False
    nodes = list(nodes_of(traced.graph.as_graph_def(add_shapes=True)))
    if acts_outside(nodes):
        return False
    shapes = (shape for node in nodes for shape in node.attr["_output_shapes"].list.shape)
    return all(_elements(shape, batch_size) <= SMALL for shape in shapes)


def acts_outside(nodes):
    """Whether one of the nodes of a graph acts outside it: in Python, on the screen, on files."""
    return any(OUTSIDE.match(node.op) for node in nodes)


def _elements(shape, batch_size):
    elements = 1
    for dimension in shape.dim:
        elements *= batch_size if dimension.size < 0 else dimension.size
    return elements


def op_of(function):
    """A Python function that calls `function` by the op that a graph would call it with."""
    caller = tf.function(lambda: function(), autograph=False).get_concrete_function().graph
    (op,) = (op for op in caller.get_operations() if op.type == "StatefulPartitionedCall")
    attributes = {name: op.get_attr(name) for name in ("Tout", "config_proto")}
    captured, structure = function.captured_inputs, function.structured_outputs

    def call():
        outputs = tf.raw_ops.StatefulPartitionedCall(args=captured, f=function, **attributes)
        return tf.nest.pack_sequence_as(structure, outputs)

    return call


def with_traceback(function, error):
    """Re-run a failed call as a normal one to recover the traceback of the op that failed.

    The variables keep the values that the first, failed call left them.
    """
    values = [variable.read_value() for variable in function.variables]
    try:
        function()
    except tf.errors.OpError as again:
        return again
    finally:
        for variable, value in zip(function.variables, values, strict=True):
            variable.assign(value)
    return error
