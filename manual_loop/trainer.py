"""The loop: what `compile`, `fit`, `evaluate` and `predict` do around a step.

In the order of `keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.fit`, `evaluate`,
`predict` (Keras 3.15). Callbacks are Keras's own, and find the model as `fit` would leave it.
"""

import functools
import warnings
from typing import Any

import keras

from manual_loop.callbacks import (
    callback_list,
    calls_of,
    in_order,
    is_due,
    of_evaluation,
    watch_batches,
)
from manual_loop.compiled.lookup import look_up
from manual_loop.compiled.overrides import overridable, own_method, own_validation
from manual_loop.compiled.refusals import refuse_arguments
from manual_loop.data.arrays import split
from manual_loop.data.epoch_iterator import EpochIterator
from manual_loop.execution.step_function import concatenate_all, released
from manual_loop.on_batch import OnBatch
from manual_loop.saving import model_files
from manual_loop.saving.resume import backup_among


class Trainer(OnBatch):
    """Trains a `keras.Model` by an explicit loop, with the interface of `keras.Model`.

    Args:
        model: any `keras.Model`. A compiled one brings its optimizer, loss and metrics along.

    Raises:
        ValueError: the model overrides what builds Keras's own loop, see `overrides.py`.
    """

    @overridable
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

        This is the one call of `Model.compile`: callbacks see a compiled model, and Keras saves it
        as one. It wraps the optimizer in a `LossScaleOptimizer` for `mixed_float16`, and resolves
        `jit_compile="auto"`: XLA if there is an accelerator, no strategy, no determinism, and no
        layer that XLA cannot compile (`Trainer._resolve_auto_jit_compile`).

        Raises:
            ValueError: an unknown optimizer, or an argument of the wrong type.
            TypeError: an argument that Keras does not have, or has no more.
        """
        refuse_arguments(removed)
        with self.scope():
            self.model.compile(
                optimizer=look_up(keras.optimizers, "optimizer", optimizer),
                loss=loss,
                loss_weights=loss_weights,
                metrics=metrics,
                weighted_metrics=weighted_metrics,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution,
                jit_compile=jit_compile,
                auto_scale_loss=auto_scale_loss,
            )
        self._follow_model()

    @overridable
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

            hold back the last rows for validation; make batches of the others
            for each epoch:
                reset the metrics
                for each batch:             # _train_epoch
                    train_step              # steps.py: forward, loss, gradients, update, metrics
                read the metrics: the logs of the epoch
                for each validation batch:  # _evaluate
                    test_step
                add val_... to the logs; callbacks may stop the training

        Args:
            x: inputs `[samples, ...]`; a list or dict of them.
            y: labels `[samples, ...]`; a list or dict of them.

        Returns:
            keras.callbacks.History: `.history` is a dict: name -> one float for each epoch.
        """
        self._check("fit", locals())
        model = self.model
        limit = keras.config.max_epochs()
        if limit and limit < epochs:
            warnings.warn(f"Limiting epochs to {limit}", stacklevel=3)
            epochs = limit

        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split(x, y, sample_weight, validation_split)
        if validation_data is not None:
            val_x, val_y, val_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
        batches = self._batches(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
        )
        self._distribution.build(model, self._configuration, batches.dataset)
        batches.reset()

        given = callbacks
        callbacks = self._callbacks(
            callbacks, batches, verbose=verbose, epochs=epochs, add_history=True
        )
        backup = backup_among(given, callbacks, self._configuration, self._distribution, batches)
        model.stop_training = False
        train_function = self._function("train")
        callbacks.on_train_begin()
        logs: dict[str, Any] = {}
        epoch_logs = backup.restore(epochs)
        self._distribution.synchronize(model)
        validate = None
        # BackupAndRestore leaves the epoch to resume at in this attribute, in on_train_begin
        initial_epoch = getattr(model, "_initial_epoch", None) or initial_epoch
        with released(self._functions):
            for epoch in range(initial_epoch, epochs):
                model.reset_metrics()
                callbacks.on_epoch_begin(epoch)
                logs = backup.begin_epoch(epoch, logs)
                logs = self._train_epoch(train_function, batches, callbacks, logs, backup)
                epoch_logs = dict(self._metrics_or(logs))

                if validation_data is not None and is_due(epoch, validation_freq):
                    if validate is None:
                        size = validation_batch_size or batch_size
                        validate = self._validation(
                            val_x, val_y, val_weight, size, validation_steps
                        )
                    validation_logs = validate(callbacks)
                    epoch_logs.update({f"val_{k}": v for k, v in validation_logs.items()})

                callbacks.on_epoch_end(epoch, epoch_logs)
                backup.after_epoch(epoch_logs)
                if model.stop_training:
                    break

        if epochs > 0 and isinstance(model.optimizer, keras.optimizers.Optimizer):
            # one with `use_ema` now writes its averages into the weights
            model.optimizer.finalize_variable_values(model.trainable_weights)
        self._distribution.synchronize(model)
        callbacks.on_train_end(logs=epoch_logs)
        backup.end()
        return model.history

    def _train_epoch(self, train_function, batches, callbacks, logs, backup):
        """Train on the batches of one epoch; returns the logs of the last step."""
        watched = watch_batches(callbacks)
        calls = calls_of(batches, backup.limited(train_function.choose_steps), callbacks)
        with batches.catch_stop_iteration():
            for first_step, last_step, iterator in calls:
                if watched:
                    callbacks.on_train_batch_begin(first_step)
                logs = train_function(iterator)
                if watched:
                    callbacks.on_train_batch_end(last_step, logs)
                backup.after_steps(last_step + 1, logs)
                if self.model.stop_training:
                    break
        return logs

    @overridable
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
        **unknown,
    ):
        """The loss and the metrics on data that are not trained on (`keras.Model.evaluate`).

        Returns:
            list of floats, or one float if there is no metric; with `return_dict`, a dict.
        """
        self._check("evaluate", locals())
        if unknown:
            raise ValueError(f"Arguments not recognized: {unknown}")
        batches = self._batches(x, y, sample_weight, batch_size, steps)
        self._distribution.build(self.model, self._configuration, batches.dataset)
        with released(self._functions):
            return self._evaluate_all(batches, callbacks, verbose, return_dict)

    def _evaluate_all(self, batches, callbacks=None, verbose="auto", return_dict=False):
        """`_evaluate`, with the arguments and the result of `evaluate`."""
        callbacks = self._callbacks(callbacks, batches, verbose=verbose, epochs=1)
        logs = self._evaluate(batches, callbacks)
        return logs if return_dict else in_order(self.model, logs)

    def _validation(self, x, y, sample_weight, batch_size, steps):
        """`callbacks -> logs`: what `fit` does after an epoch, on batches that are made once."""
        batches = self._batches(x, y, sample_weight, batch_size, steps)
        if own_method(self.model, "evaluate") is None:
            return functools.partial(self._evaluate, batches)
        arguments = {"x": x, "y": y, "sample_weight": sample_weight}
        arguments |= {"batch_size": batch_size, "steps": steps}
        return own_validation(self, functools.partial(self._evaluate_all, batches), arguments)

    def _evaluate(self, batches, callbacks):
        """The loss and the metrics on all batches: dict of floats."""
        model, test_function = self.model, self._function("test")
        batches.reset()
        model.stop_evaluating = False
        callbacks.on_test_begin()
        model.reset_metrics()
        watched = watch_batches(callbacks)
        logs = {}
        calls = calls_of(batches, test_function.choose_steps, callbacks)
        with batches.catch_stop_iteration():
            for first_step, last_step, iterator in calls:
                if watched:
                    callbacks.on_test_batch_begin(first_step)
                logs = test_function(iterator)
                if watched:
                    callbacks.on_test_batch_end(last_step, logs)
                if model.stop_evaluating:
                    break
        logs = of_evaluation(self._metrics_or(logs))
        callbacks.on_test_end(logs)
        return logs

    @overridable
    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The model's outputs for `x` (`keras.Model.predict`). It needs no `compile`.

        Returns:
            NumPy array `[samples, ...]`, or the structure of the model's outputs with such arrays.
        """
        self._check("predict", locals())
        model = self.model
        x = self._distribution.in_order(x)
        batches = self._batches(x, None, None, batch_size, steps)
        self._distribution.build(model, None, batches.dataset)
        callbacks = self._callbacks(callbacks, batches, verbose=verbose, epochs=1)
        predict_function = self._function("predict")
        model.stop_predicting = False
        callbacks.on_predict_begin()
        collected = []
        calls = calls_of(batches, predict_function.choose_steps, callbacks)
        with released(self._functions), batches.catch_stop_iteration():
            for first_step, last_step, iterator in calls:
                callbacks.on_predict_batch_begin(first_step)
                outputs = predict_function(iterator)
                collected.append(outputs)
                callbacks.on_predict_batch_end(last_step, {"outputs": outputs})
                if model.stop_predicting:
                    break
        callbacks.on_predict_end()
        return concatenate_all(collected)

    def save(self, path):
        """Write model, training configuration and optimizer to a `.h5` or `.keras` file."""
        model_files.save(self.model, path)

    def _batches(self, *arguments):
        """An `EpochIterator` of these arguments."""
        steps, distribution = self.model.steps_per_execution, self._distribution
        return EpochIterator(*arguments, steps_per_execution=steps, distribution=distribution)

    def _callbacks(self, callbacks, batches, **how):
        """A `keras.callbacks.CallbackList`."""
        return callback_list(callbacks, self._distribution, self.model, batches.num_batches, **how)

    def _metrics_or(self, logs):
        """The metrics as they stand; `logs` if these have other names.

        fit reads them outside the graph too (`_get_metrics_result_or_logs`): XLA may round a
        division differently.
        """
        with self._distribution.errors_of_lost_workers():
            results = self.model.get_metrics_result()
        return results if logs.keys() == results.keys() else logs
