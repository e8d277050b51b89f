"""How a step is run: line by line, as a graph, as one XLA program; one batch a call or several.

A rung of this ladder changes when and where the lines of `steps.py` run, never what they compute:

    eager    Python runs every op of every batch. Slow, and a debugger can stop anywhere.
    graph    `tf.function` traces the step once; after that Python makes one call a batch.
    XLA      the traced step is compiled to one program: its ops are fused.
    block    `steps_per_execution` batches a call: Python is asked once for all of them, and with
             XLA the loop over them is part of the program.

Keras 3.15 has the same rungs (`keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer._make_function`, `make_predict_function`), always over a `tf.data` iterator. Here
batches of arrays come from a desk: see `desks.py`.
"""

import functools

import keras
import tensorflow as tf

from manual_loop.arrays import Walk
from manual_loop.batches import take
from manual_loop.desks import BatchDesks, BlockDesks, empty_logs, gains_from_a_block, graph

tree = keras.tree


class StepFunction:
    """A function of an iterator that takes the next block of batches and returns its last logs.

    Args:
        step: `data -> logs`, one batch.
        run_eagerly: no graph.
        jit_compile: compile the step with XLA.
        steps_per_execution: batches a call, at least 1.
    """

    def __init__(self, step, *, run_eagerly, jit_compile, steps_per_execution):
        self._step = without_optionals(step)
        self._block = steps_per_execution
        self._run_eagerly = run_eagerly
        if run_eagerly:
            return
        step = graph(self._step, jit_compile)
        self._from_stream = stream_function(step, steps_per_execution)
        self._batches = BatchDesks(step)
        self._blocks = BlockDesks(step, steps_per_execution, jit_compile)
        self._gains = functools.cache(
            functools.partial(gains_from_a_block, jit_compile=jit_compile)
        )

    def __call__(self, iterator):
        """`logs`.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data end before the first batch of the
                block; a later end cuts the block short.
        """
        if self._run_eagerly:
            return [self._step(data) for data in take(iterator, self._block)][-1]
        if isinstance(iterator, Walk):
            return self._from_arrays(iterator)
        return self._from_stream(iterator)

    def _from_arrays(self, walk):
        """From arrays on the device, which a `Walk` leads through."""
        batch = self._batches[walk.data.batch_signature]
        if self._block > 1 and self._gains(batch):
            block = self._blocks[walk.data.block_signature]
            block.lay(walk, Walk.in_blocks)
            walk.advance(self._block)
            return block.call()
        batch.lay(walk, Walk.in_batches)
        for _ in range(walk.advance(self._block)):
            logs = batch.call()
        return logs

    def release(self):
        """Let go of the arrays that lie on the device."""
        if not self._run_eagerly:
            for desk in (*self._batches.values(), *self._blocks.values()):
                desk.clear()


def stream_function(step, steps_per_execution):
    """`iterator -> logs`, for batches from a `tf.data` iterator."""
    if steps_per_execution == 1:
        return graph(lambda iterator: step(iterator.get_next()))
    block = graph(stream_block(step, steps_per_execution))

    def function(iterator):
        batches, logs = block(iterator)
        if batches == 0:
            raise StopIteration
        return logs

    return function


def stream_block(step, steps):
    """`iterator -> (batches, logs)`: up to `steps` batches, those that are there."""

    def block(iterator):
        def another(batches, logs, _):
            batch = iterator.get_next_as_optional()
            more = batch.has_value()
            logs = tf.cond(more, lambda: step(batch.get_value()), lambda: logs)
            return batches + tf.cast(more, tf.int32), logs, more

        batches, logs, _ = tf.while_loop(
            lambda batches, _, more: tf.logical_and(batches < steps, more),
            another,
            (tf.constant(0), empty_logs(step, iterator.element_spec), tf.constant(True)),
        )
        return batches, logs

    return block


def make_predict_function(step, *, run_eagerly, jit_compile, steps_per_execution):
    """A function of a list of batches that returns the model's outputs for all of them.

    Args: as in `make_function`; `step` is `data -> outputs`.
    """
    step = without_optionals(step)
    if jit_compile and not run_eagerly:
        step = graph(step, jit_compile=True)

    def function(batches):
        outputs = step(batches[0])
        for batch in batches[1:]:
            outputs = tree.map_structure(concatenate, outputs, step(batch))
        return outputs

    return function if run_eagerly else graph(function)


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
