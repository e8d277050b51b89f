"""Desks: how a traced function comes to batches of arrays that lie on the device.

`fit` hands its function an iterator of `tf.data`, which costs more than the arithmetic of a small
step. Here a function finds the arrays, the epoch's order of samples and the number of the next
batch in variables, and gathers its batch itself: so Python has nothing to do but to call it.

On a GPU all of these lie there, and no step copies anything between its memory and the host's.
TensorFlow takes the bounds of a slice, the sizes of shapes and every condition from the host, and
all int32 arithmetic is done there; int64 and `tf.gather` are the device's. So what says *which*
samples is int64 and gathered, never sliced, and what says *how often* is int32. (The kernels that
TensorFlow has registered say so: `tests/support/placement.py` looks them up.)
"""

import functools
import itertools
import math
from typing import Any

import keras
import tensorflow as tf

from manual_loop.data.arrays import Carried, gather, on_gpu
from manual_loop.execution.dispatch import Call

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
        arrays, full, rest = signature.specs
        # `tf.function` may answer with an earlier, more general graph, as it does in fit
        indices = tf.TensorSpec(full.shape[1:], full.dtype)
        traced = self._function.get_concrete_function(arrays, indices)
        (_, indices), _ = traced.structured_input_signature
        # then the size of a batch is open here too: Grappler would fold it, and round otherwise
        full = tf.TensorSpec([None, *indices.shape], full.dtype)
        self[signature] = Desk(
            lambda arrays, full, rest, at: traced(arrays, tf.gather(full, at)),
            (arrays, full, rest),
            1,
            lambda arrays, full, rest, at: traced(arrays, rest),
        )
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
        function: `(arrays, full, rest, at) -> logs`, where `at` is the number of the next batch.
        specs: the `tf.TypeSpec`s of `arrays`, `full` and `rest`, see `arrays.Order`.
        batches: how many a call takes.
        partial: as `function`, for the partial batch, if that is a call of its own.

    Attributes:
        specs: as given.
        call: the `calls.Call` of the function without arguments.
    """

    def __init__(self, function, specs, batches, partial=None):
        self.specs = specs
        self._variables: list[Any] = [
            None if spec is None else tf.Variable(empty(spec), shape=spec.shape, trainable=False)
            for spec in tf.nest.flatten(specs, expand_composites=True)
        ]
        self._position = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._walk: Any = None
        self._values: list[Any] = [None] * len(self._variables)

        self._batches, self._partial = batches, partial
        self.call = self._without_arguments(function)

    @functools.cached_property
    def call_partial(self):
        """As `call`, for the partial batch; traced when the first one is due."""
        return self._without_arguments(self._partial)

    def _without_arguments(self, function):
        def call():
            values = [None if v is None else v.read_value() for v in self._variables]
            arguments = tf.nest.pack_sequence_as(self.specs, values, expand_composites=True)
            logs = function(*arguments, self._position.read_value())
            with tf.control_dependencies(tf.nest.flatten(logs)):  # only if nothing failed
                self._position.assign_add(self._batches)
            return logs

        return Call(graph(call).get_concrete_function())

    def lay(self, walk):
        """Lay out what a `Walk` leads through, unless it lies here; go on where it stands."""
        if walk is self._walk:
            return
        values = tf.nest.flatten(walk.laid_out(), expand_composites=True)
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

    batches = tf.cast(stop - first, tf.int32)  # counted on the host, which ends the loop

    def one_more(i, at, _):
        return i + 1, at + 1, step(gather(arrays, tf.gather(full, at)))

    return tf.while_loop(lambda i, *_: i < batches, one_more, (0, first, logs))[-1]


def stage_by_stage(step, steps, arrays, full, first, stop, logs):
    """As `batch_by_batch`, for XLA: the samples of many batches are gathered at once.

    In an XLA program a gather is a loop over the samples, which takes as long as a small step.
    """
    shape = tf.shape(full, tf.int64)
    parts = tf.nest.flatten(arrays, expand_composites=True)
    sizes = (math.prod(part.shape[1:]) * part.dtype.size for part in parts)
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
        def take(batches):
            return tf.gather(batches, i)

        return i + 1, step(tf.nest.map_structure(take, stage, expand_composites=True))

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
    dense_specs = tf.TensorSpec, Carried.Spec
    dense = all(
        spec is None or (isinstance(spec, dense_specs) and spec.dtype != tf.string)
        for spec in tree.flatten(specs)
    )
    if jit_compile and not dense:
        return False
    if on_gpu():
        return True
    return not any("Conv" in node.op for node in nodes_of(traced.as_graph_def()))


def nodes_of(definition):
    """All nodes of a `GraphDef`, those of the functions that it holds included."""
    functions = (function.node_def for function in definition.library.function)
    return itertools.chain(definition.node, *functions)
