"""How a step is run: line by line, as a graph, as one XLA program; one batch a call or several.

A rung of this ladder changes when and where the lines of `steps.py` run, never what they compute:

    eager    Python runs every op of every batch. Slow, and a debugger can stop anywhere.
    graph    `tf.function` traces the step once; after that Python makes one call a batch.
    XLA      the traced step is compiled to one program: its ops are fused.
    block    `steps_per_execution` batches a call: Python is asked once for all of them, and with
             XLA the loop over them is part of the program.

Keras 3.15 has the same rungs (`keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer._make_function`, `make_predict_function`), always over a `tf.data` iterator. Here
batches of arrays come from a desk: see `desks.py`, and `calls.py` for what a call costs.
"""

import functools
import itertools

import keras
import tensorflow as tf

from manual_loop.data.arrays import Carried, Signature, Walk
from manual_loop.execution.bound import (
    STAGE_BYTES,
    BatchDesks,
    BlockDesks,
    empty_logs,
    gains_from_a_block,
    graph,
    run_stage,
)

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
        self._step = unwrapping(step)
        self._block = steps_per_execution
        self._run_eagerly = run_eagerly
        if run_eagerly:
            return
        step = graph(self._step, jit_compile)
        self._from_stream = stream_function(step, steps_per_execution, jit_compile)
        self._batches = BatchDesks(step)
        self._blocks = BlockDesks(step, steps_per_execution, jit_compile)
        self._gains = functools.cache(
            lambda desk: gains_from_a_block(desk.specs, desk.call.graph, jit_compile)
        )

    def __call__(self, iterator):
        """`logs`.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data end before the first batch of the
                block; a later end cuts the block short.
        """
        if self._run_eagerly:
            logs = self._step(next(iterator))
            for data in itertools.islice(iterator, self._block - 1):
                logs = self._step(data)
            return logs
        if isinstance(iterator, Walk):
            return self._from_arrays(iterator)
        return self._from_stream(iterator)

    def _from_arrays(self, walk):
        """From arrays on the device, which a `Walk` leads through."""
        batch = self._batches[walk.data.signature]
        if self._block > 1 and walk.order.full_batches and self._gains(batch):
            block = self._blocks[walk.data.signature]
            block.lay(walk)
            walk.advance(self._block)
            return block.call()
        batch.lay(walk)
        for at in walk.advance(self._block):
            logs = batch.call() if at < walk.order.full_batches else batch.call_partial()
        return logs

    def release(self):
        """Let go of the arrays that lie on the device."""
        if not self._run_eagerly:
            for desk in (*self._batches.values(), *self._blocks.values()):
                desk.clear()


def stream_function(step, steps_per_execution, jit_compile):
    """`iterator -> logs`, for batches from a `tf.data` iterator."""
    # a replica would run what it can of a step although its data have ended: a block looks first
    if steps_per_execution == 1 and not tf.distribute.has_strategy():
        return graph(lambda iterator: step(iterator.get_next()))
    block = graph(stream_block(step, steps_per_execution))
    staged = graph(staged_block(step, steps_per_execution))

    @functools.cache
    def stages(signature):
        return jit_compile and can_be_staged(step, *signature.specs)

    def function(iterator):
        signature = Signature((iterator.element_spec,))
        batches, logs = (staged if stages(signature) else block)(iterator)
        if batches == 0:
            raise StopIteration
        return logs

    return function


def stream_block(step, steps):
    """`iterator -> (batches, logs)`: up to `steps` batches, those that are there."""

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


def staged_block(step, steps):
    """As `stream_block`, but batches are staged, and the loop over a stage is one XLA program."""

    @functools.partial(graph, jit_compile=True)
    def run(stage, size):
        first = tree.map_structure(lambda batches: batches[0], stage)
        return run_stage(step, stage, size, empty_logs(step, first))

    def block(iterator):
        spec = iterator.element_spec
        bytes_ = sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in tree.flatten(spec))
        most = max(1, min(steps, STAGE_BYTES // bytes_))

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


def can_be_staged(step, spec):
    """Whether all batches have one shape that XLA can work on, and gain from a loop there."""
    leaves = tree.flatten(spec)
    if not all(
        isinstance(leaf, tf.TensorSpec) and leaf.shape.is_fully_defined() for leaf in leaves
    ):
        return False
    return gains_from_a_block(leaves, step.get_concrete_function(spec).graph, jit_compile=True)


def make_predict_function(step, *, run_eagerly, jit_compile, steps_per_execution):
    """A function of a list of batches that returns the model's outputs for all of them.

    Args: as in `StepFunction`; `step` is `data -> outputs`.
    """
    step = unwrapping(step)
    if jit_compile and not run_eagerly:
        step = graph(step, jit_compile=True)

    def function(batches):
        outputs = step(batches[0])
        for batch in batches[1:]:
            outputs = tree.map_structure(concatenate, outputs, step(batch))
        return outputs

    return function if run_eagerly else graph(function)


def unwrapping(step):
    """`step`, given batches as they come from the data.

    A generator's None comes as an empty `tf.experimental.Optional`; on a GPU, some dtypes come as
    `arrays.Carried`.
    """

    def unwrap(leaf):
        if isinstance(leaf, Carried):
            return tf.cast(leaf.values, leaf.dtype)
        return None if isinstance(leaf, tf.experimental.Optional) else leaf

    def unwrapped(data):
        return step(tree.map_structure(unwrap, data))

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
