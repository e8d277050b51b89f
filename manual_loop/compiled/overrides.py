"""A model with methods of its own: what it overrides runs, and the loop runs around it.

| the model overrides | then |
|---|---|
| `train_step`, `test_step`, `predict_step` | it takes the place of the function in `steps.py` |
| `compute_loss`, `compute_metrics` | it takes the place of `loss` and `metrics` in that function |
| `fit`, `evaluate`, `predict`, `*_on_batch` | it runs first; its `super().fit(...)` is the loop |
| `compile` | it runs, and calls Keras's own by `super()` |
| `metrics`, `reset_metrics`, `get_metrics_result` | the loop asks the model for them anyway |
| `make_train_function` and its siblings | refused: they would build Keras's loop |

What Keras defines itself is never called from here, only what a subclass defines; that may call
Keras's by `super()`, as it does under `fit`.
"""

import contextlib
import functools
import inspect

import keras
import tensorflow as tf

# What `Trainer` does in the place of Keras, unless the model's own version does something first.
REPLACED = (
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)
REFUSED = ("make_train_function", "make_test_function", "make_predict_function")


def own_method(model, name):
    """The model's own version of a method of `keras.Model`; None if it has Keras's."""
    if name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name):
        return getattr(model, name)
    return None


def refuse_overrides(model):
    """Raise ValueError if the model overrides what cannot be honored."""
    for name in REFUSED:
        if own_method(model, name) is not None:
            raise ValueError(
                f"The model overrides `{name}`, which builds Keras's own loop. Override the step "
                "that it runs instead (`train_step`, `test_step`, `predict_step`), or train the "
                "model with `model.fit`."
            )
    for name in REPLACED:
        if name in vars(model):
            raise ValueError(
                f"`{name}` was set on the model object, where its call of the original one cannot "
                "be told from others. Override it in a subclass, with `super()`."
            )


# Steps ------------------------------------------------------------------------------------------


def own_step(model, name):
    """`data -> logs`: the model's own step; None if it has Keras's.

    Args:
        model: a `keras.Model`.
        name: "train_step" or "test_step".
    """
    own = own_method(model, name)
    if own is None:
        return None

    def step(data):
        logs = own(data)
        assert_logs(name, logs)
        return logs

    return step


def assert_logs(name, logs):
    """Raise what fit raises if a step returns no dict, or one without values.

    fit raises `AttributeError` where it looks for `.items`, and the error of an empty
    `tf.experimental.Optional` where there is no tensor at all (Keras 3.15).
    """
    says = f"`{name}` must return a dict: name -> scalar tensor. It returned: {logs!r}"
    if not [leaf for leaf in keras.tree.flatten(logs) if leaf is not None]:
        if tf.executing_eagerly():
            raise tf.errors.InvalidArgumentError(None, None, says)
        raise ValueError(says)
    if not hasattr(logs, "items"):
        raise AttributeError(says)


def own_loss(compute_loss, x, training):
    """The model's own `compute_loss`, called as the `CompiledLoss` of one batch is.

    It adds `model.losses` itself, if at all. (`Trainer._compute_loss`: `training` is passed to
    those that name it.)
    """
    named = inspect.signature(compute_loss).parameters
    how = {"training": training} if "training" in named else {}

    def loss(y, y_pred, sample_weight, _):
        return compute_loss(x, y, y_pred, sample_weight, **how)

    return loss


class OwnMetrics:
    """The model's own `compute_metrics`, called as the `CompiledMetrics` of one batch are.

    Args:
        compute_metrics: the method; what it returns are the logs.
        x: of the batch.
        loss: the `keras.metrics.Mean` of the batches' losses.
    """

    def __init__(self, compute_metrics, x, loss):
        self.loss = loss
        self._compute_metrics = compute_metrics
        self._x = x
        self._logs = None

    def update_state(self, y, y_pred, sample_weight):
        """See `CompiledMetrics`."""
        self._logs = self._compute_metrics(self._x, y, y_pred, sample_weight=sample_weight)

    def result(self):
        """What `compute_metrics` returned."""
        assert_logs("compute_metrics", self._logs)
        return self._logs


# The methods around the steps -------------------------------------------------------------------


def overridable(method):
    """Of a method of `Trainer`: run the model's own version, if it has one."""
    name = method.__name__

    @functools.wraps(method)
    def call(trainer, *args, **kwargs):
        own = own_method(trainer.model, name)
        if own is None:
            return method(trainer, *args, **kwargs)
        if name == "compile":  # its `super()` is Keras's
            with trainer.scope():
                return own(*args, **kwargs)
        return call_own(trainer, name, args, kwargs)

    call.around_the_steps = method  # type: ignore[attr-defined]
    return call


def around_the_steps(trainer, name):
    """A method of the trainer, without asking for the model's own version."""
    return functools.partial(getattr(type(trainer), name).around_the_steps, trainer)


def call_own(trainer, name, args, kwargs, **instead):
    """Call the model's own version of a method, with `super()` leading into the loop.

    Meanwhile the model is an instance of a subclass of its class, with one more base: just before
    `keras.Model` comes a class whose `fit`, `evaluate`, ... are the trainer's. While the loop runs,
    the model has its class back, so that callbacks save and see it as ever. No class of Keras or of
    the user's is changed; other models never notice. It is for one thread: do not use the *same*
    model from another one while its own `fit` runs.

    Args:
        trainer: the `Trainer`.
        name: of the method.
        args, kwargs: its arguments.
        **instead: by name, functions that `super()` leads to in the place of the trainer's methods.
    """
    model = trainer.model
    cls = type(model)

    def loop(name):
        function = instead.get(name, around_the_steps(trainer, name))

        def run_loop(_, *args, **kwargs):
            with class_of(model, cls):
                return function(*args, **kwargs)

        return run_loop

    base = type("Loop", (keras.Model,), {name: loop(name) for name in REPLACED})
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    with class_of(model, type(cls.__name__, (cls, base), names)):
        return getattr(model, name)(*args, **kwargs)


@contextlib.contextmanager
def class_of(model, cls):
    """The model is an instance of `cls` within the block."""
    before = type(model)
    # past the __setattr__ of Keras and TensorFlow, which would track the class as a value
    object.__setattr__(model, "__class__", cls)
    try:
        yield
    finally:
        object.__setattr__(model, "__class__", before)


def own_validation(trainer, evaluate, arguments):
    """`callbacks -> logs`: the model's own `evaluate`, as fit calls it after an epoch.

    That is with the validation data, and with a keyword which tells Keras's own `evaluate` to use
    the batches that it has made of them already. A version that hands this keyword on evaluates
    these batches, whatever it made of `x` (`keras/src/backend/tensorflow/trainer.py`, Keras 3.15).

    Args:
        trainer: the `Trainer`.
        evaluate: `(callbacks, verbose, return_dict) -> logs`, of these batches.
        arguments: dict: the validation data, and how they are cut, as `evaluate` takes them.
    """

    def run(*args, _use_cached_eval_dataset=False, **kwargs):
        if not _use_cached_eval_dataset:
            return around_the_steps(trainer, "evaluate")(*args, **kwargs)
        names = inspect.signature(evaluate).parameters
        return evaluate(**{name: value for name, value in kwargs.items() if name in names})

    def validate(callbacks):
        how = {"callbacks": callbacks, "return_dict": True, "_use_cached_eval_dataset": True}
        return call_own(trainer, "evaluate", (), {**arguments, **how}, evaluate=run)

    return validate
