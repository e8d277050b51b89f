"""Models with methods of their own, on both sides."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SPARSE, X, Y, as_arrays, as_dataset, plain
from overrides import ALONE, MODELS, PLAIN, DrawingGan, EvaluatesInFit, HandsOn, Task, of_gan
from parity import TRAINERS, assert_parity, covers, fit, use, values

from manual_loop.compiled.overrides import REFUSED, REPLACED

EAGER = {"run_eagerly": True}
BLOCKS = {"steps_per_execution": 4}
XLA = {"jit_compile": True}


def optimizers(model):
    """All of a model's optimizers; a model with two has others than that of `compile`."""
    return {k: v for k, v in vars(model).items() if isinstance(v, keras.optimizers.Optimizer)}


def everything(trainer, data, validate=False, **arguments):
    """As `use`, where the model can be evaluated; and the state of further optimizers."""
    model = trainer.model
    seen = use(trainer, data, **arguments) if validate else fit(trainer, data, **arguments)
    more = {k: values(v.variables) for k, v in optimizers(model).items()}
    return {**seen, "optimizers": more}


CANNOT_EVALUATE = ("GAN", "momentum encoder")

# Every model eagerly, and in one or two other ways: to trace a step takes a second or two.
IN_GRAPH = {
    "VAE": [{}, XLA],
    "GAN": [{}, {**XLA, **BLOCKS}],
    "gradient penalty": [BLOCKS],
    "momentum encoder": [{}],
    "raw loss": [{}],
    "raw loss by another name": [BLOCKS],
    "accumulated gradients": [BLOCKS],
    "super().train_step": [{}],
    "compute_loss": [BLOCKS],
    "compute_loss alone": [{}],
    "compute_metrics": [BLOCKS],
}


def script(Trainer, name, how, **arguments):
    build, compile, data = MODELS[name]
    trainer = Trainer(build())
    trainer.compile(**compile(**how))
    validate = name not in CANNOT_EVALUATE and how.get("jit_compile") is None
    return everything(trainer, data, validate, epochs=2, batch_size=8, **arguments)


@covers(
    "overrides: train_step, test_step, predict_step",
    "overrides: train_step that calls super()",
    "overrides: compute_loss, compute_metrics",
    "overrides: metrics of the model's own (VAE), compile (GAN with two optimizers)",
    "overrides: a gradient penalty, a momentum encoder, accumulated gradients",
)
@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name, ways in IN_GRAPH.items() for how in (EAGER, *ways)]
)
def test_what_a_model_overrides_is_honored(name, how):
    assert_parity(name, how, script=script)


def raw(Trainer, how):
    trainer = Trainer(DrawingGan())
    trainer.compile(**of_gan(**how))
    return everything(trainer, ALONE, epochs=2, batch_size=8)


@covers("overrides: random numbers of TensorFlow's own generator in train_step")
@pytest.mark.parametrize("how", [{}, EAGER, BLOCKS], ids=str)
def test_a_step_draws_the_same_random_numbers(how):
    assert_parity(how, script=raw)


class Rows(keras.Sequential):
    """Logs of open shape, nested and of other types."""

    def train_step(self, data):
        x, y = data
        loss = keras.losses.sparse_categorical_crossentropy(y, self(x))
        return {"rows": loss, "more": {"count": tf.shape(x)[0], "text": tf.constant("a")}}


def odd_logs(Trainer, data, how):
    trainer = Trainer(Rows(plain().layers))
    trainer.compile("sgd", SPARSE, **how)
    rows = []

    class Take(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rows.append({k: np.array(v).tolist() for k, v in logs.items()})

    history = trainer.fit(**data(X, Y), callbacks=[Take()], verbose=0, epochs=2).history
    return {
        "rows": rows,
        "history": {k: np.array(v).tolist() for k, v in history.items() if k != "rows"},
    }


@covers("overrides: logs of other shapes and dtypes")
@pytest.mark.parametrize("data", [as_arrays, as_dataset])
@pytest.mark.parametrize("how", [{}, BLOCKS], ids=str)
def test_logs_of_other_shapes(data, how):
    assert_parity(data, how, script=odd_logs)


def test_the_last_logs_are_replaced_where_keras_has_a_metric_of_that_name():
    """A step that returns the raw loss as "loss" and never updates Keras's mean shows 0."""
    trainer = TRAINERS["manual_loop"](MODELS["raw loss"][0]())
    trainer.compile("sgd", SPARSE, run_eagerly=True)
    assert trainer.fit(X, Y, verbose=0).history["loss"] == [0.0]


# fit, evaluate and predict of the model's own ---------------------------------------------------

WORDS = np.array(list("abcbacabcabcab"))
TASK = {"x": WORDS, "y": Y[: len(WORDS)]}


def task(cls):
    def build():
        return cls(plain().layers)

    return build


def do_task(Trainer, cls, data, **arguments):
    trainer = Trainer(task(cls)())
    trainer.compile("sgd", SPARSE, metrics=["acc"])
    seen = use(trainer, data, **arguments)
    between = getattr(trainer.model, "between", None)
    logs = None
    if cls is Task:
        logs = trainer.train_on_batch(**TASK)
    assert type(trainer.model) is cls
    return {**seen, "own calls": trainer.model.calls, "between": between, "on batch": logs}


@covers("overrides: fit, evaluate, predict and train_on_batch that prepare data and call super()")
@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (Task, {**TASK, "validation_data": (WORDS[:6], Y[:6])}),
        (EvaluatesInFit, TASK),
        (HandsOn, {**PLAIN, "validation_data": (X[:6], Y[:6])}),
    ],
)
def test_a_task_that_prepares_data_is_honored(cls, data):
    seen = assert_parity(cls, data, script=do_task, epochs=2, batch_size=4)
    assert "evaluate" in seen["own calls"]


@covers("overrides: Keras's own steps and loop", promise="never run, but for super()")
def test_only_what_a_model_overrides_is_called(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("Keras's own")

    for name in (*REPLACED, *REFUSED, "train_step", "test_step", "predict_step"):
        owner = next(cls for cls in keras.Model.__mro__ if name in vars(cls))
        monkeypatch.setattr(owner, name, never)
    monkeypatch.setattr(keras.Model, "compute_loss", never)
    monkeypatch.setattr(keras.Model, "compute_metrics", never)
    eager = {"run_eagerly": True}
    for name in ("VAE", "compute_loss alone"):
        build, compile, data = MODELS[name]
        trainer = TRAINERS["manual_loop"](build())
        trainer.compile(**compile(**eager))
        use(trainer, data, epochs=1, batch_size=8)
    trainer = TRAINERS["manual_loop"](task(Task)())
    trainer.compile("sgd", SPARSE, **eager)
    use(trainer, TASK, epochs=1, shuffle=False)
    trainer.train_on_batch(**TASK)
    assert trainer.model.calls.count("fit") == 1


class Watch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.cls = type(self.model)

    def on_test_begin(self, logs=None):
        raise KeyboardInterrupt


def test_callbacks_see_the_class_of_the_model_and_an_error_leaves_it():
    trainer = TRAINERS["manual_loop"](task(Task)())
    trainer.compile("sgd", SPARSE, run_eagerly=True)
    watch = Watch()
    trainer.fit(**TASK, callbacks=[watch], verbose=0, shuffle=False)
    assert watch.cls is Task
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate(**TASK, callbacks=[watch], verbose=0)
    assert type(trainer.model) is Task
    assert "fit" not in vars(keras.Model)


# What is refused, and what is wrong -------------------------------------------------------------


@covers("errors: a model that overrides what cannot be honored", promise="ValueError that names it")
@pytest.mark.parametrize("name", [*REFUSED, *REPLACED])
def test_what_cannot_be_honored_is_refused(name):
    model = plain()
    if name in REFUSED:
        model = type("Own", (keras.Sequential,), {name: lambda self, force=False: None})()
    else:
        setattr(model, name, lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match=f"`{name}`"):
        TRAINERS["manual_loop"](model)


def returning(value):
    return lambda self, data: value


def py_function(self, data):
    return {"loss": tf.py_function(lambda: 1.0, [], tf.float32)}


WRONG = [
    ("train_step", lambda self: None, "fit", {}, ""),
    ("test_step", lambda self: None, "evaluate", {}, ""),
    ("predict_step", lambda self: None, "predict", {}, ""),
    ("compute_loss", lambda self, x: None, "fit", {}, ""),
    ("compute_metrics", lambda self, x, y, y_pred: None, "fit", {}, ""),
    ("fit", lambda self, x: None, "fit", {}, ""),
    ("train_step", returning(tf.constant(1.0)), "fit", {}, "`train_step` must return a dict"),
    ("train_step", returning([tf.constant(1.0)]), "fit", EAGER, "`train_step` must return a dict"),
    ("train_step", returning(1.0), "fit", BLOCKS, "`train_step` must return a dict"),
    ("train_step", returning(None), "fit", {}, "`train_step` must return a dict"),
    ("train_step", returning(None), "fit", EAGER, "`train_step` must return a dict"),
    ("train_step", returning({}), "fit", BLOCKS, "`train_step` must return a dict"),
    ("test_step", returning(None), "evaluate", {}, "`test_step` must return a dict"),
    ("compute_loss", lambda self, x, y, y_pred, weight: None, "fit", {}, "None"),
    (
        "compute_metrics",
        lambda self, x, y, y_pred, sample_weight: None,
        "fit",
        {},
        "`compute_metrics` must return a dict",
    ),
    ("train_step", py_function, "fit", XLA, "EagerPyFunc"),
    ("train_step", py_function, "fit", {**XLA, **BLOCKS}, "EagerPyFunc"),
    ("compile", lambda self, a: None, "compile", {}, ""),
    ("compile", lambda self, *args, **kwargs: None, "fit", {}, "compile"),
]


def compile_and_call(trainer, how, call, data):
    trainer.compile(optimizer="sgd", loss=SPARSE, **how)
    getattr(trainer, call)(**data)


def of_wrong(row):
    return row if isinstance(row, str | dict) else None


@covers("errors: an override with a wrong signature, result or op", promise="the exception of fit")
@pytest.mark.parametrize(("name", "method", "call", "how", "says"), WRONG, ids=of_wrong)
def test_wrong_overrides(name, method, call, how, says):
    kinds = []
    for Trainer in TRAINERS.values():
        model = type("Own", (keras.Sequential,), {name: method})(plain().layers)
        data = {"x": X, "verbose": 0, **({} if call == "predict" else {"y": Y})}
        with pytest.raises(Exception) as caught:  # noqa: PT011
            compile_and_call(Trainer(model), how, call, data)
        kinds.append(caught.type)
    assert kinds[0] is kinds[1], caught.value
    caught.match(says)
