"""The loop: what `compile`, `fit`, `evaluate` and `predict` do around a step.

Written in the order of `keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.fit`,
`evaluate`, `predict` (Keras 3.15). Callbacks are Keras's own and see the model they know: the loop
sets `model.optimizer`, `model.stop_training` and `model.history` as `fit` does.
"""

import functools
import warnings

import keras
import tensorflow as tf

from manual_loop.compiled.lookup import look_up
from manual_loop.compiled.loss import Objective
from manual_loop.compiled.metrics import CompiledMetrics, Metrics
from manual_loop.data.arrays import split
from manual_loop.data.epoch_iterator import Epochs, take
from manual_loop.distribution import multi_worker as workers
from manual_loop.distribution import replicas as distribution
from manual_loop.execution.step_function import StepFunction, concatenate_all, make_predict_function
from manual_loop.saving import model_files as saving
from manual_loop.steps import predict_step, test_step, train_step

BASE = keras.callbacks.Callback

# fit calls these methods of the model. The loop writes out what they do by default, so it must not
# pass over a model that does something else there.
OVERRIDES = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
)


# Arguments of compile in older Keras, and what replaced them.
REMOVED = {
    "sample_weight_mode": "`sample_weight_mode` left Keras. For one weight a time step, pass `fit` "
    "a `sample_weight` of shape [samples, steps].",
    "target_tensors": "`target_tensors` left Keras. Pass the labels to `fit` as `y`, or in a "
    "`tf.data.Dataset` of (x, y).",
}


class Trainer:
    """Trains a `keras.Model` by an explicit loop, with the interface of `keras.Model`.

    Args:
        model: any `keras.Model`. A compiled one brings its optimizer, loss and metrics along.

    Raises:
        ValueError: the model overrides one of fit's own steps.
    """

    def __init__(self, model):
        for name in OVERRIDES:
            if getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model):
                raise ValueError(
                    f"The model overrides `{name}`, which this loop replaces. Train it with "
                    "`model.fit`, or write its step into a loop of its own."
                )
        self.model = model
        self._compiled = False
        self._objective = None
        self._compiled_metrics = None
        self._predict_function = None
        self._strategy = None

    @property
    def optimizer(self):
        """The `keras.optimizers.Optimizer` in use; None before `compile`."""
        return self.model.optimizer if self.model.compiled else None

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        **removed,
    ):
        """Choose optimizer, loss and metrics, and how a step is run (`keras.Model.compile`).

        Names become objects here, except those that depend on shapes: `"acc"`, or which loss
        belongs to which output, are resolved when the first batch is seen.

        Raises:
            ValueError: an unknown optimizer, or an argument of the wrong type.
            TypeError: an argument that Keras does not have, or has no more.
        """
        for name in removed:
            raise TypeError(REMOVED.get(name, f"`compile` has no argument `{name}`."))
        model = self.model
        self._strategy = distribution.strategy_of(model)
        given = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        with model.distribute_strategy.scope():
            self._compile(given, auto_scale_loss)
        self._compiled = True

    def _compile(self, given, auto_scale_loss):
        model = self.model
        optimizer = given["optimizer"] = look_up(keras.optimizers, "optimizer", given["optimizer"])
        self._arguments = given
        saving.register_training_config(model, **given)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and not scaled and model.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
        model.optimizer = optimizer

        output_names = getattr(model, "output_names", None)
        loss, metrics, weighted = given["loss"], given["metrics"], given["weighted_metrics"]
        if loss is not None or self._objective is None:
            self._objective = Objective(loss, given["loss_weights"], output_names)
        if metrics is not None or weighted is not None:
            self._compiled_metrics = CompiledMetrics(metrics, weighted, output_names)
        self._metrics = Metrics(model, self._objective, self._compiled_metrics)

        parts = model, optimizer, self._objective, self._metrics
        self._test_step = functools.partial(test_step, model, self._objective, self._metrics)
        how, strategy = how_to_run(model), self._strategy
        if strategy is None:
            self._train_function = StepFunction(functools.partial(train_step, *parts), **how)
            self._test_function = StepFunction(self._test_step, **how)
        else:
            self._train_function = distribution.train_on_replicas(strategy, *parts, **how)
            self._test_function = distribution.test_on_replicas(strategy, self._test_step, **how)
        self._predict_function = None
        self._prepared = False

    def _prepare(self, batches):
        """Under a strategy: make everything that a step needs, before it is traced."""
        strategy, model = self._strategy, self.model
        if strategy is not distribution.strategy_of(model):
            raise ValueError(
                "The model was built outside the strategy's scope. Build the model under "
                "`with strategy.scope():`; it is then trained on all replicas from anywhere."
            )
        if strategy is None or self._prepared:
            return
        distribution.build(strategy, model, self._test_step, batches.source)
        distribution.assert_in_scope(strategy, "model", model.variables)
        distribution.assert_in_scope(strategy, "metric", self._metrics.variables)
        distribution.assert_in_scope(strategy, "optimizer", self.optimizer.variables)
        with strategy.scope():
            if not self.optimizer.built:
                self.optimizer.build(model.trainable_variables)
        self._prepared = True

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Train for a number of epochs (`keras.Model.fit`, same arguments).

        Args:
            x: inputs `[samples, ...]`; a list or dict of them.
            y: labels `[samples, ...]`; a list or dict of them.

        Returns:
            keras.callbacks.History: `.history` is a dict: name -> one float for each epoch.
        """
        self._assert_compiled("fit")
        model = self.model
        assert_integers(
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            steps_per_execution=model.steps_per_execution,
        )
        workers.agree(
            self._strategy,
            lambda: workers.facts_of(
                "fit",
                model,
                (x, y, sample_weight, validation_data),
                batch_size=batch_size,
                epochs=epochs,
                shuffle=shuffle,
                validation_split=validation_split,
                class_weight=class_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            ),
        )
        limit = keras.config.max_epochs()
        if limit and limit < epochs:
            warnings.warn(f"Limiting epochs to {limit}", stacklevel=2)
            epochs = limit

        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split(x, y, sample_weight, validation_split)
        if validation_data is not None:
            validation_data = keras.utils.unpack_x_y_sample_weight(validation_data)

        batches = Epochs(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle,
            class_weight=class_weight,
            steps_per_execution=model.steps_per_execution,
            strategy=self._strategy,
        )
        self._prepare(batches)
        batches.reset()
        validation_batches = None  # made when first needed, then used again

        callbacks = self._callback_list(
            callbacks, verbose, epochs=epochs, steps=batches.steps, add_history=True
        )
        monitored = any(hasattr(callback, "monitor") for callback in callbacks.callbacks)
        if monitored or workers.cluster_of(self._strategy):  # all workers make the same variables
            with model.distribute_strategy.scope():
                self._metrics.announce()
        model.stop_training = False
        callbacks.on_train_begin()
        workers.follow_chief(self._strategy, model, self.optimizer)
        watched = any(map(watches_batches, callbacks.callbacks))
        logs = {}
        epoch_logs = None
        # BackupAndRestore leaves the epoch to resume at in this attribute, in on_train_begin
        initial_epoch = getattr(model, "_initial_epoch", None) or initial_epoch
        for epoch in range(initial_epoch, epochs):
            self._metrics.reset()
            callbacks.on_epoch_begin(epoch)
            with batches:
                for first_step, last_step, iterator in batches:
                    if watched:
                        callbacks.on_train_batch_begin(first_step)
                    logs = self._train_function(iterator)
                    if watched:
                        callbacks.on_train_batch_end(last_step, logs)
                    if model.stop_training:
                        break
            epoch_logs = dict(self._read_metrics(logs))

            if validation_data is not None and _is_due(epoch, validation_freq):
                if validation_batches is None:
                    val_x, val_y, val_sample_weight = validation_data
                    validation_batches = Epochs(
                        val_x,
                        val_y,
                        val_sample_weight,
                        batch_size=validation_batch_size or batch_size,
                        steps_per_epoch=validation_steps,
                        steps_per_execution=model.steps_per_execution,
                        strategy=self._strategy,
                    )
                validation_logs = self._evaluate(validation_batches, callbacks)
                epoch_logs.update({f"val_{name}": v for name, v in validation_logs.items()})

            callbacks.on_epoch_end(epoch, epoch_logs)
            if model.stop_training:
                break

        self._train_function.release()
        self._test_function.release()
        if epochs > 0:  # an optimizer with `use_ema` now writes its averages into the weights
            self.optimizer.finalize_variable_values(model.trainable_weights)
        workers.follow_chief(self._strategy, model, self.optimizer)
        callbacks.on_train_end(logs=epoch_logs)
        return model.history

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """The loss and the metrics on data that are not learned (`keras.Model.evaluate`).

        Returns:
            list of floats, or one float if there is no metric; with `return_dict`, a dict.
        """
        self._assert_compiled("evaluate")
        assert_integers(batch_size=batch_size, steps=steps)
        model = self.model
        workers.agree(
            self._strategy,
            lambda: workers.facts_of(
                "evaluate", model, (x, y, sample_weight), batch_size=batch_size, steps=steps
            ),
        )
        batches = Epochs(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            steps_per_execution=model.steps_per_execution,
            strategy=self._strategy,
        )
        self._prepare(batches)
        callbacks = self._callback_list(callbacks, verbose, epochs=1, steps=batches.steps)
        logs = self._evaluate(batches, callbacks)
        self._test_function.release()
        return logs if return_dict else self._metrics.in_order(logs)

    def _evaluate(self, batches, callbacks):
        """One walk through `batches`: dict of floats."""
        model = self.model
        batches.reset()
        model.stop_evaluating = False
        callbacks.on_test_begin()
        self._metrics.reset()
        watched = any(map(watches_batches, callbacks.callbacks))
        logs = {}
        with batches:
            for first_step, last_step, iterator in batches:
                if watched:
                    callbacks.on_test_batch_begin(first_step)
                logs = self._test_function(iterator)
                if watched:
                    callbacks.on_test_batch_end(last_step, logs)
                if model.stop_evaluating:
                    break
        logs = to_floats(self._read_metrics(logs))
        callbacks.on_test_end(logs)
        return logs

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The model's outputs for `x` (`keras.Model.predict`).

        Returns:
            NumPy array `[samples, ...]`, or the structure of the model's outputs with such arrays.
        """
        assert_integers(batch_size=batch_size, steps=steps)
        model = self.model
        step = functools.partial(predict_step, model)
        strategy = distribution.strategy_of(model)
        block = model.steps_per_execution
        workers.agree(
            strategy,
            lambda: workers.facts_of("predict", model, x, batch_size=batch_size, steps=steps),
        )
        batches = Epochs(
            x if workers.cluster_of(strategy) is None else workers.in_order(x),
            batch_size=batch_size,
            steps_per_epoch=steps,
            steps_per_execution=block,
            strategy=strategy,
        )
        if self._predict_function is None:  # no loss needed: predict works before compile too
            how = how_to_run(model)
            if strategy is None:
                self._predict_function = make_predict_function(step, **how)
            else:
                distribution.build(strategy, model, step, batches.source)
                self._predict_function = distribution.predict_on_replicas(strategy, step, **how)
        callbacks = self._callback_list(callbacks, verbose, epochs=1, steps=batches.steps)
        model.stop_predicting = False
        callbacks.on_predict_begin()
        collected = []
        with batches:
            for first_step, last_step, iterator in batches:
                callbacks.on_predict_batch_begin(first_step)
                outputs = self._predict_function(take(iterator, block))
                collected.append(outputs)
                callbacks.on_predict_batch_end(last_step, {"outputs": outputs})
                if model.stop_predicting:
                    break
        callbacks.on_predict_end()
        return concatenate_all(collected)

    def save(self, path):
        """Write the model, its training configuration and the optimizer's state to `path`.

        Args:
            path: a file name that ends in `.h5` or `.keras`.
        """
        if self._compiled:  # afresh: an earlier .h5 file may have taken the optimizer out of it
            in_use = self.optimizer
            saving.register_training_config(self.model, **self._arguments)
            self.model.optimizer = in_use
        saving.save(self.model, path)

    def _assert_compiled(self, method):
        if self._compiled:
            return
        if not self.model.compiled:
            raise ValueError(f"You must call `compile()` before calling `{method}()`.")
        self.compile(**saving.training_config(self.model))

    def _callback_list(self, callbacks, verbose, *, epochs, steps, add_history=False):
        """Keras's own container: it adds History and the progress bar and turns logs to floats."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        callbacks = workers.callbacks_of(self._strategy, callbacks)
        return keras.callbacks.CallbackList(
            callbacks,
            add_history=add_history,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
            model=self.model,
        )

    def _read_metrics(self, logs):
        """The metrics as they stand, or `logs` where no batch was run.

        The metrics and not the last logs: they are read outside the graph, as fit does, and XLA
        may round a division in its last bit (`Trainer._get_metrics_result_or_logs`).
        """
        with workers.naming_the_lost(self._strategy):
            results = self._metrics.result()
        return results if set(logs) == set(results) else logs


def assert_integers(**arguments):
    """Raise TypeError for what must be a whole number, or None, and is not."""
    for name, value in arguments.items():
        if value is not None and not hasattr(value, "__index__"):
            raise TypeError(f"`{name}` must be an integer. Received: {value!r}")


def how_to_run(model):
    """What `compile` decided about running a step.

    The model resolves `jit_compile="auto"`: XLA where there is an accelerator, no strategy, no
    determinism asked for, and no layer that objects (`Trainer._resolve_auto_jit_compile`).
    """
    return {
        "run_eagerly": model.run_eagerly,
        "jit_compile": model.jit_compile,
        "steps_per_execution": model.steps_per_execution,
    }


def watches_batches(callback):
    """Whether a callback does anything before or after a batch of training or evaluation.

    If none does, nobody sees the logs of a batch, and they are not even turned into floats.
    """
    hooks = ("on_batch", "on_train_batch", "on_test_batch")
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(BASE, name)
        for hook in hooks
        for name in (f"{hook}_begin", f"{hook}_end")
    )


def to_floats(logs):
    """Logs as Python floats, by the alphabet; what is not a number stays as it is."""
    floats = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            floats.update(to_floats(value))
            continue
        if tf.is_tensor(value):
            value = value.numpy()
        try:
            floats[name] = float(value)
        except (TypeError, ValueError):
            floats[name] = value
    return floats


def _is_due(epoch, validation_freq):
    """Whether to validate after this epoch (counted from 0; `validation_freq` counts from 1)."""
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    if isinstance(validation_freq, list):
        return epoch + 1 in validation_freq
    raise ValueError(
        f"`validation_freq` must be an int or a list of ints. Received: {validation_freq!r}"
    )
