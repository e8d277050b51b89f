"""`BoundPrediction`: the model's outputs for batches of arrays, by a call without arguments.

`fit` and `evaluate` take their batches from a `tf.data` iterator inside the graph. `predict` takes
them outside and hands them to its function as tensors
(`keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.predict`, Keras 3.15), so that
`tf.function` knows the size of a batch when it traces. TensorFlow optimizes a graph with a known
size differently: a step that is bound here is traced with the size that `predict` would know.
"""

import functools

import keras
import tensorflow as tf

from manual_loop.data.resident import gather
from manual_loop.execution.bound_step import JoinedSteps
from manual_loop.execution.graph import draws, graph
from manual_loop.execution.steps_tuner import can_be_joined

tree = keras.tree


class BoundPredictions:
    """A `BoundPrediction` for each kind of `ResidentDataset`.

    Args:
        predict: `list of one batch -> outputs`, the `tf.function` that `predict` would call.
        jit_compile: whether its step is compiled with XLA.
    """

    def __init__(self, predict, jit_compile):
        self._predict = predict
        self._jit_compile = jit_compile
        self._made = {}

    def of(self, dataset):
        """The `BoundPrediction` for a dataset, traced when the first one of its kind comes.

        None where nothing is bound: for data without a full batch, for steps that draw random
        numbers of their own, since these have one sequence for all batches, and for outputs that
        are not dense.
        """
        if not dataset.full_batches:
            return None
        kind = dataset.signature, dataset.batch_size, dataset.rest
        if kind not in self._made:
            self._made[kind] = self._make(dataset)
        return self._made[kind]

    def _make(self, dataset):
        full = self._traced(dataset, dataset.batch_size)
        outputs = tf.nest.flatten(full.structured_outputs)
        if draws(full.graph) or not all(isinstance(output, tf.Tensor) for output in outputs):
            return None
        shapes = [output.shape for output in outputs]
        alike = all(shape.rank and shape.is_fully_defined() for shape in shapes)
        joins = alike and not self._jit_compile and can_be_joined(full)
        partial = functools.partial(self._traced, dataset, dataset.rest)
        return BoundPrediction(full, partial, dataset, joins)

    def _traced(self, dataset, size):
        """`(arrays, indices) -> outputs` for batches of this size, a `ConcreteFunction`."""
        arrays, *_ = dataset.specs
        samples = tf.TensorSpec([size], tf.int64)
        batch = graph(gather).get_concrete_function(arrays, samples).structured_outputs
        specs = tree.map_structure(tf.type_spec_from_value, batch)
        # with `reduce_retracing`, a second size leaves the size open for all that come later
        predict = self._predict.get_concrete_function([specs])
        known = predict.inputs[0].shape[0] is not None
        indices = samples if known else tf.TensorSpec([None], tf.int64)

        def outputs_for(arrays, indices):
            return self._predict([gather(arrays, indices)])

        return graph(outputs_for).get_concrete_function(arrays, indices)

    def release(self):
        """Release the arrays that the steps have bound."""
        for bound in self._made.values():
            if bound is not None:
                bound.release()


class BoundPrediction(JoinedSteps):
    """A `BoundStep` that returns the outputs of all its steps, batch by batch on axis 0.

    Args:
        full: `(arrays, indices) -> outputs` for full batches, a `ConcreteFunction`.
        partial: function without arguments: the same for the partial batch.
        dataset: a `ResidentDataset`, for its specs.
        joins: whether a call may run several steps; never the partial batch among them.
    """

    def __init__(self, full, partial, dataset, joins):
        super().__init__(full, dataset, functools.partial(outputs_block, full))
        self._partial = partial
        self._joins = joins

    def choose_steps(self, iterator, left):
        """See `BoundStep`."""
        joinable = iterator.dataset.full_batches - iterator.position if self._joins else 1
        return super().choose_steps(iterator, min(left, max(joinable, 1)))

    @functools.cached_property
    def _run_partial(self):
        one = self._partial()
        size, *_ = one.structured_input_signature[0][1].shape

        def call(arrays, _, partial, __):
            partial.set_shape([size])
            return one(arrays, partial)

        return self._without_arguments(call, 1)


def outputs_block(step, steps):
    """`(arrays, full, partial, at) -> outputs` of `steps` full batches from number `at` on.

    Args:
        step: `(arrays, indices) -> outputs`, a `ConcreteFunction`; dense tensors of known shapes.
        steps: a variable.
    """

    def block(arrays, full, partial, at):
        specs = tree.map_structure(tf.type_spec_from_value, step.structured_outputs)
        each = tf.map_fn(
            lambda number: step(arrays, tf.gather(full, number)),
            at + tf.range(steps),
            parallel_iterations=1,
            fn_output_signature=specs,
        )
        return tree.map_structure(
            lambda outputs: tf.reshape(outputs, [-1, *outputs.shape[2:]]), each
        )

    return block
