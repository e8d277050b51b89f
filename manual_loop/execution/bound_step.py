"""`BoundStep`: a traced step whose arguments are bound to variables, so that calling it takes none.

To bind arguments to a traced function takes Python longer than a small step takes to run. Here the
arrays, the samples of each batch and the number of the next batch are variables that the graph
reads; Python only calls. Nothing is copied when a variable is set to a tensor.
"""

import functools
from typing import Any

import tensorflow as tf

from manual_loop.data.resident import gather
from manual_loop.execution.dispatch import Dispatcher, is_small
from manual_loop.execution.graph import draws, empty, graph
from manual_loop.execution.multi_step import array_block, gains_from_a_block
from manual_loop.execution.steps_tuner import StepsTuner, can_be_joined


class BoundSteps(dict):
    """By the signature of a `ResidentDataset`: the `BoundStep` for it.

    Args:
        step: `data -> logs`, a `tf.function`.
        jit_compile: whether it is compiled with XLA.
        steps_per_execution: function without arguments: steps per call, asked at each trace.

    Attributes:
        traced_specs: list of the element specs that the step was traced with for `tf.data`
            iterators. fit has one function for both, so that for arrays, too, the batch size is
            open once there was another.
    """

    def __init__(self, step, jit_compile, steps_per_execution):
        super().__init__()
        self._step = step
        self._jit_compile = jit_compile
        self._steps_per_execution = steps_per_execution
        self.traced_specs: list[Any] = []

        @graph
        def one_step_on_arrays(arrays, indices):
            return step(gather(arrays, indices))

        self._one = one_step_on_arrays
        self._steps_of: dict[Any, int] = {}

    def of(self, dataset):
        """The `BoundStep` for a `ResidentDataset`, traced when the first one of its kind comes."""
        bound = self.get(dataset.signature)
        if bound is None:
            bound = self[dataset.signature] = self._make(dataset)
        return bound

    def _make(self, dataset):
        arrays, full, _ = dataset.specs
        indices = tf.TensorSpec(full.shape[1:], full.dtype)
        if any(_is_of_another_size(spec, arrays, indices) for spec in self.traced_specs):
            indices = tf.TensorSpec([None], full.dtype)
        # `tf.function` may return an earlier, more general graph, as it does in fit; with it come
        # the steps per call of that time
        one = self._one.get_concrete_function(arrays, indices)
        steps = self._steps_of.setdefault(one, self._steps_per_execution())
        if draws(one.graph):
            return UnboundStep(one, steps)
        if steps == 1 and not self._jit_compile and can_be_joined(one):
            return JoinedSteps(one, dataset, functools.partial(array_block, self._step))
        in_graph = steps > 1 and gains_from_a_block(dataset.specs, one.graph, self._jit_compile)
        block = array_block(self._step, steps, self._jit_compile) if in_graph else None
        return BoundStep(one, dataset, steps, block and graph(block, self._jit_compile))


def _is_of_another_size(spec, arrays, indices):
    """Whether an element spec differs from that of a batch of these arrays in its size alone."""
    parts = tf.nest.flatten(spec)
    if not all(isinstance(part, tf.TensorSpec) and part.shape.rank for part in parts):
        return False
    batch = graph(gather).get_concrete_function(arrays, tf.TensorSpec([None], tf.int64))
    own = tf.nest.map_structure(tf.type_spec_from_value, batch.structured_outputs)
    of_any_size = tf.nest.map_structure(
        lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), spec
    )
    return repr(own) == repr(of_any_size) and parts[0].shape[0] != indices.shape[0]


class UnboundStep:
    """A step whose ops draw random numbers: always called as the same function, so that it has one
    sequence of them for all batches, as in fit.

    Args:
        one, steps: see `BoundStep`.
    """

    def __init__(self, one, steps):
        self._one = one
        self._steps = steps

    def choose_steps(self, iterator, left):
        """See `BoundStep`."""
        return self._steps

    def __call__(self, iterator):
        """See `BoundStep`."""
        dataset, (full, partial) = iterator.dataset, iterator.indices
        for number in iterator.advance(self._steps):
            indices = tf.gather(full, number) if number < dataset.full_batches else partial
            logs = self._one(dataset.arrays, indices)
        return logs

    def release(self):
        """Nothing is bound."""


class BoundStep:
    """A step on the arrays of any dataset of one signature.

    Args:
        one: `(arrays, indices) -> logs`, a `ConcreteFunction`: the step on one batch.
        dataset: a `ResidentDataset`, for its specs.
        steps: how many a call runs.
        block: `(arrays, full, partial, at) -> logs`: all these steps in one graph; None to loop
            over them in Python.
    """

    def __init__(self, one, dataset, steps, block):
        self._one = one
        self._steps = steps
        self._block = block
        self._specs = arrays, full, partial = dataset.specs
        # an open batch size stays open here: Grappler would fold a known one, and round differently
        (_, indices), _ = one.structured_input_signature
        full = tf.TensorSpec([None, *indices.shape], full.dtype)
        self._variables: list[Any] = [
            None if spec is None else tf.Variable(empty(spec), shape=spec.shape, trainable=False)
            for spec in tf.nest.flatten((arrays, full, partial), expand_composites=True)
        ]
        self._position = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._is_small = is_small(one, dataset.batch_size)
        self._iterator: Any = None
        self._values: list[Any] = [None] * len(self._variables)

    def choose_steps(self, iterator, left):
        """How many of the batches left in an epoch the next call takes."""
        return self._steps

    def __call__(self, iterator):
        """Run the next steps of an `ArrayIterator`; returns the logs of the last one.

        Raises:
            StopIteration: the epoch has ended.
        """
        self.bind(iterator)
        numbers = iterator.advance(self._steps)
        if self._block is not None and iterator.dataset.full_batches:
            return self._run_block()
        for number in numbers:
            logs = self._run(number)
        return logs

    def _run(self, number):
        """Run the step on one batch, whose number is bound."""
        is_full = number < self._iterator.dataset.full_batches
        return self._run_full() if is_full else self._run_partial()

    @functools.cached_property
    def _run_full(self):
        one = self._one
        return self._without_arguments(
            lambda arrays, full, _, at: one(arrays, tf.gather(full, at)), 1
        )

    @functools.cached_property
    def _run_partial(self):
        one = self._one
        return self._without_arguments(lambda arrays, _, partial, __: one(arrays, partial), 1)

    @functools.cached_property
    def _run_block(self):
        block = self._block.get_concrete_function(*self._specs, tf.TensorSpec([], tf.int64))
        return self._without_arguments(block, self._steps)

    def _without_arguments(self, function, steps):
        """A `Dispatcher` of `(arrays, full, partial, at) -> logs`, which reads the variables."""

        def call():
            values = [None if v is None else v.read_value() for v in self._variables]
            arguments = tf.nest.pack_sequence_as(self._specs, values, expand_composites=True)
            logs = function(*arguments, self._position.read_value())
            with tf.control_dependencies(tf.nest.flatten(logs)):  # only if nothing failed
                self._position.assign_add(steps)
            return logs

        return Dispatcher(graph(call).get_concrete_function(), self._is_small)

    def bind(self, iterator):
        """Bind the tensors of an `ArrayIterator`, unless they are bound, and its position."""
        if iterator is self._iterator:
            return
        bound = (iterator.dataset.arrays, *iterator.indices)
        values = tf.nest.flatten(bound, expand_composites=True)
        for variable, old, new in zip(self._variables, self._values, values, strict=True):
            if new is not old:
                variable.assign(new)
        self._position.assign(iterator.position)
        self._iterator, self._values = iterator, values

    def release(self):
        """Release the tensors, so that their memory is free."""
        for variable in self._variables:
            if variable is not None:
                variable.assign(empty(variable))
        self._iterator = None
        self._values = [None] * len(self._variables)


class JoinedSteps(BoundStep):
    """Single steps, of which a call runs several where nobody can tell: see `steps_tuner.py`.

    Args:
        one, dataset: see `BoundStep`.
        block: `steps -> block`, for which see `BoundStep`.
    """

    def __init__(self, one, dataset, block):
        self._joined = tf.Variable(0, dtype=tf.int64, trainable=False)  # steps of a block
        super().__init__(one, dataset, self._joined, graph(block(self._joined)))
        self._tuner = StepsTuner()
        self._last_joined = 0

    def choose_steps(self, iterator, left):
        """See `BoundStep`. The next call for this iterator follows it."""
        left = min(left, iterator.dataset.num_batches - iterator.position)
        joined = self._tuner.steps(left) if iterator.dataset.full_batches else 1
        iterator.chosen_steps = joined
        return joined

    def __call__(self, iterator):
        """See `BoundStep`: one step, or as many as were chosen."""
        self.bind(iterator)
        steps, iterator.chosen_steps = iterator.chosen_steps, None
        numbers = iterator.advance(steps or 1)
        if steps is None:
            return self._run(numbers[0])
        with self._tuner.timed(steps):
            if steps == 1:
                return self._run(numbers[0])
            if steps != self._last_joined:
                self._joined.assign(steps)
                self._last_joined = steps
            return self._run_block()
