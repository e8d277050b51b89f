"""The words of an error or a warning that people search for: both sides use the same.

The words are those that Keras's own tests look for: `keras/src/trainers/compile_utils_test.py`,
`epoch_iterator_test.py`, `data_adapters/*_test.py`, `keras/src/models/model_test.py`,
`functional_test.py` and `keras/src/callbacks/*_test.py` of Keras 3.15; and, for data, those of the
other errors of `keras/src/trainers/data_adapters`.
"""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SIDE, SPARSE, VALUE, X, Y, plain, two_named, two_outputs
from parity import TRAINERS, covers, needs_keras

BOTH = {"loss": [SPARSE, "mse"]}
NAMED = {"loss": {"klass": SPARSE, "value": "mse"}}
OUTPUTS = {"build": two_outputs, "compile": BOTH, "y": [Y, VALUE]}
DICTS = {
    "build": two_named,
    "x": {"x": X, "side": SIDE},
    "y": {"klass": Y, "value": VALUE},
}
WEIGHTS = np.ones(22)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).batch(8)


def nested_dataset():
    return dataset(X, (Y, VALUE))


def generator(*batches):
    yield from batches or [(X, Y)] * 3


class Batches(keras.utils.PyDataset):
    """Always the same batch, or none at all."""

    def __init__(self, batch=(X, Y), length=3):
        super().__init__()
        self.batch = batch
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if isinstance(self.batch, Exception):
            raise self.batch
        return self.batch


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9))


def row(error, words, *, build=plain, compile=(), call="fit", marks=(), **arguments):
    """What is done, and the words.

    Args:
        error: the class that is raised, or a class of warnings.
        words: a regular expression.
        build: the model.
        compile: arguments of `compile`.
        call: the method that is called.
        marks: of the test.
        **arguments: those of the call, in place of `x=X, y=Y`; functions are called.
    """
    compile = {"optimizer": "sgd", "loss": SPARSE, "run_eagerly": True, **dict(compile)}
    case = error, words, build, compile, call, arguments
    return pytest.param(*case, id=words[:60], marks=marks)


DATA = [
    row(ValueError, "When providing `x` as a tf.data.Dataset, `y` should not be passed", x=dataset),
    row(
        ValueError,
        "When providing `x` as a tf.data.Dataset, `sample_weights` should not be passed",
        x=dataset,
        y=None,
        sample_weight=WEIGHTS,
    ),
    row(ValueError, "When providing `x` as a PyDataset, `y` should not be passed", x=Batches),
    row(
        ValueError,
        "When providing `x` as a generator, `y` should not be passed",
        x=generator,
        marks=needs_keras("3.15", "calls a generator a PyDataset"),
    ),
    row(ValueError, "Unrecognized data type: x=text", x="text", y=None),
    row(
        UserWarning,
        "Your input ran out of data; interrupting training. Make sure that your dataset or "
        "generator can generate at least `steps_per_epoch \\* epochs` batches",
        x=dataset,
        y=None,
        steps_per_epoch=4,
    ),
    row(
        UserWarning,
        "`shuffle=True` was passed, but will be ignored since the data `x` was provided as a",
        x=dataset,
        y=None,
        marks=needs_keras("3.15", "does not warn"),
    ),
    row(
        ValueError,
        "You cannot `class_weight` and `sample_weight` at the same time",
        sample_weight=WEIGHTS,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "You cannot `class_weight` and `sample_weight` at the same time",
        x=lambda: dataset(X, Y, WEIGHTS),
        y=None,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "`class_weight` and `sample_weight` at the same time",
        x=lambda: Batches((X, Y, WEIGHTS)),
        y=None,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "You should provide one `sample_weight` array per output in `y`",
        **OUTPUTS,
        sample_weight=[WEIGHTS],
    ),
    row(
        ValueError,
        "For a model with multiple outputs, when providing a single `sample_weight` array, it",
        **OUTPUTS,
        sample_weight=np.ones((22, 2)),
    ),
    row(
        ValueError,
        "`class_weight` is only supported for Models with a single output",
        **OUTPUTS,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "`class_weight` is only supported for Models with a single output",
        **{**OUTPUTS, "y": None},
        x=nested_dataset,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "`class_weight` is not supported for.* generator.*Received: class_weight={0: 2.0}",
        x=generator,
        y=None,
        class_weight={0: 2.0},
    ),
    row(
        ValueError,
        "When passing a Python generator to a Keras model, the generator must yield at least one "
        "batch",
        x=lambda: (batch for batch in ()),
        y=None,
        marks=needs_keras("3.15", "takes the first batch of an empty list: IndexError"),
    ),
    row(
        ValueError,
        "When passing a Python generator to a Keras model, the generator must return a tuple",
        x=lambda: generator([X, Y]),
        y=None,
    ),
    row(
        tf.errors.InvalidArgumentError,
        r"TypeError:.* shape \(22, 7\).* shape \(None, 8\) was expected.*first two batches",
        x=lambda: generator((X, Y), (X, Y), (X[:, :7], Y)),
        y=None,
    ),
    row(
        ValueError,
        "When passing a dataset to a Keras model, the arrays must be at least rank 1",
        x=lambda: generator((X, np.float32(1))),
        y=None,
    ),
    row(
        ValueError,
        "When passing a dataset to a Keras model, the corresponding arrays in each batch must have "
        "the same rank",
        x=lambda: generator((X, Y), (X[0], Y)),
        y=None,
    ),
    row(
        ValueError,
        r"PyDataset.__getitem__\(\) must return a tuple or a dict",
        x=lambda: Batches(tf.constant(X)),
        y=None,
    ),
    row(ValueError, "The PyDataset has length 0", x=lambda: Batches(length=0), y=None),
    row(RuntimeError, "no such file", x=lambda: Batches(RuntimeError("no such file")), y=None),
    row(
        ValueError,
        "Argument `validation_split` is only supported for tensors or NumPy arrays",
        x=dataset,
        y=None,
        validation_split=0.3,
    ),
    row(
        ValueError,
        "Training data contains 1 samples, which is not sufficient to split it into a validation "
        "and training set as specified by `validation_split=0.3`",
        x=X[:1],
        y=Y[:1],
        validation_split=0.3,
    ),
    row(
        ValueError,
        "Data cardinality is ambiguous. Make sure all arrays contain the same number of samples",
        y=Y[:21],
    ),
    row(ValueError, "Data is expected to be in format", validation_data=(X, Y, Y, Y)),
]
CALLBACKS = [
    row(ValueError, "", callbacks=lambda: [keras.callbacks.EarlyStopping("unknown")]),
    row(
        TypeError,
        "This optimizer was created with a `LearningRateSchedule`",
        compile={"optimizer": scheduled},
        callbacks=lambda: [keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)],
    ),
    row(
        TypeError,
        "This optimizer was created with a `LearningRateSchedule`",
        compile={"optimizer": scheduled},
        epochs=3,
        callbacks=lambda: [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=9.0)],
    ),
    row(
        ValueError,
        "SwapEMAWeights must be used when `use_ema=True` is set",
        callbacks=lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    ),
    row(
        RuntimeError,
        "NaN or Inf loss encountered",
        x=np.full_like(X, np.nan),
        callbacks=lambda: [keras.callbacks.TerminateOnNaN(raise_error=True)],
    ),
]
COMPILE = [
    row(ValueError, r"You must call `compile\(\)` before", compile={"loss": ...}),
    row(
        ValueError,
        "must match the number of losses",
        **{**OUTPUTS, "compile": {**BOTH, "loss_weights": [1.0]}},
    ),
    row(
        ValueError,
        "Expected keys",
        **{**OUTPUTS, "compile": {"loss": {"klass": SPARSE, "nope": "mse"}}},
    ),
    row(
        KeyError,
        "in the `loss` argument, can't be found in either the model's output",
        **DICTS,
        compile={"loss": {"klass": SPARSE, "nope": "mse"}},
    ),
    row(
        ValueError,
        "Invalid `metrics`.*nope",
        marks=needs_keras("3.14", "has other words: does not correspond to any model output"),
        **{**OUTPUTS, "compile": {**BOTH, "metrics": {"nope": ["mse"]}}},
    ),
    row(
        ValueError,
        "Invalid `metrics`.*nope",
        marks=needs_keras("3.14", "has other words: does not correspond to any model output"),
        **DICTS,
        compile={**NAMED, "metrics": {"nope": ["mse"]}},
    ),
    row(ValueError, "y_true and y_pred have different structures", **{**OUTPUTS, "y": [Y]}),
]


def said(Trainer, build, compile, call, arguments):
    """The error that a call ends with, and its warnings."""
    keras.utils.set_random_seed(0)
    given = {k: v() if callable(v) else v for k, v in {"x": X, "y": Y, **arguments}.items()}
    trainer = Trainer(build())
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if compile["loss"] is not ...:
                optimizer = compile["optimizer"]
                optimizer = optimizer() if callable(optimizer) else optimizer
                trainer.compile(**{**compile, "optimizer": optimizer})
            getattr(trainer, call)(**given, verbose=0)
        except Exception as raised:
            error = raised
    return error, [warning.message for warning in caught]


def assert_said(side, error, words, *case):
    raised, warned = said(TRAINERS[side], *case)
    if issubclass(error, Warning):
        assert any(re.search(words, str(warning), re.DOTALL) for warning in warned), warned
    else:
        assert type(raised) is error, raised
        assert re.search(words, str(raised), re.DOTALL), str(raised)


SIDES = pytest.mark.parametrize("side", TRAINERS)
ROW = ("error", "words", "build", "compile", "call", "arguments")


@covers("errors: the words that people search for", promise="those that Keras's tests look for")
@SIDES
@pytest.mark.parametrize(ROW, DATA + CALLBACKS + COMPILE)
def test_words(side, error, words, build, compile, call, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_said(side, error, words, build, compile, call, arguments)
