"""How a step is run: eagerly, as a graph, as one XLA program; one or several steps per call.

An execution mode changes when and where the lines of `steps.py` run, never what they compute:

    eager                Python runs every op of every batch: slow; a debugger can stop anywhere.
    graph                `tf.function` traces the step once; then Python makes one call per step.
    XLA                  the traced step is compiled to one program: its ops are fused.
    steps_per_execution  Python makes one call for several steps; with XLA, the loop over them is
                         part of the program.

Keras 3.15 has the same modes (`keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer._make_function`, `make_predict_function`), always over a `tf.data` iterator. Here
arrays stay on the device: see `bound_step.py`.
"""

import contextlib
import itertools

import keras
import tensorflow as tf

from manual_loop.data.resident import ArrayIterator
from manual_loop.execution import xla_stages
from manual_loop.execution.bound_prediction import BoundPredictions
from manual_loop.execution.bound_step import BoundSteps
from manual_loop.execution.graph import graph, on_plain_tensors
from manual_loop.execution.multi_step import empty_logs, gains_from_a_block, stream_block
from manual_loop.keras_version import RETURNS_FLOATS

tree = keras.tree


class StepFunction:
    """A function of an iterator: it runs the next steps and returns the logs of the last one.

    Args:
        step: `data -> logs`, one batch.
        run_eagerly: no graph.
        jit_compile: compile the step with XLA.
        steps_per_execution: function without arguments: steps per call. A traced graph keeps the
            number that it was traced with, as in fit.
        looks_ahead: take a batch only if there is one. Otherwise, as in fit, a graph that takes one
            batch per call runs what needs no batch once more at the end of the data.
    """

    def __init__(self, step, *, run_eagerly, jit_compile, steps_per_execution, looks_ahead=False):
        self._step = on_plain_tensors(step)
        self._run_eagerly = run_eagerly
        self._steps = steps_per_execution
        if run_eagerly:
            return
        self._traced = graph(self._step, jit_compile)
        self._jit_compile = jit_compile
        self._looks_ahead = looks_ahead
        self._on_stream = graph(self._next_steps)
        self._on_arrays = BoundSteps(self._traced, jit_compile, steps_per_execution)

    def __call__(self, iterator):
        """`logs`.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data end before the first step; if they
                end after it, fewer steps are run.
        """
        if self._run_eagerly:
            further = itertools.islice(iterator, self._steps() - 1)
            logs = self._step(next(iterator))
            for data in further:
                logs = self._step(data)
            # where they may be floats, what comes out of fit's function of an iterator is tensors
            return logs if RETURNS_FLOATS else tree.map_structure(tf.convert_to_tensor, logs)
        if isinstance(iterator, ArrayIterator):
            return self._on_arrays.of(iterator.dataset)(iterator)
        batches, logs = self._on_stream(iterator)
        if batches is not None and batches == 0:
            raise StopIteration
        return logs

    def choose_steps(self, iterator, left):
        """How many of the steps left in an epoch the next call runs, where nobody can tell.

        Args:
            iterator: that the call will be given.
            left: how many.
        """
        if isinstance(iterator, ArrayIterator) and not self._run_eagerly:
            return self._on_arrays.of(iterator.dataset).choose_steps(iterator, left)
        return self._steps()

    def run_on_batch(self, data):
        """The logs of one step, on arrays or tensors that come from no iterator."""
        return self._step(data) if self._run_eagerly else self._traced(data)

    def _next_steps(self, iterator):
        """The next steps on a `tf.data` iterator, while tracing: how many they were, and logs."""
        step, steps, spec = self._traced, self._steps(), iterator.element_spec
        self._on_arrays.traced_specs.append(spec)
        if steps == 1 and not self._looks_ahead:
            return None, step(iterator.get_next())
        if self._jit_compile and xla_stages.can_be_staged(spec):
            traced = step.get_concrete_function(spec).graph
            if gains_from_a_block(spec, traced, jit_compile=True):
                return xla_stages.stream_block(step, steps, empty_logs)(iterator)
        return stream_block(step, steps)(iterator)

    def release(self):
        """Release the arrays that the calls have bound."""
        if not self._run_eagerly:
            for bound in self._on_arrays.values():
                bound.release()


class PredictFunction:
    """A function of an iterator: the model's outputs for the next batches, one after the other.

    Args: as in `StepFunction`; `step` is `data -> outputs`. Made for one step per call, the
        function ignores all batches but the first, as in fit.
    """

    def __init__(self, step, *, run_eagerly, jit_compile, steps_per_execution):
        step = on_plain_tensors(step)
        if jit_compile and not run_eagerly:
            step = graph(step, jit_compile=True)
        self._steps = steps_per_execution
        several = steps_per_execution() > 1

        def run(batches):
            outputs = step(batches[0])
            for batch in batches[1:] if several else ():
                outputs = tree.map_structure(concatenate, outputs, step(batch))
            return outputs

        self._run = run if run_eagerly else graph(run)
        binds = not run_eagerly and not several
        self._on_arrays = BoundPredictions(self._run, jit_compile) if binds else None

    def __call__(self, iterator):
        """The outputs, batch by batch on axis 0.

        Raises:
            StopIteration: the data end before the first step.
        """
        bound = self._bound(iterator)
        return bound(iterator) if bound else self._run(take(iterator, self._steps()))

    def choose_steps(self, iterator, left):
        """See `StepFunction`."""
        bound = self._bound(iterator)
        return bound.choose_steps(iterator, left) if bound else self._steps()

    def run_on_batch(self, data):
        """The outputs for one batch of arrays or tensors."""
        return self._run([data])

    def _bound(self, iterator):
        """The `BoundPrediction` for one batch of arrays per call; None where there is none."""
        if self._on_arrays is None or not isinstance(iterator, ArrayIterator):
            return None
        return self._on_arrays.of(iterator.dataset) if self._steps() == 1 else None

    def release(self):
        """Release the arrays that the calls have bound."""
        if self._on_arrays is not None:
            self._on_arrays.release()


@contextlib.contextmanager
def released(functions):
    """Around the steps of `fit`: afterwards, also after an error, no graph holds the data.

    Args:
        functions: dict, whose values are `StepFunction`s or `PredictFunction`s when the block ends.
    """
    try:
        yield
    finally:
        for function in functions.values():
            function.release()


def take(iterator, count):
    """A list of the next `count` batches, or of those that are left.

    Raises:
        StopIteration: there is none.
    """
    batches = [next(iterator)]
    batches.extend(itertools.islice(iterator, count - 1))
    return batches


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
        outputs: list of what the predict function returned, one for each call.
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
