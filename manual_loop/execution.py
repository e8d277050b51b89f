"""How a step is run: line by line, as a graph, as one XLA program; one batch a call or several.

A rung of this ladder changes when and where the lines of `steps.py` run, never what they compute:

    eager    Python runs every op of every batch. Slow, and a debugger can stop anywhere.
    graph    `tf.function` traces the step once; after that Python makes one call a batch.
    XLA      the traced step is compiled to one program: its ops are fused.
    block    `steps_per_execution` batches a call: Python is asked once for all of them, and with
             XLA the loop over them is part of the program.

Keras 3.15 has the same rungs (`keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer._make_function`, `make_predict_function`), always over a `tf.data` iterator. Here
arrays lie on the device, and a batch is taken from them inside the call, by the numbers of its
samples: that saves the iterator, which costs more than the arithmetic of a small step.
"""

import functools

import keras
import tensorflow as tf

from manual_loop.arrays import Walk, gather
from manual_loop.batches import take

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
    if run_eagerly:
        return lambda iterator: [step(data) for data in take(iterator, steps_per_execution)][-1]

    step = graph(step, jit_compile)
    from_arrays = arrays_function(step, jit_compile, steps_per_execution)
    from_stream = stream_function(step, steps_per_execution)
    return lambda it: from_arrays(it) if isinstance(it, Walk) else from_stream(it)


def arrays_function(step, jit_compile, steps_per_execution):
    """`make_function` for arrays on the device, which a `Walk` leads through."""
    batch = Traces(lambda arrays, indices: step(gather(arrays, indices)))
    block = Traces(array_block(step), jit_compile)
    gains = functools.cache(functools.partial(gains_from_a_block, jit_compile=jit_compile))

    def function(walk):
        data, order = walk.data, walk.order
        one_batch = batch[data.batch_signature]
        first, stop = walk.next_block(steps_per_execution)
        if steps_per_execution > 1 and gains(one_batch):
            numbers = tf.constant(first), tf.constant(stop)
            return block[data.block_signature](data.arrays, order.full, order.rest, *numbers)
        for indices in order.batches[first:stop]:
            logs = one_batch(data.arrays, indices)
        return logs

    return function


def stream_function(step, steps_per_execution):
    """`make_function` for batches from a `tf.data` iterator."""
    if steps_per_execution == 1:
        return graph(lambda iterator: step(iterator.get_next()))
    block = graph(stream_block(step, steps_per_execution))

    def function(iterator):
        batches, logs = block(iterator)
        if batches == 0:
            raise StopIteration
        return logs

    return function


def graph(function, jit_compile=False):
    """`tf.function`. Without autograph: it would rewrite the Python inside layers; fit does not."""
    return tf.function(function, jit_compile=jit_compile, reduce_retracing=True, autograph=False)


class Traces(dict):
    """The graphs of a function, one for each `arrays.Signature`: traced once, called directly."""

    def __init__(self, function, jit_compile=False):
        super().__init__()
        self._function = graph(function, jit_compile)

    def __missing__(self, signature):
        self[signature] = self._function.get_concrete_function(*signature.specs)
        return self[signature]


def gains_from_a_block(one_batch, jit_compile):
    """Whether the loop over a block of batches should move from Python into the graph.

    Not around convolutions on a CPU: inside a loop they are slower than the calls that it saves,
    and XLA compiles them to other code with other last bits. And XLA cannot take batches from
    sparse, ragged or string data.
    """
    dense = all(
        isinstance(spec, tf.TensorSpec) and spec.dtype != tf.string
        for spec in tree.flatten(one_batch.structured_input_signature)
    )
    if jit_compile and not dense:
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    definition = one_batch.graph.as_graph_def()
    functions = [function.node_def for function in definition.library.function]
    return not any("Conv" in node.op for nodes in (definition.node, *functions) for node in nodes)


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


def array_block(step):
    """`(arrays, full, rest, first, stop) -> logs`: the batches `first` to `stop` of a `Walk`."""

    def run(arrays, indices):
        return step(gather(arrays, indices))

    def block(arrays, full, rest, first, stop):
        full_batches = tf.shape(full)[0]
        _, logs = tf.while_loop(
            lambda i, _: i < tf.minimum(stop, full_batches),
            lambda i, _: (i + 1, run(arrays, tf.gather(full, i))),
            (first, empty_logs(graph(run), arrays, full[0])),
        )
        if rest is not None:  # the partial batch has a size of its own: a step of its own
            logs = tf.cond(stop > full_batches, lambda: run(arrays, rest), lambda: logs)
        return logs

    return block


def empty_logs(step, *specs):
    """Zeros in the shapes of a step's logs, for a loop in the graph to begin with."""
    logs = step.get_concrete_function(*specs).structured_outputs
    return tree.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)


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
