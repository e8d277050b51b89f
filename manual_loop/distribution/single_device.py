"""One device: nothing to distribute. This is also the interface of the other two.

`fit`, `evaluate` and `predict` call these methods in this order; on one device most do nothing.
`replicas.Replicas` and `multi_worker.Workers` override them.
"""

import contextlib
import functools

import tensorflow as tf

from manual_loop.compiled.overrides import own_method, own_step
from manual_loop.execution.step_function import PredictFunction, StepFunction
from manual_loop.steps import predict_step, test_step, train_step

OUTSIDE = (
    "The model was built outside the strategy's scope. Build the model under "
    "`with strategy.scope():`; it is then trained on all replicas from anywhere."
)


class SingleDevice:
    """Training on one device.

    Attributes:
        keeps_arrays_on_device: whether arrays may be copied to the device once for all batches.
        takes_a_first_batch: whether `build` needs a batch.
        resumes_within_epochs: whether a `Backup` may be written within an epoch.
    """

    keeps_arrays_on_device = True
    takes_a_first_batch = False
    resumes_within_epochs = True

    def scope(self):
        """A context in which variables are created for all devices."""
        return contextlib.nullcontext()

    def check_arguments(self, method, model, arguments):
        """Compare what each process was called with.

        Args:
            method: "fit", "evaluate" or "predict".
            arguments: dict: name -> value.
        """

    def in_order(self, data):
        """`data` for `predict`, whose outputs must come back in the order of the samples."""
        return data

    def distribute(self, batches, batch_size):
        """Batches in the form in which the step functions take them.

        Args:
            batches: `tf.data.Dataset`, or a `ResidentDataset` if `keeps_arrays_on_device`.
            batch_size: samples in a batch, or None if unknown.
        """
        return batches

    def build(self, model, configuration, batches):
        """Create all variables, before a step is traced.

        Args:
            configuration: `compiled.configuration.Configuration`; None for `predict`.
            batches: as given to `distribute`.

        Raises:
            ValueError: we are in the scope of a strategy that the model was not built for.
        """
        if tf.distribute.has_strategy():
            raise ValueError(OUTSIDE)

    def train_function(self, model, configuration, *, jit_compile, **how):
        """The `StepFunction` of `steps.train_step`, or of the model's own.

        Args:
            configuration: `compiled.configuration.Configuration`.
            jit_compile, **how: as in `StepFunction`.
        """

        def step(data):
            loss, metrics = configuration.of_batch(data, training=True)
            # `model.optimizer` is read while tracing, as in fit
            return train_step(model, model.optimizer, loss, metrics, data)

        step = own_step(model, "train_step") or step
        return StepFunction(step, jit_compile=jit_compile, **how)

    def test_function(self, model, configuration, *, jit_compile, **how):
        """The `StepFunction` of `steps.test_step`, or of the model's own; same arguments."""

        def step(data):
            loss, metrics = configuration.of_batch(data, training=False)
            return test_step(model, loss, metrics, data)

        step = own_step(model, "test_step") or step
        return StepFunction(step, jit_compile=jit_compile, **how)

    def predict_function(self, model, _, *, jit_compile, **how):
        """The `step_function.PredictFunction` of `steps.predict_step`, or of the model's own."""
        step = own_method(model, "predict_step") or functools.partial(predict_step, model)
        return PredictFunction(step, jit_compile=jit_compile, **how)

    def callbacks(self, callbacks):
        """Those that run in this process."""
        return callbacks

    def synchronize(self, model):
        """Give all processes the same values of all variables."""

    def from_chief(self, content):
        """The bytes that the process has which writes files; None if this is another."""
        return content

    def errors_of_lost_workers(self):
        """A context in which an error says which process is gone, if one is."""
        return contextlib.nullcontext()
