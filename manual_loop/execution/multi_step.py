"""`steps_per_execution`: several steps in one call, as a loop in the graph.

The same steps in the same order as one step per call; only Python is asked less often.
"""

import keras
import tensorflow as tf

from manual_loop.data.resident import WidenedTensor, gather, on_gpu
from manual_loop.execution import xla_stages
from manual_loop.execution.graph import empty, graph, nodes_of

tree = keras.tree


def array_block(step, steps, jit_compile=False):
    """`(arrays, full, partial, at) -> logs`: up to `steps` steps from batch number `at` on.

    Args:
        step: `data -> logs`, a `tf.function`.
        steps: how many; an int, or a variable.
        jit_compile: whether the block is compiled with XLA.
    """
    loop = xla_stages.array_loop if jit_compile else array_loop

    def run(arrays, indices):
        return step(gather(arrays, indices))

    def block(arrays, full, partial, at):
        full_batches = tf.shape(full, tf.int64)[0]
        stop = at + steps
        logs = empty_logs(graph(run), arrays, full[0])
        logs = loop(step, steps, arrays, full, at, tf.minimum(stop, full_batches), logs)
        if partial is not None:  # of another size: a step of its own
            logs = tf.cond(stop > full_batches, lambda: run(arrays, partial), lambda: logs)
        return logs

    return block


def array_loop(step, _, arrays, full, first, stop, logs):
    """Logs of the last of the batches `first` to `stop`, each gathered before its step."""
    batches = tf.cast(stop - first, tf.int32)  # counted on the host, which ends the loop

    def one_more(i, at, _):
        return i + 1, at + 1, step(gather(arrays, tf.gather(full, at)))

    return tf.while_loop(lambda i, *_: i < batches, one_more, (0, first, logs))[-1]


def stream_block(step, steps):
    """`iterator -> (batches, logs)`: up to `steps` steps, as many as there are batches.

    Args:
        step: `data -> logs`, a `tf.function`.
        steps: how many.
    """

    def block(iterator):
        def one_more(batches, _, batch):
            logs = step(batch.get_value())
            batches += 1
            # a batch taken beyond the block would be lost
            batch = tf.cond(batches < steps, iterator.get_next_as_optional, lambda: batch)
            return batches, logs, batch

        batches, logs, _ = tf.while_loop(
            lambda batches, _, batch: tf.logical_and(batches < steps, batch.has_value()),
            one_more,
            (0, empty_logs(step, iterator.element_spec), iterator.get_next_as_optional()),
        )
        return batches, logs

    return block


def empty_logs(step, *specs):
    """Zeros in the shapes of a step's logs, for a loop in the graph to begin with."""
    logs = step.get_concrete_function(*specs).structured_outputs
    return tree.map_structure(empty_log, logs)


def empty_log(log):
    """Zeros, of a shape that stays open where that of the log is."""
    if log is None:
        raise ValueError(
            "With `steps_per_execution` above 1, a step must not return None as a log."
        )
    if log.shape.is_fully_defined():
        return empty(log)
    return tf.raw_ops.PlaceholderWithDefault(input=empty(log), shape=log.shape)


def gains_from_a_block(specs, traced, jit_compile):
    """Whether the loop over several steps should move from Python into the graph.

    Without XLA it does, as in fit. In an XLA program it does not on a CPU around convolutions,
    which XLA compiles to slower code there, with other last bits; nor with sparse, ragged or string
    data, from which XLA cannot gather.

    Args:
        specs: the `tf.TypeSpec`s of the data.
        traced: the `tf.Graph` of one step.
        jit_compile: whether the steps are compiled with XLA.
    """
    if not jit_compile:
        return True
    dense_specs = tf.TensorSpec, WidenedTensor.Spec
    dense = all(
        spec is None or (isinstance(spec, dense_specs) and spec.dtype != tf.string)
        for spec in tree.flatten(specs)
    )
    return dense and (
        on_gpu() or not any("Conv" in node.op for node in nodes_of(traced.as_graph_def()))
    )
