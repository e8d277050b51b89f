"""Wrong calls: the loop raises what fit raises, as early, and says which argument is wrong.

Here are those of which the words matter, or the kind of model: see `test_wrong_values.py`.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SIDE, SPARSE, VALUE, X, Y, plain, two_named, two_outputs
from parity import TRAINERS, covers, label, needs_keras

BOTH = {"loss": [SPARSE, "mse"]}
NAMED = {"loss": {"klass": SPARSE, "value": "mse"}}
DICTS = {"x": {"x": X, "side": SIDE}, "y": {"klass": Y, "value": VALUE}}
NAMES_IN_A_WRAPPER = needs_keras("3.15", "prints the list of names with its class, ListWrapper")


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


class TwoOfOne(keras.Model):
    """A tuple of outputs without names."""

    def __init__(self):
        super().__init__()
        self.klass = keras.layers.Dense(3, activation="softmax")
        self.value = keras.layers.Dense(1)

    def call(self, x):
        return self.klass(x), self.value(x)


def outputs_in_outputs():
    model = two_outputs()
    klass, value = model.outputs
    return keras.Model(model.inputs, {"klass": klass, "rest": [value]})


def without_names():
    model = TwoOfOne()
    model(X)
    return model


def row(says, *, build=plain, compile=(), call="fit", marks=(), **arguments):
    """A wrong call.

    Args:
        says: what the loop's message holds, a regular expression.
        build: the model.
        compile: arguments of `compile`; None to leave it out.
        call: the method that is called.
        marks: of the test.
        **arguments: those of the call, in place of `x=X, y=Y`; functions are called.
    """
    parts = [f"{k}={v!r}" for k, v in {**dict(compile or {}), **arguments}.items()]
    name = ", ".join(part for part in parts if len(part) < 60 and "\n" not in part)
    if compile is not None:  # eager: nothing to trace, and the same errors
        compile = {"optimizer": "sgd", "loss": SPARSE, "run_eagerly": True, **dict(compile)}
    case = says, build, compile, call, arguments
    return pytest.param(*case, id=label(f"{call}({name})"), marks=marks)


COMPILE = [
    row("Unknown optimizer: 'adamm'.*'adam'", compile={"optimizer": "adamm"}),
    row(
        "`sample_weight_mode`.*`sample_weight` of shape", compile={"sample_weight_mode": "temporal"}
    ),
    row("`target_tensors`.*`y`", compile={"target_tensors": [Y]}),
    row("mean_squared_error|mse", compile={"loss": "mean_squared_eror"}),
    row("outputs have no names", compile={"loss": {"dense_1": SPARSE}}),
    row("accuracy", compile={"metrics": ["acuracy"]}),
    row(
        r"`metrics` should .*output names .*\['klass', 'value'\] or .* structure .*\['X', 'X'\]\.",
        build=two_outputs,
        y=[Y, VALUE],
        compile={**BOTH, "metrics": ["acc", "mae", "mse"]},
        marks=NAMES_IN_A_WRAPPER,
    ),
    row(
        r"`metrics` should .* match the output structure of the model: \('X', 'X'\)\.",
        build=without_names,
        y=(Y, VALUE),
        compile={**BOTH, "metrics": ["acc", "mae", "mse"]},
        marks=needs_keras("3.14", "names only the number of outputs"),
    ),
    row(
        "`weighted_metrics`",
        build=two_named,
        **DICTS,
        compile={**NAMED, "weighted_metrics": ["mae"]},
    ),
    row(
        r"Expected keys \['klass', 'value'\] in loss dict, but found loss.keys\(\)=\['klass'\]",
        build=two_outputs,
        y=[Y, VALUE],
        compile={"loss": {"klass": SPARSE}},
        marks=NAMES_IN_A_WRAPPER,
    ),
    row("No loss", build=two_named, **DICTS, compile={"loss": {"klass": None, "value": None}}),
    row("`loss`", build=two_named, **DICTS, compile={"loss": {"nope": "mse"}}),
    row(
        r"\('rest',\) in the `loss` argument, can't be found in the model's output",
        build=outputs_in_outputs,
        y={"klass": Y, "rest": [VALUE]},
        compile={"loss": {"klass": SPARSE, "rest": {"value": "mse"}}},
    ),
    row(
        "`loss_weights` must match the number of losses, got 2 losses and 3 weights",
        build=two_outputs,
        y=[Y, VALUE],
        compile={**BOTH, "loss_weights": [1.0, 2.0, 3.0]},
    ),
    row(
        "value", build=two_outputs, y=[Y, VALUE], compile={**NAMED, "loss_weights": {"klass": 1.0}}
    ),
]
FIT = [
    row(r"`compile\(\)` before calling `fit\(\)`", compile=None),
    row(r"`compile\(\)` before calling `evaluate\(\)`", compile=None, call="evaluate"),
    row(
        "same number of samples.*x",
        build=two_named,
        compile=NAMED,
        **{**DICTS, "x": {"x": X, "side": SIDE[:9]}},
    ),
    row("label", compile={"run_eagerly": False}, y=Y + 2),
    row("incompatible", x=X[:, :7], compile={"run_eagerly": False}),
    row("modulo", validation_data=(X, Y), validation_freq=0),
    row("shape", x=lambda: tf.data.Dataset.from_tensor_slices((X, Y)), y=None),
    row("`y`", x=lambda: tf.data.Dataset.from_tensors(X), y=None),
    row("side", build=two_named, compile=NAMED, **{**DICTS, "x": {"x": X}}),
    row("`y`", build=two_named, compile=NAMED, **{**DICTS, "y": {"klass": Y}}),
    row(r"`y`.*structure.*y: \*\noutputs: \['\*', '\*'\]", build=two_outputs, compile=BOTH, y=Y),
]


def raised(Trainer, build, compile, call, arguments):
    """What a wrong call raises, and whether it changed a weight."""
    keras.utils.set_random_seed(0)
    model = build()
    before = model.get_weights()
    given = {"x": X, "y": Y} if call != "predict" else {}
    given = {k: v() if callable(v) else v for k, v in {**given, **arguments}.items()}
    error = None
    try:
        trainer = Trainer(model)
        if compile is not None:
            trainer.compile(**compile)
        getattr(trainer, call)(**given, verbose=0)
    except Exception as caught:
        error = caught
    same = all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    return error, not same


@covers(
    "errors: wrong values, shapes, structures and types",
    promise="the type that fit raises, as early",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("says", "build", "compile", "call", "arguments"), COMPILE + FIT)
def test_a_wrong_call(says, build, compile, call, arguments):
    case = build, compile, call, arguments
    (theirs, fit_changed), (ours, loop_changed) = (raised(T, *case) for T in TRAINERS.values())
    assert theirs is not None
    assert type(ours) is type(theirs), f"{theirs!r}\n{ours!r}"
    assert loop_changed <= fit_changed
    assert re.search(says, str(ours), re.DOTALL), str(ours)


def distributed(from_function):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    if from_function:
        return strategy.distribute_datasets_from_function(lambda context: dataset())
    return strategy.experimental_distribute_dataset(dataset())


def of_grain():
    return type("MapDataset", (), {"__module__": "grain.python"})()


@covers("errors: kinds of data that fit trains on and the loop refuses", promise="ValueError")
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: distributed(False), "`x` is a DistributedDataset.*`tf.data.Dataset` itself"),
        (lambda: distributed(True), "`x` is a DistributedDatasetsFromFunction.*`tf.data.Dataset`"),
        (of_grain, "`x` is a dataset of Grain.*generator"),
    ],
    ids=["distributed", "distributed from a function", "Grain"],
)
def test_kinds_of_data_refused_by_name(call, make, says):
    trainer = TRAINERS["manual_loop"](plain())
    trainer.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match=says):
        getattr(trainer, call)(make())
