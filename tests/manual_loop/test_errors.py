"""Wrong calls: the loop raises what fit raises, as early, and says which argument is wrong."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import ONE_HOT, SIDE, SPARSE, VALUE, X, Y, plain, two_named, two_outputs
from parity import TRAINERS, covers, label, needs_keras

BOTH = {"loss": [SPARSE, "mse"]}
NAMED = {"loss": {"klass": SPARSE, "value": "mse"}}
DICTS = {"x": {"x": X, "side": SIDE}, "y": {"klass": Y, "value": VALUE}}
NAMES_IN_A_WRAPPER = needs_keras("3.15", "prints the list of names with its class, ListWrapper")


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def generator(*batches):
    yield from batches or [(X, Y)] * 3


class Batches(keras.utils.PyDataset):
    def __init__(self, *batch, length=3):
        super().__init__()
        self.batch = batch or (X[:8], Y[:8])
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.batch


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
    row("optimizer", compile={"optimizer": 3}),
    row("loss_weights", compile={"loss_weights": 3}),
    row("loss_weights", compile={"loss_weights": "a"}),
    row("`metrics`", compile={"metrics": "acc"}),
    row("`metrics`", compile={"metrics": {"acc"}}),
    row("`weighted_metrics`", compile={"weighted_metrics": "acc"}),
    row(
        "`sample_weight_mode`.*`sample_weight` of shape", compile={"sample_weight_mode": "temporal"}
    ),
    row("`target_tensors`.*`y`", compile={"target_tensors": [Y]}),
    row("nonsense", compile={"nonsense": 1}),
    row("mean_squared_error|mse", compile={"loss": "mean_squared_eror"}),
    row("loss", compile={"loss": 3}),
    row("loss", compile={"loss": None}),
    row("outputs have no names", compile={"loss": {"dense_1": SPARSE}}),
    row("accuracy", compile={"metrics": ["acuracy"]}),
    row("metric", compile={"metrics": ["crossentropy"]}),
    row("metric", compile={"metrics": [None]}, marks=needs_keras("3.14", "trains without it")),
    row("metric", compile={"metrics": [3]}),
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
        "`metrics`.*klass",
        build=two_outputs,
        y=[Y, VALUE],
        compile={**BOTH, "metrics": {"nope": "acc"}},
        marks=needs_keras("3.14", "does not name the outputs there are"),
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
    row("`loss`", build=two_outputs, y=[Y, VALUE], compile={"loss": [SPARSE, "mse", "mae"]}),
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
    row("range", compile={"steps_per_execution": 0}),
    row("`steps_per_execution`", compile={"steps_per_execution": 1.5}),
]
FIT = [
    row(r"`compile\(\)` before calling `fit\(\)`", compile=None),
    row(r"`compile\(\)` before calling `evaluate\(\)`", compile=None, call="evaluate"),
    row("same number of samples.*y", y=Y[:21]),
    row("same number of samples.*sample_weight", sample_weight=np.ones(21)),
    row(
        "same number of samples.*x",
        build=two_named,
        compile=NAMED,
        **{**DICTS, "x": {"x": X, "side": SIDE[:9]}},
    ),
    row("Unrecognized data type", x="a"),
    row("Unrecognized data type", x=3, y=None),
    row("Unrecognized data type", x=X.tolist()),
    row("Unrecognized data type", y=Y.tolist()),
    row("Unrecognized data type", sample_weight=[1.0] * 22),
    row("`y`", y=None),
    row("target.shape", y=ONE_HOT),
    row("target.shape", compile={"loss": "categorical_crossentropy"}),
    row("label", y=Y + 2),
    row("label", compile={"run_eagerly": False}, y=Y + 2),
    row("incompatible", x=X[:, :7]),
    row("incompatible", x=X[:, :7], compile={"run_eagerly": False}),
    row("shape", x=X[:, 0]),
    row("batch_size", batch_size=-1),
    row("`batch_size`", batch_size=2.5),
    row("`batch_size`", batch_size="8"),
    row("`epochs`", epochs="2"),
    row("`epochs`", epochs=2.5),
    row("`initial_epoch`", initial_epoch="1"),
    row("validation_split", validation_split=1.0),
    row("str", validation_split="a"),
    row("validation_split", validation_split=0.5, x=X[:1], y=Y[:1]),
    row("validation_split", validation_split=0.5, x=dataset, y=None),
    row("validation_split", validation_split=0.5, x=generator, y=None),
    row("`y`", validation_data=X),
    row("sample_weight", validation_data=(X, Y, Y, Y)),
    row("same number of samples.*y", validation_data=(X, Y[:5])),
    row("incompatible", validation_data=(X[:, :7], Y)),
    row("Unrecognized data type", validation_data=("a", "b")),
    row("`validation_steps`", validation_data=(X, Y), validation_steps=2.5),
    row("`validation_batch_size`", validation_data=(X, Y), validation_batch_size=2.5),
    row("validation_freq", validation_data=(X, Y), validation_freq="2"),
    row("validation_freq", validation_data=(X, Y), validation_freq=2.5),
    row("validation_freq", validation_data=(X, Y), validation_freq=(1,)),
    row("modulo", validation_data=(X, Y), validation_freq=0),
    row("`class_weight` and `sample_weight`", class_weight={0: 2.0}, sample_weight=np.ones(22)),
    row("class_weight", build=two_outputs, compile=BOTH, y=[Y, VALUE], class_weight={0: 2.0}),
    row("`class_weight`", class_weight=[1.0, 2.0]),
    row("`class_weight`", class_weight="a"),
    row("class_weight", x=generator, y=None, class_weight={0: 1.0}),
    row(
        "sample_weight", build=two_outputs, compile=BOTH, y=[Y, VALUE], sample_weight=[np.ones(22)]
    ),
    row(
        "sample_weight",
        build=two_outputs,
        compile=BOTH,
        y=[Y, VALUE],
        sample_weight=np.ones((22, 2)),
    ),
    row("shapes", sample_weight=np.ones((22, 5))),
    row("`y`", x=dataset),
    row("`y`", x=generator),
    row("`y`", x=Batches),
    row("sample_weight", x=dataset, y=None, sample_weight=np.ones(22)),
    row("sample_weight", x=generator, y=None, sample_weight=np.ones(22)),
    row("sample_weight", x=Batches, y=None, sample_weight=np.ones(22)),
    row("`x`.*empty", x=lambda: (batch for batch in ()), y=None),
    row("tuple", x=lambda: generator([X, Y]), y=None),
    row("shapes", x=lambda: generator((X, Y), (X[0], Y[0])), y=None),
    row("`x`.*shape", x=lambda: generator((X, Y), (X, Y), (X[:, :7], Y)), y=None),
    row("sample_weight", x=lambda: generator((X, Y, Y, Y)), y=None),
    row("4 elements", x=lambda: Batches(X, Y, Y, Y), y=None),
    row("length 0.*`x`", x=lambda: Batches(length=0), y=None),
    row("shape", x=lambda: tf.data.Dataset.from_tensor_slices((X, Y)), y=None),
    row("`y`", x=lambda: tf.data.Dataset.from_tensors(X), y=None),
    row("`steps_per_epoch`", steps_per_epoch="2"),
    row("`steps_per_epoch`", steps_per_epoch=2.5),
    row("must be positive", steps_per_epoch=-1),
    row("set_model", callbacks=[3]),
    row("set_model", callbacks=3),
    row("monitor", callbacks=lambda: [keras.callbacks.EarlyStopping("nothing")]),
    row("nb_epoch", nb_epoch=3),
    row("side", build=two_named, compile=NAMED, **{**DICTS, "x": {"x": X}}),
    row("`y`", build=two_named, compile=NAMED, **{**DICTS, "y": {"klass": Y}}),
    row(r"`y`.*structure.*y: \*\noutputs: \['\*', '\*'\]", build=two_outputs, compile=BOTH, y=Y),
    row("`y`.*structure", build=two_outputs, compile=BOTH, y=[Y, VALUE, VALUE]),
]
OTHERS = [
    row("same number of samples.*y", call="evaluate", y=Y[:21]),
    row("incompatible", call="evaluate", x=X[:, :7]),
    row("`y`", call="evaluate", y=None),
    row("Unrecognized data type", call="evaluate", x="a"),
    row("sample_weight", call="evaluate", x=dataset, y=None, sample_weight=np.ones(22)),
    row("nonsense", call="evaluate", nonsense=3),
    row("`batch_size`", call="evaluate", batch_size=2.5),
    row("`steps`", call="evaluate", steps=2.5),
    row("incompatible", call="predict", x=X[:, :7]),
    row("Unrecognized data type", call="predict", x="a"),
    row("nonsense", call="predict", x=X, nonsense=3),
    row("batch_size", call="predict", x=X, batch_size=-1),
    row("`batch_size`", call="predict", x=X, batch_size=2.5),
    row("`steps`", call="predict", x=X, steps=2.5),
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
@pytest.mark.parametrize(("says", "build", "compile", "call", "arguments"), COMPILE + FIT + OTHERS)
def test_a_wrong_call(says, build, compile, call, arguments):
    case = build, compile, call, arguments
    (theirs, fit_changed), (ours, loop_changed) = (raised(T, *case) for T in TRAINERS.values())
    assert theirs is not None
    assert type(ours) is type(theirs), f"{theirs!r}\n{ours!r}"
    assert loop_changed <= fit_changed
    assert re.search(says, str(ours), re.DOTALL), str(ours)


@covers("errors: no data at all", promise="ValueError; fit stumbles over a KeyError")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("call", "arguments", "theirs", "ours"),
    [
        ("fit", {"x": None, "y": None}, KeyError, ValueError),
        ("predict", {"x": None}, KeyError, ValueError),
        ("predict", {"x": X[:0]}, UnboundLocalError, ValueError),
    ],
    ids=str,
)
def test_where_fit_stumbles_the_loop_says_what_is_wrong(call, arguments, theirs, ours):
    """`KeyError: 'pop from an empty set'` is no answer to data that are missing."""
    case = plain, {"loss": SPARSE, "run_eagerly": True}, call, arguments
    errors = [raised(Trainer, *case)[0] for Trainer in TRAINERS.values()]
    assert [type(error) for error in errors] == [theirs, ours]


@covers("errors: `validation_split` outside [0, 1)", promise="ValueError; fit slices with it")
@pytest.mark.parametrize("split", [1.5, -0.1])
def test_a_validation_split_outside_its_range(split):
    """fit slices with it all the same: 1.5 of 22 samples trains on the first 11."""
    error, changed = raised(
        TRAINERS["manual_loop"], plain, {"loss": SPARSE}, "fit", {"validation_split": split}
    )
    assert isinstance(error, ValueError)
    assert "validation_split" in str(error)
    assert not changed


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
