"""Replicas: the same step on several devices, each with its share of the batch.

Under `tf.distribute.MirroredStrategy` every device holds a copy of the weights. A step goes like
this: the batch is cut into one part a replica, each replica computes the gradients of its own part,
the gradients are added up over all replicas, and every copy is updated by the same sum. For the sum
to be the gradient of the batch's mean loss, each replica contributes its mean divided by the number
of replicas (`compiled/scaling.py`).

Three things that surprise:

1. The mean of means is the mean only where all parts have one size. The samples of a partial last
   batch that leaves a replica short weigh more than others.
2. Metrics are added up when they are read. What a step returns is the mean over the replicas of
   what each has seen alone; only the logs of the epoch are those of all samples.
3. `BatchNormalization` normalizes with the statistics of a replica's part, not of the batch, unless
   it is `synchronized`, and each replica has moving averages of its own. The first one's are saved.

Fit itself cannot do all of this: `FAILS` in
`tests/manual_loop/distribution/test_replicas.py` lists what fails, and how.

(`keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer._make_function`,
`_maybe_symbolic_build`, `reduce_per_replica`; `keras/src/losses/loss.py`,
`scale_loss_for_distribution`; Keras 3.15.)
"""

import functools

import keras
import tensorflow as tf

from manual_loop.compiled.overrides import own_method, own_step
from manual_loop.distribution.single_device import OUTSIDE, SingleDevice
from manual_loop.execution.graph import graph, on_plain_tensors
from manual_loop.execution.step_function import (
    PredictFunction,
    StepFunction,
    concatenate,
)
from manual_loop.steps import forward, predict_step, sample_count, test_step, train_step

tree = keras.tree
is_finite = tf.math.is_finite


class Replicas(SingleDevice):
    """Training on several devices of this process.

    Args:
        strategy: a `tf.distribute.Strategy`.
    """

    keeps_arrays_on_device = False
    takes_a_first_batch = True
    resumes_within_epochs = False

    def __init__(self, strategy):
        self.strategy = strategy
        self._built = []  # configurations

    def scope(self):
        """See `SingleDevice`."""
        return self.strategy.scope()

    def distribute(self, batches, batch_size):
        """See `SingleDevice`: batches that come as one part for each replica, cut as fit cuts them.

        Raises:
            ValueError: there are more replicas than samples in a batch.
        """
        least = self.strategy.num_replicas_in_sync
        if batch_size is not None and batch_size < least:
            raise ValueError(
                f"A batch of {batch_size} cannot be divided among {least} replicas. `batch_size` "
                f"is the global batch size: it must be at least {least}."
            )
        return self.strategy.experimental_distribute_dataset(batches)

    def build(self, model, configuration, batches):
        """See `SingleDevice`. Each variable gets a copy on every replica.

        While a step is traced for all replicas it is too late: the first would create what the
        others then find. So the steps are traced once for none, and nothing is run.

        Raises:
            ValueError: the model, a metric or the optimizer was built outside the strategy's scope.
        """
        if self.strategy is not strategy_of(model):
            raise ValueError(OUTSIDE)
        if configuration in self._built:
            return
        steps = [functools.partial(predict_step, model)]
        if configuration is not None:
            steps.append(functools.partial(resolve, model, configuration))
        if is_built_by_itself(model, configuration):
            steps = []
        with self.scope():
            for step in steps:
                with keras.StatelessScope([(v, v) for v in model.variables]):  # for regularizers
                    graph(on_plain_tensors(step)).get_concrete_function(batches.element_spec)
        self._assert_in_scope("model", model.variables)
        if configuration is not None:
            self._assert_in_scope("metric", model.metrics_variables)
            optimizer = model.optimizer
            if optimizer is not None:
                self._assert_in_scope("optimizer", optimizer.variables)
                with self.scope():
                    if not optimizer.built:
                        optimizer.build(model.trainable_variables)
        self._built.append(configuration)

    def _assert_in_scope(self, owner, variables):
        for variable in variables:
            if not self.strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f"The {owner} was built outside the strategy's scope: `{variable.path}` has no "
                    f"copy on each replica. Build the {owner} under `with strategy.scope():`."
                )

    def train_function(self, model, configuration, *, jit_compile, **how):
        """See `SingleDevice`. XLA compiles what comes before the update.

        Raises:
            ValueError: XLA is asked for, and the model has a `train_step` of its own.
        """
        step = own_step(model, "train_step")
        if step and jit_compile:
            raise ValueError(
                "The model's own `train_step` cannot be compiled by XLA on several replicas: a "
                "program for one device cannot wait for the gradients of the others. Compile the "
                "model with `jit_compile=False`."
            )
        if step:
            return self._step_function(step, looks_ahead=False, **how)
        return self._step_function(step_in_two(model, configuration, jit_compile), **how)

    def test_function(self, model, configuration, *, jit_compile, **how):
        """See `SingleDevice`."""
        own = own_step(model, "test_step")
        step = own or test_step_of(model, configuration)
        step = compiled(step) if jit_compile else step
        return self._step_function(step, looks_ahead=own is None, **how)

    def _step_function(self, step, looks_ahead=True, **how):
        step = self.on_replicas(self.with_all_logs(step), lambda logs: tf.reduce_mean(logs, axis=0))
        # Without looking ahead, a replica runs what it can of a step after its data have ended. So
        # does the model's own step, as in fit: looking ahead hides the batch size from the graph,
        # which may then round differently.
        return StepFunction(step, jit_compile=False, looks_ahead=looks_ahead, **how)

    def predict_function(self, model, _, *, jit_compile, **how):
        """See `SingleDevice`."""
        step = own_method(model, "predict_step") or functools.partial(predict_step, model)
        step = self.with_all_outputs(compiled(step) if jit_compile else step)
        return PredictFunction(step, jit_compile=False, **how)

    def with_all_logs(self, step):
        """`data -> logs` on one replica, with the logs of other processes averaged in."""
        return step

    def with_all_outputs(self, step):
        """`data -> outputs` on one replica, as `data -> outputs` of all."""
        return self.on_replicas(step, lambda outputs: concatenate(*outputs))

    def on_replicas(self, step, combine):
        """A step on all replicas: `data -> outputs`, of data from `distribute`.

        Args:
            step: `data -> outputs` on one replica.
            combine: makes one tensor of a tuple with one from each replica.
        """
        strategy = self.strategy

        def step_on_replicas(data):
            outputs = strategy.run(step, args=(data,))
            return tree.map_structure(
                lambda leaf: combine(strategy.experimental_local_results(leaf)), outputs
            )

        return step_on_replicas


@functools.cache
def mirrored_strategy(replicas):
    """The `tf.distribute.MirroredStrategy` over GPUs or, on a machine without one, logical CPUs.

    The same one each time: the sums over replicas of two strategies in one process would be taken
    for each other (their collective operations count from the same number).

    Args:
        replicas: how many devices.

    Raises:
        ValueError: there are fewer.
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if not 1 <= replicas <= len(devices):
        raise ValueError(
            f"`replicas` must be from 1 to {len(devices)}, the number of {kind}s TensorFlow sees. "
            f"Received: {replicas}. One {kind} can be divided into several by "
            "`tf.config.set_logical_device_configuration`, before anything runs on it."
        )
    return tf.distribute.MirroredStrategy(devices[:replicas])


def strategy_of(model):
    """The strategy that a model is trained under; None if there is none.

    It is that of the scope in which the model was built, or else that of the scope we are in.
    """
    strategy = model.distribute_strategy
    with strategy.scope():
        return strategy if tf.distribute.has_strategy() else None


def is_built_by_itself(model, configuration):
    """Whether a model with a step of its own, such as a GAN, is complete without being called."""
    if configuration is not None and (configuration.has_loss or configuration.has_metrics):
        return False
    is_built = all(layer.built for layer in (model, *model.layers))
    return own_method(model, "train_step") is not None and is_built


def resolve(model, configuration, data):
    """Compute loss and metrics of `compile` on one batch, as far as there are any."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    y_pred = forward(model, x, training=False)
    loss, metrics = configuration.of_batch(data, training=False)
    if configuration.has_loss:
        loss(y, y_pred, sample_weight, model.losses)
    if configuration.has_metrics:
        metrics.update_state(y, y_pred, sample_weight)


def test_step_of(model, configuration):
    """`data -> logs`: `steps.test_step`, on a replica that may be given no samples."""

    def step(data):
        loss, metrics = configuration.of_batch(data, training=False)
        return test_step(model, zero_if_empty(loss, data), metrics, data)

    return step


def compiled(step):
    """`step` as one XLA program on each replica.

    A function of its own: `strategy.run` would take a `tf.function` apart and compile the step of
    all replicas as one, which is more than one device.
    """
    program = graph(step, jit_compile=True)
    return lambda data: program(data)


def step_in_two(model, configuration, jit_compile):
    """`data -> logs`: `steps.train_step` on one replica, the update apart from what precedes it.

    The update begins with the sum of the gradients over all replicas, for which they have to wait
    for each other. A program that XLA compiled for one device cannot wait for another, so it ends
    before.

    A replica without samples takes part in the sum all the same. A mean over no samples is NaN, and
    so is what is computed from it: such a loss and such a gradient count as 0, and such a moving
    average stays what it was.

    Args:
        model: the model.
        configuration: its `compiled.configuration.Configuration`.
        jit_compile: compile what precedes the update with XLA.
    """

    def differentiate(data):
        optimizer = Gradients(model.optimizer)
        loss, metrics = configuration.of_batch(data, training=True)
        logs = train_step(model, optimizer, zero_if_empty(loss, data), metrics, data)
        return optimizer.found, logs

    if jit_compile:
        differentiate = compiled(differentiate)

    def step(data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        size = sample_count(x)
        may_be_empty = not tf.get_static_value(size)
        averages = [v for v in model.non_trainable_weights if is_own(v)] if may_be_empty else []
        before = [tf.identity(average.value) for average in averages]
        gradients, logs = differentiate(data)
        if may_be_empty:
            tf.cond(size > 0, lambda: None, lambda: mend(averages, before))
            gradients = map_parts(lambda p: tf.where((size > 0) | is_finite(p), p, 0), gradients)
        if gradients:
            optimizer = model.optimizer
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                gradients = finite_everywhere(gradients)
            optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return logs

    return step


def zero_if_empty(loss_fn, data):
    """`loss_fn`, with 0 for a NaN that is the mean loss of no samples."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    size = sample_count(x)
    if tf.get_static_value(size):
        return loss_fn

    def guarded(*args):
        loss = loss_fn(*args)
        return tf.where((size > 0) | is_finite(loss), loss, tf.zeros_like(loss))

    return guarded


def finite_everywhere(gradients):
    """Gradients that are finite on all replicas, or NaN on all.

    A `LossScaleOptimizer` leaves out a step where gradients overflow, but looks at those of the
    first replica alone (`loss_scale_optimizer.py`, `_tf_apply`).
    """
    finite: list = []
    map_parts(lambda part: finite.append(tf.reduce_all(is_finite(part))), gradients)
    overflow = tf.cast(~tf.reduce_all(finite), tf.float32)
    context = tf.distribute.get_replica_context()
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, overflow)
    return map_parts(lambda part: tf.where(overflows == 0, part, float("nan")), gradients)


def map_parts(function, gradients):
    """The gradients with `function` of their values; sparse ones have indices too."""
    return tf.nest.map_structure(
        lambda part: part if part is None or part.dtype.is_integer else function(part),
        gradients,
        expand_composites=True,
    )


def is_own(variable):
    """Whether each replica has a value of its own for the variable, as of a moving average."""
    return variable.aggregation == "none" and tf.as_dtype(variable.dtype).is_floating


def mend(variables, before):
    """Put the values `before` back where the variables are not finite."""
    for variable, value in zip(variables, before, strict=True):
        variable.assign(tf.where(is_finite(variable.value), variable.value, value))


class Gradients:
    """Replaces the optimizer in `train_step`: it keeps the gradients.

    Attributes:
        found: list of tensors, one for each trainable weight; None where it has no gradient.
    """

    def __init__(self, optimizer):
        self.scale_loss = optimizer.scale_loss
        self.found = []

    def apply_gradients(self, gradients_and_weights):
        """Keep them."""
        self.found = [gradient for gradient, _ in gradients_and_weights]
