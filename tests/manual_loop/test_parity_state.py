"""What `compile` decided, and what changes it: attributes, another trainer, an error."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, SPARSE, X, Y, compile_with, plain
from parity import TRAINERS, assert_parity, covers, fit, values

EAGER = {"run_eagerly": True}
SHORT = {"batch_size": 2, "shuffle": False}  # 11 batches


class Traces(keras.layers.Layer):
    """Counts how often Python runs its `call`, and remembers whether it did so eagerly."""

    def __init__(self):
        super().__init__()
        self.eager = []

    def call(self, x):
        self.eager.append(tf.executing_eagerly())
        return x


def counting():
    return keras.Sequential(
        [keras.Input([8]), Traces(), keras.layers.Dense(3, activation="softmax")]
    )


def state(trainer):
    """What differs if a change of the model is ignored."""
    model = trainer.model
    layer = model.layers[0]
    return {
        "iterations": int(model.optimizer.iterations),
        "weights": values(model.variables),
        "jit_compile": model.jit_compile,
        "eager": sorted(set(getattr(layer, "eager", ()))),
    }


CHANGES = {
    "steps_per_execution": 4,
    "run_eagerly": True,
    "jit_compile": True,
    "optimizer": lambda: keras.optimizers.SGD(0.5),
}


def compile(name):
    """The arguments of `compile`; an optimizer with more variables where it is what changes."""
    return compile_with(optimizer="adam" if name == "optimizer" else "sgd")()


def change(model, name):
    value = CHANGES[name]
    setattr(model, name, value() if callable(value) else value)


@covers("model: attributes changed after compile")
@pytest.mark.parametrize("name", CHANGES)
def test_an_attribute_changed_before_the_first_fit(name):
    def script(Trainer):
        trainer = Trainer(counting())
        trainer.compile(**compile(name))
        change(trainer.model, name)
        seen = fit(trainer, CLASSES, **SHORT)
        return {**seen, **state(trainer)}

    seen = assert_parity(script=script)
    assert seen["iterations"] == 11
    assert seen["eager"] == ([False, True] if name == "run_eagerly" else [False])


@covers("model: attributes changed after compile")
@pytest.mark.parametrize("name", CHANGES)
def test_an_attribute_changed_after_a_first_fit(name):
    """The traced graph keeps what it was traced with; only the epoch is cut by the new number."""

    def script(Trainer):
        trainer = Trainer(counting())
        trainer.compile(**compile(name))
        first = fit(trainer, CLASSES, **SHORT)
        change(trainer.model, name)
        again = fit(trainer, CLASSES, **SHORT)
        other = fit(trainer, {"x": X[:20], "y": Y[:20]}, batch_size=5, shuffle=False)
        outputs = trainer.predict(X, batch_size=4, verbose=0)
        return {
            "first": first,
            "again": again,
            "other": other,
            "predict": outputs,
            **state(trainer),
        }

    seen = assert_parity(script=script)
    if name == "steps_per_execution":  # three calls of one step each
        assert len([c for c in seen["again"]["calls"] if c[0] == "on_train_batch_end"]) == 3


@covers("model: attributes changed after compile")
def test_steps_per_execution_changed_after_a_first_predict():
    def script(Trainer):
        trainer = Trainer(plain())
        trainer.compile(**compile_with()())
        first = trainer.predict(X, batch_size=4, verbose=0)
        trainer.model.steps_per_execution = 3
        return {"first": first, "again": trainer.predict(X, batch_size=4, verbose=0)}

    seen = assert_parity(script=script)
    assert len(seen["again"]) == 8  # of 22: fit's function takes the first of three batches


@covers("compile: two trainers of one model")
def test_the_last_compile_counts_for_all_trainers():
    def script(Trainer):
        model = plain()
        first, second = Trainer(model), Trainer(model)
        first.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.5), SPARSE, **EAGER)
        seen = [fit(first, CLASSES, **SHORT)]
        second.compile("sgd", "mse", metrics=["mae"], **EAGER)
        data = {"x": X, "y": np.eye(3, dtype="float32")[Y[:, 0]]}
        seen += [fit(first, data, **SHORT), fit(second, data, **SHORT)]
        return {"seen": seen, "names": [m.name for m in model.metrics]}

    seen = assert_parity(script=script)["seen"]
    assert [list(s["history"]) for s in seen] == [["loss"], ["loss", "mae"], ["loss", "mae"]]


@covers("compile: model.compile after a fit of the trainer")
def test_a_compile_of_the_model_itself_counts():
    def script(Trainer):
        model = plain()
        trainer = Trainer(model)
        trainer.compile("sgd", SPARSE, **EAGER)
        seen = [fit(trainer, CLASSES, **SHORT)]
        model.compile("adam", SPARSE, metrics=["acc", lambda y, y_pred: y_pred], **EAGER)
        return {"seen": [*seen, fit(trainer, CLASSES, **SHORT)], "optimizer": model.optimizer.name}

    assert assert_parity(script=script)["optimizer"] == "adam"


class OwnMetrics(keras.Model):
    """Overrides what fit reads and resets."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation="softmax")
        self.calls = keras.metrics.Sum(name="calls")
        self.resets = 0

    def call(self, x):
        self.calls.update_state(1.0)
        return self.dense(x)

    @property
    def metrics(self):
        return [self.calls, *super().metrics]

    def reset_metrics(self):
        self.resets += 1
        if self.resets % 2:
            super().reset_metrics()

    def get_metrics_result(self):
        return {"twice": 2 * self.calls.result(), **super().get_metrics_result()}


@covers("model: overrides of metrics, reset_metrics and get_metrics_result")
@pytest.mark.parametrize("how", [{}, EAGER], ids=str)
def test_overrides_of_the_metrics_are_honored(how):
    def script(Trainer):
        model = OwnMetrics()
        trainer = Trainer(model)
        trainer.compile("sgd", SPARSE, metrics=["acc"], **how)
        data = {**CLASSES, "validation_data": (X[:8], Y[:8])}
        return {**fit(trainer, data, epochs=3, batch_size=8), "resets": model.resets}

    seen = assert_parity(script=script)
    assert seen["resets"] == 6
    assert "val_twice" in seen["history"]


class Fail(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@covers("fit: the arrays on the device after an error", promise="released")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=str)
def test_an_error_releases_the_arrays(how):
    trainer = TRAINERS["manual_loop"](plain())
    trainer.compile("sgd", SPARSE, **how)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, callbacks=[Fail()], verbose=0)
    (bound,) = trainer._functions["train"]._on_arrays.values()
    held = [v.shape for v in map(tf.convert_to_tensor, bound._variables) if v.shape.rank]
    assert all(shape[0] == 0 for shape in held)
    assert held
