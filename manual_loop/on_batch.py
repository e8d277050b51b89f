"""One batch at a time: `train_on_batch`, `test_on_batch`, `predict_on_batch`.

They run the same functions as `fit`, `evaluate` and `predict`, without a dataset, an epoch or
callbacks: arrays go into the step as they are. The metrics are reset before each batch, so the logs
are those of the batch alone (`keras/src/backend/tensorflow/trainer.py`, methods of the same names,
Keras 3.15; before, see `keras_version.py`).
"""

from typing import Any

import keras
import tensorflow as tf

from manual_loop.callbacks import in_order, of_one_batch
from manual_loop.compiled.configuration import Configuration
from manual_loop.compiled.overrides import overridable, refuse_overrides
from manual_loop.compiled.refusals import refuse_fractions
from manual_loop.data.sample_weights import weigh_classes
from manual_loop.distribution import distribution_of
from manual_loop.execution.step_function import concatenate_all
from manual_loop.keras_version import RESETS_METRICS_ON_BATCH


class OneBatch:
    """As much of a dataset as `distribution.build` needs.

    Args:
        batch: a structure of arrays, tensors and None.
    """

    def __init__(self, batch):
        self._batch = batch

    @property
    def element_spec(self):
        """The batch as `tf.TypeSpec`s."""
        return keras.tree.map_structure(
            lambda part: None if part is None else tf.type_spec_from_value(as_tensor(part)),
            self._batch,
        )


def as_tensor(array):
    """A tensor, of whatever kind, from an array or a tensor."""
    return array if tf.is_tensor(array) else tf.convert_to_tensor(array)


class Traced:
    """What belongs to one call of `compile` of a model, by however many trainers it is trained.

    Attributes:
        configuration: `Configuration`.
        distribution: see `distribution_of`.
        functions: dict: "train", "test", "predict" -> the function, once it is needed.
    """

    def __init__(self, model):
        self.configuration = Configuration(model)
        self.distribution = distribution_of(model)
        self.functions: dict[str, Any] = {}


class OnBatch:
    """What a `Trainer` does with one batch, and the functions that it does it with.

    Args:
        model: any `keras.Model`.

    Raises:
        ValueError: the model overrides what builds Keras's own loop, see `overrides.py`.
    """

    def __init__(self, model):
        refuse_overrides(model)
        self.model = model
        self._configuration: Any = None
        self._distribution: Any = None
        self._functions: dict[str, Any] = {}

    @property
    def optimizer(self):
        """The `keras.optimizers.Optimizer` in use; None before `compile`."""
        return self.model.optimizer if self.model.compiled else None

    @property
    def metrics_names(self):
        """The names of `model.metrics`; all metrics of `compile` are one, `compile_metrics`."""
        return self.model.metrics_names

    def reset_metrics(self):
        """Start the metrics anew (`keras.Model.reset_metrics`)."""
        self.model.reset_metrics()

    @overridable
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Update the weights once (`keras.Model.train_on_batch`).

        Args:
            x, y: a batch `[samples, ...]` of arrays or tensors; a list or dict of them.
            sample_weight: float `[samples]` or `[samples, steps]`.
            class_weight: dict: class number -> weight.

        Returns:
            The loss and the metrics of this batch: list of floats, or one float if there is no
            metric; with `return_dict`, a dict.

        Raises:
            ValueError: before `compile`, or with both kinds of weights.
        """
        self._check("train_on_batch", locals())
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError("Pass either `sample_weight` or `class_weight`, not both.")
            sample_weight = weigh_classes(y, class_weight)
        return self._logs_of("train", (x, y, sample_weight), return_dict)

    @overridable
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Compute the loss and the metrics of one batch (`keras.Model.test_on_batch`).

        Arguments and result are those of `train_on_batch`.
        """
        self._check("test_on_batch", locals())
        return self._logs_of("test", (x, y, sample_weight), return_dict)

    @overridable
    def predict_on_batch(self, x):
        """The model's outputs for one batch (`keras.Model.predict_on_batch`), as NumPy arrays."""
        self._check("predict_on_batch", locals())
        self._distribution.build(self.model, None, OneBatch((x,)))
        return concatenate_all([self._function("predict").run_on_batch((x,))])

    def _logs_of(self, kind, batch, return_dict):
        """Run the train or the test function on one batch: the logs as `evaluate` returns them."""
        self._distribution.build(self.model, self._configuration, OneBatch(batch))
        run_on_batch = self._function(kind).run_on_batch
        if RESETS_METRICS_ON_BATCH:
            self.model.reset_metrics()
        logs = of_one_batch(run_on_batch(batch))
        return logs if return_dict else in_order(self.model, logs)

    def scope(self):
        """A context in which variables are created for all of the model's devices."""
        return distribution_of(self.model).scope()

    def _check(self, method, arguments):
        """Before anything else: what the method needs, from its arguments by name."""
        arguments.pop("self")
        if not (method.startswith("predict") or self.model.compiled):
            raise ValueError(f"You must call `compile()` before calling `{method}()`.")
        refuse_fractions(arguments, steps_per_execution=self.model.steps_per_execution)
        self._follow_model()
        self._distribution.check_arguments(method, self.model, arguments)

    def _follow_model(self):
        """Take what was traced for the model, or start anew if it was compiled since, by whomever.

        The model holds it, as `train_function` in Keras: a new trainer does not trace again.
        """
        traced = vars(self.model).get("_manual_loop")
        if traced is None or not traced.configuration.is_current:
            traced = Traced(self.model)
            self.model._manual_loop = traced
        self._configuration = traced.configuration
        self._distribution = traced.distribution
        self._functions = traced.functions

    def _function(self, kind):
        """The train, test or predict function, made when first needed as the model says then."""
        model = self.model
        if kind not in self._functions:
            make = getattr(self._distribution, f"{kind}_function")
            self._functions[kind] = make(
                model,
                self._configuration,
                run_eagerly=model.run_eagerly,
                jit_compile=model.jit_compile,
                steps_per_execution=lambda: model.steps_per_execution,
            )
        return self._functions[kind]
