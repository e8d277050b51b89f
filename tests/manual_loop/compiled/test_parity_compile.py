"""Every argument of `compile`: losses, metrics and weights in each nesting that Keras takes."""

import keras
import pytest
from cases import (
    CLASSES,
    ONE_HOT,
    SHORT,
    SIDE,
    SPARSE,
    VALUE,
    X,
    Y,
    compile_with,
    functional,
    plain,
    two_named,
    two_outputs,
)
from parity import assert_parity, covers, fit, label, needs_keras, use

losses, metrics, optimizers = keras.losses, keras.metrics, keras.optimizers
EAGER = {"run_eagerly": True}
ONCE = SHORT | {"epochs": 1}  # the metrics are reset for the validation, and for `evaluate`
LIST = {"x": X, "y": [Y, VALUE]}
DICT = {"x": {"x": X, "side": SIDE}, "y": {"klass": Y, "value": VALUE}}


NESTED = needs_keras("3.14", "takes no such list for one output")


def case(topic, data, *marks, **arguments):
    """Arguments of `compile`; a function where objects in them must be new for each side."""
    name = ", ".join(f"{k}={v}" for k, v in arguments.items())
    marks = [covers(f"compile: {topic}"), *marks]
    return pytest.param(data, arguments, id=label(name)[:100], marks=marks)


def new(arguments):
    """The arguments with a new object for every `New`."""
    return {k: keras.tree.map_structure(made, v) for k, v in arguments.items()}


class New:
    """An object that each side makes for itself."""

    def __init__(self, cls, *args, **kwargs):
        self.make = lambda: cls(*args, **kwargs)
        self.name = cls.__name__

    def __repr__(self):
        return self.name


def made(leaf):
    return leaf.make() if isinstance(leaf, New) else leaf


def absolute(y, y_pred):
    return keras.ops.mean(keras.ops.abs(y - y_pred), axis=-1)


class Cubed(losses.Loss):
    def call(self, y, y_pred):
        return keras.ops.mean(keras.ops.abs(y - y_pred) ** 3, axis=-1)


class Spread(metrics.Metric):
    def __init__(self, name="spread"):
        super().__init__(name=name)
        self.low = self.add_variable((), "zeros", name="low")
        self.high = self.add_variable((), "zeros", name="high")

    def update_state(self, y, y_pred, sample_weight=None):
        self.low.assign(keras.ops.minimum(self.low, keras.ops.min(y_pred)))
        self.high.assign(keras.ops.maximum(self.high, keras.ops.max(y_pred)))

    def result(self):
        return {"low": self.low + 0.0, "high": self.high + 0.0}


WITH_ONE_HOT = {"x": X, "y": ONE_HOT}
ONE_OUTPUT = [
    case("loss", CLASSES, loss="crossentropy", metrics=["accuracy", "acc"]),
    case("loss", WITH_ONE_HOT, loss="ce", metrics=["acc", "accuracy"]),
    case(
        "loss",
        CLASSES,
        loss="SparseCategoricalCrossentropy",
        metrics=["sparse_top_k_categorical_accuracy"],
    ),
    case("loss", WITH_ONE_HOT, loss=New(losses.CategoricalCrossentropy, label_smoothing=0.1)),
    case("loss", WITH_ONE_HOT, loss=New(losses.CategoricalFocalCrossentropy, reduction="sum")),
    case("loss", WITH_ONE_HOT, loss=losses.mean_absolute_error),
    case("loss", WITH_ONE_HOT, loss=absolute),
    case("loss", WITH_ONE_HOT, loss=Cubed),
    case("loss", WITH_ONE_HOT, loss=New(Cubed, reduction="sum_over_batch_size", name="c")),
    case("loss", WITH_ONE_HOT, loss=["categorical_crossentropy"]),
    case("loss", WITH_ONE_HOT, loss=["crossentropy", "mse"]),
    case("loss", {"x": X, "y": [Y]}),
    case("loss", WITH_ONE_HOT, loss={"out": "mse"}, metrics={"out": ["mae"]}),
    case("loss_weights", CLASSES, loss_weights=0.3),
    case("loss_weights", CLASSES, loss=[SPARSE], loss_weights=[0.3]),
    case("loss_weights", CLASSES, loss={"out": SPARSE}, loss_weights={"out": 0.3}),
    case("metrics", CLASSES, metrics=None),
    case("metrics", CLASSES, metrics=[]),
    case("metrics", CLASSES, metrics=["acc", "acc", "acc", "accuracy"]),
    case("metrics", CLASSES, NESTED, metrics=[["acc"]]),
    case("metrics", CLASSES, NESTED, metrics=("acc",)),
    case("metrics", CLASSES, metrics={"out": "acc"}),
    case(
        "metrics", WITH_ONE_HOT, metrics=[metrics.AUC, New(metrics.Precision, name="p")], loss="mse"
    ),
    case("metrics", WITH_ONE_HOT, metrics=[New(metrics.F1Score), "mae", absolute], loss="mse"),
    case("metrics", WITH_ONE_HOT, metrics=[New(Spread), "acc", New(Spread, "s")], loss="mse"),
    case("metrics", WITH_ONE_HOT, metrics=[New(metrics.MeanIoU, num_classes=2)], loss="mse"),
    case("weighted_metrics", CLASSES, weighted_metrics=["acc"]),
    case("weighted_metrics", CLASSES, metrics=["acc"], weighted_metrics=["acc", SPARSE]),
    case("weighted_metrics", CLASSES, metrics=None, weighted_metrics=[]),
    case("optimizer", CLASSES, optimizer="rmsprop"),
    case("optimizer", CLASSES, optimizer="AdamW"),
    case("optimizer", CLASSES, optimizer={"class_name": "sgd", "config": {"momentum": 0.9}}),
    case("optimizer", CLASSES, optimizer=New(optimizers.SGD, 0.1, name="mine")),
]


@pytest.mark.parametrize(("data", "arguments"), ONE_OUTPUT)
def test_one_output(data, arguments):
    weight = {"sample_weight": X[:, 0] ** 2}
    compile = lambda: compile_with(**{**EAGER, **new(arguments)})()  # noqa: E731
    assert_parity(functional, compile, {**data, **weight}, **ONCE)


TWO = {"loss": [SPARSE, "mse"]}
NAMED = {"loss": {"klass": SPARSE, "value": "mse"}}
LISTED = [
    case("loss", LIST, **TWO),
    case("loss", LIST, loss=(SPARSE, New(losses.Huber))),
    case("loss", LIST, **NAMED),
    case("loss", {**LIST, "y": {"klass": Y, "value": VALUE}}, **NAMED),
    case("loss", {**LIST, "y": {"value": VALUE, "klass": Y}}, **TWO),
    case("loss", {**LIST, "y": (Y, VALUE)}, loss=[SPARSE, "mse"]),
    case("loss", {**LIST, "y": [ONE_HOT, VALUE]}, loss="mse"),
    case("loss", LIST, loss=[SPARSE, None]),
    case("loss", {**LIST, "y": [Y]}, loss=[SPARSE, None]),
    case("loss", LIST, loss=[None, "mse"]),
    case("loss", LIST, loss=[None, None]),  # the model has one of its own
    case("loss_weights", LIST, **TWO, loss_weights=[0.5, 2.0]),
    case("loss_weights", LIST, **TWO, loss_weights=(0.5, 2.0)),
    case("loss_weights", LIST, **NAMED, loss_weights={"klass": 0.5, "value": 2.0}),
    case("loss_weights", LIST, **NAMED, loss_weights={"value": 2.0, "klass": 0.5}),
    case("metrics", LIST, **TWO, metrics=["acc", "mae"]),
    case("metrics", LIST, **TWO, metrics=[["acc"], ["mae", "mse"]]),
    case("metrics", LIST, **TWO, metrics=[None, ["mae"]]),
    case("metrics", LIST, **TWO, metrics={"klass": "acc", "value": ["mae", "mse"]}),
    case("metrics", LIST, **TWO, metrics={"value": "mae"}),
    case("metrics", {**LIST, "y": [Y]}, loss=[SPARSE, None], metrics=["acc", None]),
    case("weighted_metrics", LIST, **TWO, weighted_metrics=[["acc"], ["mae"]]),
    case("weighted_metrics", LIST, **TWO, metrics=["acc", "mae"], weighted_metrics=["acc", "mae"]),
]


@pytest.mark.parametrize(("data", "arguments"), LISTED)
def test_a_list_of_outputs(data, arguments):
    arguments = {"metrics": None, **arguments}
    compile = lambda: compile_with(**EAGER, **new(arguments))()  # noqa: E731
    assert_parity(two_outputs, compile, data, **ONCE)


NAMES = [
    case("loss", DICT, **NAMED),
    case(
        "loss",
        DICT,
        loss={"value": "mse", "klass": SPARSE},
        metrics={"value": "mae", "klass": "acc"},
    ),
    case("loss", DICT, loss={"klass": SPARSE}),
    case("loss", DICT, loss=[SPARSE, "mse"]),
    case("loss", {**DICT, "y": {"value": VALUE, "klass": Y}}, **NAMED),
    case("loss", {**DICT, "y": {"klass": ONE_HOT, "value": VALUE}}, loss="mse"),
    case("loss_weights", DICT, **NAMED, loss_weights={"value": 3.0, "klass": 1.0}),
    case("loss_weights", DICT, **NAMED, loss_weights=[1.0, 3.0]),
    case("metrics", DICT, **NAMED, metrics={"klass": ["acc"], "value": "mae"}),
    case("metrics", DICT, **NAMED, metrics={"value": ["mae"]}),
    case("weighted_metrics", DICT, **NAMED, weighted_metrics={"value": ["mae"], "klass": "acc"}),
]


@pytest.mark.parametrize(("data", "arguments"), NAMES)
def test_a_dict_of_outputs(data, arguments):
    arguments = {"metrics": None, **EAGER, **arguments}
    compile = lambda: compile_with(**new(arguments))()  # noqa: E731
    assert_parity(two_named, compile, data, **ONCE)


def values_named(*names):
    def build():
        x = keras.Input([8])
        return keras.Model(x, [keras.layers.Dense(1, name=name)(x) for name in names])

    return build


@covers("compile: loss")
def test_losses_that_compare_all_outputs_at_once():
    compile = compile_with(**EAGER, loss=("mse", "mae", "mse"), metrics=None)
    data = {"x": X, "y": [VALUE, 2 * VALUE]}
    seen = assert_parity(values_named("a", "b"), compile, data, then=fit, **SHORT)
    assert "a_b_loss" in seen["history"]


@covers("compile: loss")
def test_labels_for_the_outputs_with_a_loss_alone():
    compile = compile_with(**EAGER, loss=["mse", None, "mae", None, None], metrics=None)
    data = {"x": X, "y": [VALUE, 2 * VALUE]}
    assert_parity(values_named(*"abcde"), compile, data, then=fit, **SHORT)


@covers("compile: loss", "compile: metrics")
@pytest.mark.parametrize(("first", "later"), [([Y], [Y, VALUE]), ([Y, VALUE], [Y])])
def test_labels_in_other_containers_in_a_later_call(first, later):
    def script(Trainer):
        trainer = Trainer(two_outputs())
        trainer.compile("sgd", (SPARSE, None), metrics=["acc", "mae"], run_eagerly=True)
        trained = fit(trainer, {"x": X, "y": first}, **SHORT)
        return {"trained": trained, "evaluated": trainer.evaluate(X, later, verbose=0)}

    assert_parity(script=script)


@covers("compile: loss", "compile: metrics")
@pytest.mark.parametrize("container", [list, dict])
def test_labels_alone_for_one_output_in_a_container(container):
    def build():
        inputs = keras.Input([8])
        out = keras.layers.Dense(3, activation="softmax", name="out")(inputs)
        return keras.Model(inputs, {"out": out} if container is dict else [out])

    assert_parity(build, compile_with(**EAGER), CLASSES, **SHORT)


@covers("compile: metrics")
def test_outputs_under_each_others_names():
    def build():
        x = keras.Input([8])
        klass = keras.layers.Dense(3, activation="softmax", name="value")(x)
        return keras.Model(x, {"klass": klass, "value": keras.layers.Dense(1, name="klass")(x)})

    arguments = {**EAGER, **NAMED, "metrics": {"klass": ["acc"], "value": "mae"}}
    assert_parity(build, compile_with(**arguments), {**DICT, "x": X}, then=fit, **SHORT)


@covers("compile: loss", "compile: metrics")
@pytest.mark.parametrize("block", [1, 2])
def test_nestings_as_a_graph(block):
    how = {"metrics": None, "steps_per_execution": block}
    named = {**how, **NAMED, "metrics": {"klass": ["acc"], "value": "mae"}}
    assert_parity(two_named, compile_with(**named), DICT, then=use_and_name, **SHORT)
    listed = {**how, **TWO, "loss_weights": [0.5, 2.0], "weighted_metrics": [["acc"], ["mae"]]}
    assert_parity(two_outputs, compile_with(**listed), LIST, then=use_and_name, **SHORT)


def use_and_name(trainer, data, **arguments):
    """As `use`; and the results of `evaluate` by name."""
    seen = use(trainer, data, **arguments)
    named = trainer.evaluate(**data, batch_size=8, verbose=0, return_dict=True)
    assert len(named) == len(seen["evaluate"]) > 2
    return seen | {"evaluate(return_dict=True)": named}


@covers("compile: optimizer")
def test_an_optimizer_in_use_goes_on_in_a_second_compile():
    def script(Trainer):
        trainer = Trainer(plain())
        optimizer = optimizers.Adam(0.1)
        trainer.compile(optimizer, SPARSE)
        first = fit(trainer, CLASSES, batch_size=8)
        trainer.compile(optimizer, SPARSE, metrics=["acc"])
        second = fit(trainer, CLASSES, batch_size=8)
        trainer.compile(optimizer)  # as in Keras, the loss and the metrics stay those of before
        return {"first": first, "second": second, "third": fit(trainer, CLASSES, batch_size=8)}

    assert_parity(script=script)


@covers("compile: everything left at its default")
def test_a_loss_of_the_model_alone():
    def build():
        inputs = keras.Input([8])
        outputs = keras.layers.Dense(3, activity_regularizer="l2")(inputs)
        return keras.Model(inputs, outputs)

    assert_parity(build, dict, {"x": X}, **SHORT)


@covers("compile: metrics")
def test_a_metric_of_several_numbers_is_logged_as_an_array():
    def script(Trainer):
        trainer = Trainer(plain())
        trainer.compile(**compile_with(loss="mse", metrics=[metrics.F1Score()], **EAGER)())
        logs = trainer.evaluate(X, ONE_HOT, verbose=0, return_dict=True)
        return {name: (type(value).__name__, value) for name, value in logs.items()}

    seen = assert_parity(script=script)
    assert seen["f1_score"][0] == "ndarray"
