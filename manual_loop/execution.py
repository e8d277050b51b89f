"""How a step is run: line by line, as a graph, as one XLA program; one batch a call or several.

A rung of this ladder changes when and where the lines of `steps.py` run, never what they compute:

    eager    Python runs every op of every batch. Slow, and a debugger can stop anywhere.
    graph    `tf.function` traces the step once; after that Python makes one call a batch.
    XLA      the traced step is compiled to one program: its ops are fused.
    block    `steps_per_execution` batches a call: Python is asked once for all of them.

The shape of these functions follows `keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer._make_function` and `make_predict_function` (Keras 3.15): the step is a function
of its own inside the one that takes the batch, and only the step is compiled by XLA.
"""

import keras
import tensorflow as tf

tree = keras.tree


def make_function(step, *, run_eagerly, jit_compile, steps_per_execution):
    """A function of an iterator that takes the next block of batches and returns its last logs.

    Args:
        step: `data -> logs`, one batch.
        run_eagerly: no graph.
        jit_compile: compile the step with XLA.
        steps_per_execution: batches a call, at least 1.

    Returns:
        `iterator -> logs`. It raises StopIteration or `tf.errors.OutOfRangeError` where the data
        end before the first batch of the block; a later end cuts the block short.
    """
    step = without_optionals(step)
    if not run_eagerly:
        # autograph would rewrite Python `if` and `for` inside layers, which fit does not do
        step = tf.function(step, jit_compile=jit_compile, reduce_retracing=True, autograph=False)

    def one_batch(iterator):
        return step(iterator.get_next())

    def block(iterator):
        def another(i, logs, _):
            batch = iterator.get_next_as_optional()
            more = batch.has_value()
            logs = tf.cond(more, lambda: step(batch.get_value()), lambda: logs)
            return i + 1, logs, more

        _, logs, _ = tf.while_loop(
            lambda i, _, more: tf.logical_and(i < steps_per_execution, more),
            another,
            (tf.constant(1), one_batch(iterator), tf.constant(True)),
        )
        return logs

    function = one_batch if steps_per_execution == 1 else block
    if run_eagerly:
        return function
    return tf.function(function, reduce_retracing=True, autograph=False)


def make_predict_function(step, *, run_eagerly, jit_compile, steps_per_execution):
    """A function of a list of batches that returns the model's outputs for all of them.

    Args: as in `make_function`; `step` is `data -> outputs`.
    """
    step = without_optionals(step)
    if jit_compile and not run_eagerly:
        step = tf.function(step, jit_compile=True, reduce_retracing=True, autograph=False)

    def function(batches):
        outputs = step(batches[0])
        for batch in batches[1:]:
            outputs = tree.map_structure(concatenate, outputs, step(batch))
        return outputs

    if run_eagerly:
        return function
    return tf.function(function, reduce_retracing=True, autograph=False)


def without_optionals(step):
    """A generator's None arrives as an empty `tf.experimental.Optional`: make it None again."""

    def unwrapped(data):
        return step(
            tree.map_structure(
                lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, data
            )
        )

    return unwrapped


def concatenate(*outputs):
    """Outputs of several batches, one after the other on axis 0; scalars are stacked."""
    first = outputs[0]
    if isinstance(first, tf.SparseTensor):
        return tf.sparse.concat(axis=0, sp_inputs=list(outputs))
    if first.shape.rank == 0:
        return tf.stack(outputs)
    if isinstance(first, tf.Tensor) and len({tuple(part.shape[1:]) for part in outputs}) > 1:
        outputs = _as_ragged(outputs)
    return tf.concat(outputs, axis=0)


def concatenate_all(outputs):
    """The outputs of all calls as NumPy arrays; ragged and sparse ones stay tensors.

    Args:
        outputs: list of what the predict function returned, a call each.
    """

    def join(*parts):
        joined = parts[0] if len(parts) == 1 else concatenate(*parts)
        return joined.numpy() if isinstance(joined, tf.Tensor) else joined

    return tree.map_structure(join, *outputs)


def _as_ragged(outputs):
    """Batches that differ in more than their size (sequences, say) as ragged tensors."""
    shapes = [part.shape.as_list() for part in outputs]
    varying = [axis for axis in range(1, len(shapes[0])) if len({s[axis] for s in shapes}) > 1]
    return [tf.RaggedTensor.from_tensor(part, ragged_rank=max(varying)) for part in outputs]
