"""The four ways to train a Keras model, each as a trainer, for any workload.

| way | page | trainer |
|---|---|---|
| fit | `keras_fit/one_page.py` | `keras_fit.Trainer` |
| custom step | `keras_fit/custom_step_page.py` | `CustomStep`: fit, with that page's steps |
| on batch | `keras_fit/on_batch_page.py` | `OnBatch`: that page's loop, for any data |
| manual loop | `manual_loop/one_page.py` | `manual_loop.Trainer` |
"""

import ast
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_fit
import manual_loop
from fit_unfolded.common.errors import InputError
from fit_unfolded.explain.recorder import become
from fit_unfolded.workloads.user_file import DEFAULT_BATCH_SIZE, is_dataset, rows
from manual_loop.compiled.overrides import own_method
from manual_loop.data.arrays import split, to_array
from manual_loop.data.resident import permutation
from manual_loop.data.sample_weights import one_for_each_output

# It advises against many traces of one function; here each is a new model's, and wanted.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

KERAS_PAGES, LOOP_PAGES = (Path(package.__path__[0]) for package in (keras_fit, manual_loop))


class CustomStep(keras_fit.Trainer):
    """fit, of a model whose steps are those of `custom_step_page.py`.

    Args:
        model: any `keras.Model` without steps of its own.
    """

    def __init__(self, model: keras.Model):
        become(model, page_steps())
        super().__init__(model)


def page_steps() -> dict[str, Callable]:
    """The methods of the model of `custom_step_page.py`, by name.

    The page trains when it is imported, so only its class is run.
    """
    path = KERAS_PAGES / "custom_step_page.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    names: dict[str, Any] = {"keras": keras, "tf": tf}
    exec(compile(ast.Module([cls], []), path, "exec"), names)
    return {name: f for name, f in vars(names[cls.name]).items() if inspect.isfunction(f)}


class OnBatch(keras_fit.Trainer):
    """A loop over `train_on_batch` and `test_on_batch`, as on `on_batch_page.py`.

    `evaluate` and `predict` are Keras's.
    """

    def fit(  # type: ignore[override]
        self,
        x,
        y=None,
        batch_size=None,
        epochs=1,
        verbose=0,
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
    ):
        """As `keras.Model.fit`, with some of its arguments; callbacks see no `on_test_` calls.

        Of arrays, an epoch has the batches of fit under a global seed: a permutation of the rows,
        the same in every epoch, cut into batches; with `shuffle=False`, the rows in order. The
        rows that `validation_split` holds back are the last, before any shuffling. A
        `tf.data.Dataset` is read anew in each epoch.
        """
        model = self.model
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split(x, y, sample_weight, validation_split)
        batches = Batches(x, y, sample_weight, batch_size, shuffle)
        validation = None
        if validation_data is not None:
            val_x, val_y, val_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
            validation = Batches(val_x, val_y, val_weight, batch_size, shuffle=False)

        callbacks = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=model, epochs=epochs, verbose=verbose
        )

        def train(number, batch):
            callbacks.on_train_batch_begin(number)
            logs = model.train_on_batch(*batch, class_weight, return_dict=True)
            callbacks.on_train_batch_end(number, logs)
            return logs

        def test(number, batch):
            return model.test_on_batch(*batch, return_dict=True)

        model.stop_training = False
        logs: dict[str, Any] = {}
        callbacks.on_train_begin()
        for epoch in range(epochs):
            callbacks.on_epoch_begin(epoch)
            logs = self._run(train, batches)
            if validation is not None:
                val_logs = self._run(test, validation)
                logs |= {f"val_{name}": value for name, value in val_logs.items()}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        # an optimizer with `use_ema` now writes its averages into the weights, as at the end of fit
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs)
        return model.history

    def _run(self, on_batch, batches) -> dict[str, Any]:
        """One pass over the data: the loss and the metrics of all batches together."""
        model = self.model
        logs: dict[str, Any] = {}
        totals: list[np.ndarray] = []
        for number, batch in enumerate(batches):
            logs = on_batch(number, batch)
            # sums and counts, which the next call sets to 0
            states = [v.numpy() for metric in model.metrics for v in metric.variables]
            totals = [a + b for a, b in zip(totals, states, strict=True)] if totals else states
            if model.stop_training:
                break
        variables = [v for metric in model.metrics for v in metric.variables]
        for variable, total in zip(variables, totals, strict=True):
            variable.assign(total)
        results = model.get_metrics_result()
        # a `train_step` of the model's own may return other logs: then the last ones, as in fit
        return dict(results if results.keys() == logs.keys() else logs)


class Batches:
    """The batches `(x, y, sample_weight)` of an epoch, each time that it is iterated.

    Args:
        x, y, sample_weight: arrays `[samples, ...]` or structures of them; or x is a
            `tf.data.Dataset`, and the others are None.
        batch_size: None for fit's default.
        shuffle: whether the rows are permuted, once.
    """

    def __init__(self, x, y, sample_weight, batch_size, shuffle):
        self._dataset = x if is_dataset(x) else None
        if self._dataset is None:
            arrays = x, y, one_for_each_output(y, sample_weight)
            self._arrays = keras.tree.map_structure(_numpy, arrays)
            self._size = batch_size or DEFAULT_BATCH_SIZE
            draw = tf.function(permutation, autograph=False)
            self._order = draw.get_concrete_function(rows(x), shuffle)().numpy()

    def __iter__(self) -> Iterator[tuple]:
        if self._dataset is not None:
            yield from map(keras.utils.unpack_x_y_sample_weight, self._dataset)
            if int(self._dataset.cardinality()) > 0:
                # after an epoch fit makes another iterator, which it does not use; a dataset that
                # shuffles draws for it all the same (`EpochIterator._enumerate_iterator`)
                iter(self._dataset)
            return
        for start in range(0, len(self._order), self._size):
            indices = self._order[start : start + self._size]
            yield keras.tree.map_structure(
                lambda array, at=indices: None if array is None else array[at], self._arrays
            )


def _numpy(array: Any) -> Any:
    return None if array is None else np.asarray(to_array(array))


class Way(NamedTuple):
    """One way to train.

    Attributes:
        trainer: `model -> trainer`.
        page: the file that shows it.
        change: what it lets its user change.
    """

    trainer: Callable[[Any], Any]
    page: Path
    change: str


WAYS = {
    "fit": Way(keras_fit.Trainer, KERAS_PAGES / "one_page.py", "layers, loss, metrics, callbacks"),
    "custom step": Way(CustomStep, KERAS_PAGES / "custom_step_page.py", "and the step"),
    "on batch": Way(OnBatch, KERAS_PAGES / "on_batch_page.py", "batches, epochs; not the step"),
    "manual loop": Way(manual_loop.Trainer, LOOP_PAGES / "one_page.py", "everything"),
}


def ways_of(model: keras.Model) -> dict[str, Way]:
    """The ways that a model can be trained in: with steps of its own, not with the page's."""
    own = any(own_method(model, step) for step in ("train_step", "test_step"))
    return {name: way for name, way in WAYS.items() if not (own and name == "custom step")}


def check_arguments(fit: Mapping[str, Any]) -> None:
    """Checks that `OnBatch` takes these arguments of fit.

    Raises:
        InputError: it does not.
    """
    parameters = inspect.signature(OnBatch.fit).parameters
    for name, value in fit.items():
        given = f"{name}={value!r}"
        if name not in parameters or given == "shuffle='batch'":
            raise InputError(
                f"--ways: the loop over train_on_batch does not take {given}; leave it out of FIT."
            )
