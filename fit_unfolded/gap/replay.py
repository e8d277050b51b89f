"""Replays of one epoch of fit by the loop's own steps, each with one thing changed."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from fit_unfolded.gap.snapshots import Snapshots, State, restore
from fit_unfolded.workloads import Data
from fit_unfolded.workloads.user_file import is_dataset
from manual_loop import Trainer
from manual_loop.compiled.configuration import Configuration
from manual_loop.data.arrays import split
from manual_loop.data.epoch_iterator import EpochIterator
from manual_loop.distribution.single_device import SingleDevice
from manual_loop.execution.step_function import StepFunction, released, take
from manual_loop.steps import forward, sample_count, test_step, train_step


class Rows(NamedTuple):
    """Arguments of fit or evaluate: arrays, or a `tf.data.Dataset` as x."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    class_weight: dict[int, float] | None = None

    @property
    def weighted(self) -> bool:
        """Whether there are sample weights."""
        if is_dataset(self.x):
            return isinstance(self.x.element_spec, tuple) and len(self.x.element_spec) == 3
        return self.sample_weight is not None

    def without_weights(self) -> "Rows":
        """The same rows; each counts 1."""
        if is_dataset(self.x) and self.weighted:
            return Rows(self.x.map(lambda x, y, _: (x, y)))
        return Rows(self.x, self.y)


class Means(NamedTuple):
    """What a replay gives.

    Attributes:
        loss: as fit logs it: the mean of the batches' losses, weighted by their rows.
        penalty: the same mean of `model.losses`: regularizers and `add_loss`.
        plain: the mean of the batches' losses, each batch counted once.
    """

    loss: float
    penalty: float
    plain: float


class Replays:
    """Replays of the epoch that `snapshots` has kept.

    Args:
        model: the model that fit has trained, compiled.
        snapshots: of its training.
        data: as it was given to fit; a `tf.data.Dataset` must be new.
        fit: the other arguments of fit.
        seed: the random seed that was set before fit.

    Attributes:
        train: the training rows; of a `tf.data.Dataset`, those of the epoch.
        validation: the validation rows; None if there are none.
    """

    def __init__(
        self, model: Any, snapshots: Snapshots, data: Data, fit: dict[str, Any], seed: int
    ):
        self._model, self._snapshots, self._fit, self._seed = model, snapshots, fit, seed
        self._configuration = Configuration(model)
        self._trainer = Trainer(model)
        self._norms = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._in_training: dict[int, Any] = {}  # what fit passes as `training` to each of them
        self.train, self.validation = self._split(data)
        if is_dataset(self.train.x):
            self.train = self.train._replace(x=self._captured(self.train))

    def _split(self, data: Data) -> tuple[Rows, Rows | None]:
        """As at the begin of fit."""
        extra = data.extra
        rows = data.x, data.y, extra.get("sample_weight")
        held_out = extra.get("validation_data")
        if held_out is None and self._fit.get("validation_split"):
            rows, held_out = split(*rows, self._fit["validation_split"])
        train = Rows(*rows, class_weight=extra.get("class_weight"))
        if held_out is None:
            return train, None
        return train, Rows(*keras.utils.unpack_x_y_sample_weight(held_out))

    # What is measured -------------------------------------------------------------------------

    def training(self) -> Means:
        """The epoch as fit trained it, from the state before it."""
        means = self._train(watched=True)
        if means.loss != self._snapshots.loss:
            # TensorFlow may add in another order if a sum has more than one use
            means = means._replace(loss=self._train(watched=False).loss)
        return means

    def _train(self, watched: bool) -> Means:
        model, metrics = self._model, self._configuration.metrics

        def step(compiled_loss: Callable, data: Any) -> Any:
            return train_step(model, model.optimizer, compiled_loss, metrics, data)

        return self._run(step, self._snapshots.begin, self.train, watched)

    def last_weights(self) -> Means:
        """With the weights at the end of the epoch; the same batches and Dropout masks."""
        with self._each_norm(self._note):
            return self._run_frozen(training=True)

    def batch_statistics(self) -> Means:
        """The same in inference mode, but each BatchNormalization as in training."""
        with self._each_norm(self._as_in_training):
            return self._run_frozen(training=False)

    def inference(self) -> Means:
        """The same in inference mode."""
        metrics = self._configuration.metrics

        def step(compiled_loss: Callable, data: Any) -> Any:
            return test_step(self._model, compiled_loss, metrics, data)

        return self._run(step, self._frozen, self.train)

    def unweighted(self) -> Means:
        """The same without sample weights and class weights."""
        return self._run_frozen(training=False, rows=self.train.without_weights())

    def evaluate(self, rows: Rows, of_validation: bool, state: State | None = None) -> float:
        """`evaluate` on rows with the weights at the end of the epoch, or with those of `state`."""
        fit = self._fit
        batch_size, steps = fit.get("batch_size"), None
        if of_validation:
            batch_size = fit.get("validation_batch_size") or batch_size
            steps = fit.get("validation_steps")
        if is_dataset(rows.x) and not of_validation:
            batch_size = None
        restore(self._model, state or self._snapshots.end)
        with _quiet():
            logs = self._trainer.evaluate(
                rows.x,
                rows.y,
                batch_size=batch_size,
                sample_weight=rows.sample_weight,
                steps=steps,
                verbose=0,
                return_dict=True,
            )
        return logs["loss"]

    @property
    def norms(self) -> int:
        """The number of BatchNormalization layers."""
        return len(self._norms)

    # How --------------------------------------------------------------------------------------

    @property
    def _frozen(self) -> State:
        """The weights at the end of the epoch, and the seeds of its begin: the same masks."""
        begin, end = self._snapshots.begin, self._snapshots.end
        values = [
            first if variable.name == "seed_generator_state" else last
            for variable, first, last in zip(
                self._model.variables, begin.model, end.model, strict=True
            )
        ]
        return State(values, end.optimizer)

    def _run_frozen(self, training: bool, rows: Rows | None = None) -> Means:
        """The forward pass and the loss of a step, without an update."""
        model, mean_loss = self._model, self._configuration.metrics.loss

        def step(compiled_loss: Callable, data: Any) -> Any:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            loss = compiled_loss(y, forward(model, x, training), sample_weight, model.losses)
            mean_loss.update_state(loss, sample_weight=sample_count(x))
            return {"loss": mean_loss.result()}

        return self._run(step, self._frozen, self.train if rows is None else rows)

    def _run(self, step: Callable, state: State, rows: Rows, watched: bool = True) -> Means:
        """One epoch of a step, from a state, run as fit runs its step.

        Args:
            step: `(compiled_loss, data) -> logs`.
            watched: whether the penalty and the plain mean are measured too.
        """
        model = self._model
        compiled_loss = self._configuration.loss
        penalty, plain = keras.metrics.Mean(), keras.metrics.Mean()
        watched_step = _watched(step, compiled_loss, penalty, plain)
        function = StepFunction(
            watched_step if watched else partial(step, compiled_loss),
            run_eagerly=model.run_eagerly,
            jit_compile=model.jit_compile,
            steps_per_execution=lambda: model.steps_per_execution,
        )
        batches = self._batches(rows)
        restore(model, state)
        model.reset_metrics()
        with _quiet(), released({"": function}), batches.catch_stop_iteration():
            for _, _, iterator in batches:
                function(iterator)
        loss = self._configuration.metrics.loss.result()
        return Means(float(loss), float(penalty.result()), float(plain.result()))

    def _batches(self, rows: Rows) -> EpochIterator:
        """The epoch's batches, in the order in which fit took them."""
        steps = None if is_dataset(rows.x) else self._fit.get("steps_per_epoch")
        batches = self._epochs(rows, steps)
        if steps:  # each epoch goes on where the last one stopped
            self._skip(batches)
        return batches

    def _captured(self, rows: Rows) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the batches that this epoch of fit took."""
        steps = self._fit.get("steps_per_epoch")
        batches = self._epochs(rows._replace(class_weight=None), steps)
        self._skip(batches)
        taken = list(self._taken(batches))
        captured = tf.data.Dataset.from_generator(
            lambda: iter(taken), output_signature=rows.x.element_spec
        )
        known = steps or int(rows.x.cardinality()) >= 0
        # with an unknown length, a graph runs one step more than there are batches
        return (
            captured.apply(tf.data.experimental.assert_cardinality(len(taken)))
            if known
            else (captured)
        )

    def _epochs(self, rows: Rows, steps_per_epoch: int | None) -> EpochIterator:
        keras.utils.set_random_seed(self._seed)
        with _quiet():
            batches = EpochIterator(
                rows.x,
                rows.y,
                rows.sample_weight,
                None if is_dataset(rows.x) else self._fit.get("batch_size"),
                steps_per_epoch,
                not is_dataset(rows.x) and self._fit.get("shuffle", True),
                rows.class_weight,
                steps_per_execution=self._model.steps_per_execution,
                distribution=SingleDevice(),
            )
        batches.reset()
        return batches

    def _skip(self, batches: EpochIterator) -> None:
        for _ in range(self._fit.get("initial_epoch", 0) + 1, self._snapshots.epoch):
            for _ in self._taken(batches):
                pass

    def _taken(self, batches: EpochIterator) -> Iterator[Any]:
        """The batches of one epoch."""
        with _quiet(), batches.catch_stop_iteration():
            for _, _, iterator in batches:
                yield from take(iterator, self._model.steps_per_execution)

    # Modes of BatchNormalization --------------------------------------------------------------

    @contextmanager
    def _each_norm(self, change: Callable) -> Iterator[None]:
        """`change(layer, arguments)` before each call of a BatchNormalization in the block."""
        try:
            for layer in self._norms:
                layer.call = _changed_call(layer, layer.call, change)
            yield
        finally:
            for layer in self._norms:
                vars(layer).pop("call", None)

    def _note(self, layer: Any, arguments: dict[str, Any]) -> None:
        self._in_training[id(layer)] = arguments.get("training")

    def _as_in_training(self, layer: Any, arguments: dict[str, Any]) -> None:
        arguments["training"] = self._in_training.get(id(layer))


def _changed_call(layer: Any, call: Callable, change: Callable) -> Callable:
    signature = inspect.signature(call)

    def changed(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        change(layer, bound.arguments)
        return call(*bound.args, **bound.kwargs)

    return changed


def _watched(step: Callable, compiled_loss: Any, penalty: Any, plain: Any) -> Callable:
    """The step, which also updates the means of the penalty and of the batch losses."""

    def run(data: Any) -> Any:
        seen = []

        def watched_loss(y: Any, y_pred: Any, sample_weight: Any, losses: list[Any]) -> Any:
            loss = compiled_loss(y, y_pred, sample_weight, losses)
            seen.append((loss, losses))
            return loss

        logs = step(watched_loss, data)
        ((loss, losses),) = seen
        rows = sample_count(keras.utils.unpack_x_y_sample_weight(data)[0])
        added = [keras.ops.cast(keras.ops.sum(part), "float32") for part in losses]
        penalty.update_state(sum(added), sample_weight=rows)
        plain.update_state(loss)
        return logs

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of fit, which the training has shown already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
