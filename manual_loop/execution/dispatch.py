"""How Python calls a traced function without arguments, again and again.

An eager call of a function, even of an empty one, takes longer than the arithmetic of a small step:
TensorFlow hands it to another thread and waits for that (`make bench` times it). But a graph calls
a function with an op, `StatefulPartitionedCall`, and every op can be called eagerly too. Then the
function runs at once, in the thread that called it. Its ops run there one after another, so a step
of large ones, of which several can run at a time, is better off with the threads.
"""

import math
import time

import tensorflow as tf

from manual_loop.data.arrays import on_gpu

CALLS = 500  # from here on it pays to optimise the graph once more, for the op
SHORT = 1e-3  # seconds; in longer calls, what the op saves is not worth the threads


class Call:
    """A `tf.types.experimental.ConcreteFunction` without arguments: short ones end up with the op.

    Not on a GPU, where a call is over before its work is done.

    Attributes:
        function: as given.
        graph: its `tf.Graph`.
    """

    def __init__(self, function):
        self.function = function
        self.graph = function.graph
        self._calls = 0
        self._shortest = math.inf
        self._op = None

    def __call__(self):
        if self._op is None:
            return self._call_function()
        try:
            return self._op()
        except tf.errors.OpError as error:
            raise located(self.function, error) from None

    def _call_function(self):
        begin = time.perf_counter()
        outputs = self.function()
        self._shortest = min(self._shortest, time.perf_counter() - begin)
        self._calls += 1
        if self._calls == CALLS and self._shortest < SHORT and not on_gpu():
            self._op = op_of(self.function)
        return outputs


def op_of(function):
    """A function that calls `function` by the op that a graph would call it with."""
    caller = tf.function(lambda: function(), autograph=False).get_concrete_function().graph
    (op,) = (op for op in caller.get_operations() if op.type == "StatefulPartitionedCall")
    how = {name: op.get_attr(name) for name in ("Tout", "config_proto")}  # how to optimise it
    captured, structure = function.captured_inputs, function.structured_outputs

    def call():
        outputs = tf.raw_ops.StatefulPartitionedCall(args=captured, f=function, **how)
        return tf.nest.pack_sequence_as(structure, outputs)

    return call


def located(function, error):
    """The error of a call by an op as an ordinary call has it, with the lines that made the op.

    What the function changes until it fails again is put back.
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
