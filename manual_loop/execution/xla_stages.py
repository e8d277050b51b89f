"""Several steps in one XLA program: batches are stacked in a stage first.

XLA needs static shapes, and in an XLA program a gather is a loop over the samples, which takes as
long as a small step. So many batches are gathered, or taken from the stream, at once: at least two,
because XLA compiles a loop over a single one to no loop, and rounds differently.
"""

import functools
import math

import keras
import tensorflow as tf

from manual_loop.data.resident import gather
from manual_loop.execution.graph import graph

tree = keras.tree

STAGE_BYTES = 2**25  # of the batches in one stage


def array_loop(step, steps, arrays, full, first, stop, logs):
    """Logs of the last of the batches `first` to `stop`, as `multi_step.array_loop` gives them."""
    shape = tf.shape(full, tf.int64)
    parts = tf.nest.flatten(arrays, expand_composites=True)
    sizes = (math.prod(part.shape[1:]) * part.dtype.size for part in parts)
    fitting = STAGE_BYTES // (shape[1] * sum(sizes))
    most = tf.maximum(tf.minimum(fitting, tf.minimum(shape[0], steps)), 2)

    def one_stage(i, logs):
        numbers = tf.minimum(i + tf.range(most), stop - 1)  # the last stage may be longer than due
        stage = gather(arrays, tf.gather(full, numbers))
        return i + most, run_stage(step, stage, tf.minimum(most, stop - i), logs)

    return tf.while_loop(lambda i, _: i < stop, one_stage, (first, logs))[1]


def stream_block(step, steps, empty_logs):
    """`iterator -> (batches, logs)`, as `multi_step.stream_block` makes it.

    Args:
        step, steps: as there.
        empty_logs: `multi_step.empty_logs`.
    """

    @functools.partial(graph, jit_compile=True)
    def run(stage, size):
        first = tree.map_structure(lambda batches: batches[0], stage)
        return run_stage(step, stage, size, empty_logs(step, first))

    def block(iterator):
        spec = iterator.element_spec
        bytes_ = sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in tree.flatten(spec))
        most = max(2, min(steps, STAGE_BYTES // bytes_))

        def one_stage(batches, logs, _):
            stage, size = stage_batches(iterator, most, tf.minimum(most, steps - batches))
            logs = tf.cond(size > 0, lambda: run(stage, size), lambda: logs)
            return batches + size, logs, size

        batches, logs, _ = tf.while_loop(
            lambda batches, _, size: tf.logical_and(batches < steps, size > 0),
            one_stage,
            (0, empty_logs(step, spec), 1),
        )
        return batches, logs

    return block


def run_stage(step, stage, size, logs):
    """Logs of the last of `size` steps.

    Args:
        step: `data -> logs`.
        stage: the batches, stacked: `[at least size, batch, ...]`.
        size: int32 or int64 `[]`.
        logs: the logs if there is none.
    """

    def one_more(i, _):
        def take(batches):
            return tf.gather(batches, i)

        return i + 1, step(tf.nest.map_structure(take, stage, expand_composites=True))

    zero = tf.zeros([], size.dtype)
    return tf.while_loop(lambda i, _: i < size, one_more, (zero, logs))[1]


def stage_batches(iterator, most, wanted):
    """Up to `wanted` batches as a stack `[most, batch, ...]`, its end perhaps empty; how many."""
    spec = iterator.element_spec
    arrays = [tf.TensorArray(s.dtype, most, element_shape=s.shape) for s in tree.flatten(spec)]

    def one_more(i, arrays, batch):
        leaves = tree.flatten(batch.get_value())
        arrays = [array.write(i, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
        batch = tf.cond(i + 1 < wanted, iterator.get_next_as_optional, lambda: batch)
        return i + 1, arrays, batch

    size, arrays, _ = tf.while_loop(
        lambda i, _, batch: tf.logical_and(i < wanted, batch.has_value()),
        one_more,
        (0, arrays, iterator.get_next_as_optional()),
    )
    return tree.pack_sequence_as(spec, [array.stack() for array in arrays]), size


def can_be_staged(spec):
    """Whether all batches of a stream have one static shape."""
    return all(
        isinstance(leaf, tf.TensorSpec) and leaf.shape.is_fully_defined()
        for leaf in tree.flatten(spec)
    )
