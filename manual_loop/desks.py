"""Desks: how a traced function comes to batches of arrays that lie on the device.

`fit` hands its function an iterator of `tf.data`, which costs more than the arithmetic of a small
step. Here a function finds the arrays, the epoch's order of samples and the number of the next
batch in variables, and gathers its batch itself: so Python has nothing to do but to call it.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from manual_loop.arrays import gather

tree = keras.tree

STAGE_BYTES = 2**25  # of batches that are stacked for one XLA program


def graph(function, jit_compile=False):
    """`tf.function`. Without autograph: it would rewrite the Python inside layers; fit does not."""
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


class BatchDesks(dict):
    """By `arrays.Signature`: a `Desk` for one batch a call."""

    def __init__(self, step):
        super().__init__()
        self._function = graph(lambda arrays, indices: step(gather(arrays, indices)))

    def __missing__(self, signature):
        arrays, indices = signature.specs
        # `tf.function` may answer with an earlier, more general graph, as it does in fit
        traced = self._function.get_concrete_function(arrays, indices)
        (_, indices), _ = traced.structured_input_signature

        def call(arrays, samples, size, at):
            batch = samples[at * size : (at + 1) * size]
            return traced(arrays, tf.ensure_shape(batch, indices.shape))

        samples, size = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)
        self[signature] = Desk(call, (arrays, samples, size), 1)
        return self[signature]


class BlockDesks(dict):
    """By `arrays.Signature`: a `Desk` for a block of batches a call."""

    def __init__(self, step, steps, jit_compile):
        super().__init__()
        self._function = graph(array_block(step, steps, jit_compile), jit_compile)
        self._steps = steps

    def __missing__(self, signature):
        at = tf.TensorSpec([], tf.int64)
        traced = self._function.get_concrete_function(*signature.specs, at)
        self[signature] = Desk(traced, signature.specs, self._steps)
        return self[signature]


class Desk:
    """A function, and variables in which its arguments lie: `call` takes none.

    To bind arguments takes Python longer than a small step takes to run. What is laid out here is
    not copied.

    Args:
        function: `(*arguments, at) -> logs`, where `at` is the number of the next batch.
        specs: the `tf.TypeSpec`s of the arguments.
        batches: how many a call takes.

    Attributes:
        specs: as given.
        call: the graph without arguments.
    """

    def __init__(self, function, specs, batches):
        self.specs = specs
        self._variables: list[Any] = [
            None if spec is None else tf.Variable(empty(spec), shape=spec.shape, trainable=False)
            for spec in tf.nest.flatten(specs, expand_composites=True)
        ]
        self._position = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._walk: Any = None
        self._values: list[Any] = [None] * len(self._variables)

        def call():
            values = [None if v is None else v.read_value() for v in self._variables]
            arguments = tf.nest.pack_sequence_as(specs, values, expand_composites=True)
            at = self._position.read_value()
            self._position.assign_add(batches)
            return function(*arguments, at)

        self.call = graph(call).get_concrete_function()

    def lay(self, walk, arguments):
        """Lay out `arguments(walk)`, unless they lie here; go on where the `Walk` stands."""
        if walk is self._walk:
            return
        values = tf.nest.flatten(arguments(walk), expand_composites=True)
        for variable, old, new in zip(self._variables, self._values, values, strict=True):
            if new is not old:
                variable.assign(new)
        self._position.assign(walk.position)
        self._walk, self._values = walk, values

    def clear(self):
        """Let go of the arrays, so that their memory is free."""
        for variable in self._variables:
            if variable is not None:
                variable.assign(empty(variable))
        self._walk = None
        self._values = [None] * len(self._variables)


def empty(spec):
    """Zeros of this shape and dtype, with size 0 where it is open."""
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)


def array_block(step, steps, jit_compile):
    """`(arrays, full, rest, at) -> logs`: up to `steps` batches from number `at` on."""
    walk = stage_by_stage if jit_compile else batch_by_batch

    def run(arrays, indices):
        return step(gather(arrays, indices))

    def block(arrays, full, rest, at):
        full_batches = tf.shape(full, tf.int64)[0]
        stop = at + steps
        logs = empty_logs(graph(run), arrays, full[0])
        logs = walk(step, steps, arrays, full, at, tf.minimum(stop, full_batches), logs)
        if rest is not None:  # the partial batch has a size of its own: a step of its own
            logs = tf.cond(stop > full_batches, lambda: run(arrays, rest), lambda: logs)
        return logs

    return block


def batch_by_batch(step, steps, arrays, full, first, stop, logs):
    """Logs of the last of the batches `first` to `stop`, each gathered when its turn comes."""

    def one_more(i, _):
        return i + 1, step(gather(arrays, tf.gather(full, i)))

    return tf.while_loop(lambda i, _: i < stop, one_more, (first, logs))[1]


def stage_by_stage(step, steps, arrays, full, first, stop, logs):
    """As `batch_by_batch`, for XLA: the samples of many batches are gathered at once.

    In an XLA program a gather is a loop over the samples, which takes as long as a small step.
    """
    shape = tf.shape(full, tf.int64)
    sizes = (math.prod(part.shape[1:]) * part.dtype.size for part in tree.flatten(arrays))
    fitting = STAGE_BYTES // (shape[1] * sum(sizes))
    most = tf.clip_by_value(fitting, 1, tf.minimum(shape[0], steps))

    def one_stage(i, logs):
        numbers = tf.minimum(i + tf.range(most), stop - 1)  # the last stage may be longer than due
        stage = gather(arrays, tf.gather(full, numbers))
        return i + most, run_stage(step, stage, tf.minimum(most, stop - i), logs)

    return tf.while_loop(lambda i, _: i < stop, one_stage, (first, logs))[1]


def run_stage(step, stage, size, logs):
    """Logs of the last of `size` batches.

    Args:
        step: `data -> logs`.
        stage: the batches, stacked: `[at least size, batch, ...]`.
        size: int [], or int64.
        logs: those of no batch.
    """

    def one_more(i, _):
        return i + 1, step(tree.map_structure(lambda batches: tf.gather(batches, i), stage))

    zero = tf.zeros([], size.dtype)
    return tf.while_loop(lambda i, _: i < size, one_more, (zero, logs))[1]


def empty_logs(step, *specs):
    """Zeros in the shapes of a step's logs, for a loop in the graph to begin with."""
    logs = step.get_concrete_function(*specs).structured_outputs
    return tree.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)


def gains_from_a_block(specs, traced, jit_compile):
    """Whether the loop over a block of batches should move from Python into the graph.

    Not around convolutions on a CPU: inside a loop they are slower than the calls that it saves,
    and XLA compiles them to other code with other last bits. And XLA cannot take batches from
    sparse, ragged or string data.

    Args:
        specs: the `tf.TypeSpec`s of the data.
        traced: the `tf.Graph` of one batch.
    """
    dense = all(
        spec is None or (isinstance(spec, tf.TensorSpec) and spec.dtype != tf.string)
        for spec in tree.flatten(specs)
    )
    if jit_compile and not dense:
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    definition = traced.as_graph_def()
    functions = [function.node_def for function in definition.library.function]
    return not any("Conv" in node.op for nodes in (definition.node, *functions) for node in nodes)
