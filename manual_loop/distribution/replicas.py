"""Replicas: the same step on several devices at once, each with its share of the batch.

Under `tf.distribute.MirroredStrategy` every device holds a copy of the weights. A step goes like
this: the batch is cut into one part a replica, each replica computes the gradients of its own part,
the gradients are added up over all replicas, and every copy is updated by the same sum. For the sum
to be the gradient of the batch's mean loss, each replica contributes its mean divided by the number
of replicas: `share`.

Three things that surprise:

1. The mean of means is the mean only where all parts have one size. The samples of a partial last
   batch that leaves a replica short weigh more than others.
2. Metrics are added up when they are read. What a step returns is the mean over the replicas of
   what each has seen alone; only the logs of the epoch are those of all samples.
3. `BatchNormalization` normalises with the statistics of a replica's part, not of the batch, unless
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

from manual_loop.distribution import multi_worker as workers
from manual_loop.execution.bound import graph
from manual_loop.execution.step_function import (
    StepFunction,
    concatenate,
    make_predict_function,
    unwrapping,
)
from manual_loop.steps import predict_step, sample_count, train_step

tree = keras.tree
is_finite = tf.math.is_finite


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


def assert_in_scope(strategy, owner, variables):
    """Raise ValueError unless every variable has a copy on every replica.

    Args:
        strategy: a `tf.distribute.Strategy`.
        owner: what they belong to, in a word.
        variables: list of `keras.Variable`.
    """
    for variable in variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                f"The {owner} was built outside the strategy's scope: `{variable.path}` has no "
                f"copy on each replica. Build the {owner} under `with strategy.scope():`."
            )


def spread(strategy, batches, batch_size):
    """Batches that come as one part for each replica, cut as fit cuts them.

    Args:
        strategy: a `tf.distribute.Strategy`.
        batches: a `tf.data.Dataset`.
        batch_size: samples a batch, for all replicas together; None if unknown.

    Returns:
        `tf.distribute.DistributedDataset`.

    Raises:
        ValueError: there are more replicas than samples in a batch.
    """
    least = strategy.num_replicas_in_sync
    if batch_size is not None and batch_size < least:
        raise ValueError(
            f"A batch of {batch_size} cannot be divided among {least} replicas. `batch_size` "
            f"counts the samples of all replicas together: it must be at least {least}."
        )
    return strategy.experimental_distribute_dataset(batches)


def build(strategy, model, step, batches):
    """Create all variables that a step would create, each with a copy on every replica.

    While the step is traced for all replicas it is too late: the first would create what the others
    then find. So it is traced once for none, and nothing is run.

    Args:
        strategy: a `tf.distribute.Strategy`.
        model: the model; it is built first, for what a step asks of its variables.
        step: `data -> logs` or `data -> outputs`; it changes no weight.
        batches: as in `spread`.
    """
    spec = batches.element_spec
    with strategy.scope():
        for part in (functools.partial(predict_step, model), step):
            with keras.StatelessScope([(v, v) for v in model.variables]):  # for regularisers
                graph(unwrapping(part)).get_concrete_function(spec)


def train_on_replicas(strategy, model, optimizer, objective, metrics, *, jit_compile, **how):
    """`execution.StepFunction` of `steps.train_step` on all replicas.

    Args:
        strategy: a `tf.distribute.Strategy`.
        model, optimizer, objective, metrics: as in `steps.train_step`.
        jit_compile: compile with XLA what comes before the update.
        **how: as in `StepFunction`.
    """
    step = step_in_two(model, optimizer, objective, metrics, jit_compile)
    if workers.cluster_of(strategy):
        step = workers.mean_of_all(step)
    return StepFunction(on_replicas(strategy, step, mean), jit_compile=False, **how)


def test_on_replicas(strategy, step, *, jit_compile, **how):
    """`execution.StepFunction` of a test step on all replicas.

    Args: as in `train_on_replicas`; `step` is `data -> logs` on one replica.
    """
    step = compiled(step) if jit_compile else step
    if workers.cluster_of(strategy):
        step = workers.mean_of_all(step)
    return StepFunction(on_replicas(strategy, step, mean), jit_compile=False, **how)


def predict_on_replicas(strategy, step, *, jit_compile, **how):
    """`execution.make_predict_function` of a predict step on all replicas.

    Args: as in `train_on_replicas`; `step` is `data -> outputs` on one replica.
    """
    step = compiled(step) if jit_compile else step
    if workers.cluster_of(strategy):
        step = on_replicas(strategy, workers.outputs_of_all(step), lambda outputs: outputs[0])
    else:
        step = on_replicas(strategy, step, lambda outputs: concatenate(*outputs))
    return make_predict_function(step, jit_compile=False, **how)


def on_replicas(strategy, step, combine):
    """A step on all replicas: `data -> outputs`, as `step`, but of data from `spread`.

    Args:
        strategy: a `tf.distribute.Strategy`.
        step: `data -> outputs` on one replica.
        combine: makes one tensor of a tuple with one from each replica.
    """

    def step_on_replicas(data):
        outputs = strategy.run(step, args=(data,))
        return tree.map_structure(
            lambda leaf: combine(strategy.experimental_local_results(leaf)), outputs
        )

    return step_on_replicas


def mean(logs):
    """One log as the mean of those of all replicas."""
    return tf.reduce_mean(logs, axis=0)


def replicas():
    """How many of them run the step that we are in; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def share(loss):
    """What a replica contributes with its mean loss, so that the sum over replicas is a mean."""
    return loss if replicas() == 1 else loss * tf.cast(1 / replicas(), loss.dtype)


def whole(loss):
    """The mean loss that `share` made a contribution of."""
    return loss if replicas() == 1 else loss * tf.cast(replicas(), loss.dtype)


class LossMean(keras.metrics.Mean):
    """The running mean of a loss, of which a replica knows its `share`."""

    def update_state(self, values, sample_weight=None):
        """Take in the loss of one batch; `sample_weight` is the number of its samples."""
        values = whole(values)
        if replicas() > 1 and tf.is_tensor(sample_weight):  # the mean of no samples is NaN
            values = tf.where(sample_weight > 0, values, tf.zeros_like(values))
        return super().update_state(values, sample_weight)


def compiled(step):
    """`step` as one XLA program on each replica.

    A function of its own: `strategy.run` would take a `tf.function` apart and compile the step of
    all replicas as one, which is more than one device.
    """
    program = graph(step, jit_compile=True)
    return lambda data: program(data)


def step_in_two(model, optimizer, objective, metrics, jit_compile):
    """`data -> logs`: `steps.train_step` on one replica, the update apart from what precedes it.

    The update begins with the sum of the gradients over all replicas, for which they have to wait
    for each other. A program that XLA compiled for one device cannot wait for another, so it ends
    before.

    A replica without samples takes part in the sum all the same. A mean over no samples is NaN, and
    so is what is made of it: such a gradient counts as 0, such a moving average stays what it was.

    Args:
        model, optimizer, objective, metrics: as in `steps.train_step`.
        jit_compile: compile what precedes the update with XLA.
    """

    def differentiate(data):
        gradients = Gradients(optimizer)
        logs = train_step(model, gradients, objective, metrics, data)
        return gradients.found, logs

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
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                gradients = finite_everywhere(gradients)
            optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return logs

    return step


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
    """In the place of an optimizer: it keeps the gradients.

    Attributes:
        found: list of tensors, one for each trainable weight; None where it has no gradient.
    """

    def __init__(self, optimizer):
        self.scale_loss = optimizer.scale_loss
        self.found = []

    def apply_gradients(self, gradients_and_weights):
        """Keep them."""
        self.found = [gradient for gradient, _ in gradients_and_weights]
