"""Columns of every dtype: the loop trains on what fit trains on, and refuses what fit refuses."""

import datetime
import functools

import numpy as np
import pandas as pd
import pytest
from cases import SAMPLES, X, Y, compile_with, plain
from parity import Pair, covers, fit

NAMES = list("abcdefgh")
BOOLS = X[:, 0] > 0
INTEGERS = np.arange(SAMPLES) % 5
HALF = pd.DataFrame(X.astype("float16"), columns=NAMES)
SINGLE = pd.DataFrame(X, columns=NAMES)
DOUBLE = SINGLE.astype("float64")
WHOLE = pd.DataFrame({name: INTEGERS + i for i, name in enumerate(NAMES)})
LETTERS = DOUBLE[NAMES[:6]].assign(letter=list("pq") * (SAMPLES // 2))
DUMMIES = pd.get_dummies(LETTERS, columns=["letter"])


def last(frame, column):
    """The frame with another last column."""
    return frame.assign(h=column)


def first(frame, column):
    """The frame with another first column."""
    return frame.assign(a=column)


TRAINED = {
    "float16": HALF,
    "float32": SINGLE,
    "float64": DOUBLE,
    "int64": WHOLE,
    "int8 and int64": WHOLE.astype({"a": "int8"}),
    "uint8": WHOLE.astype("uint8"),
    "bool": WHOLE > 2,
    "complex64": SINGLE.astype("complex64"),
    "float32 and int64": last(SINGLE, INTEGERS),
    "float64 and int64": last(DOUBLE, INTEGERS),
    "float64 and float32": last(DOUBLE, SINGLE["h"]),
    "float64 and bool": last(DOUBLE, BOOLS),
    "bool and float64": first(DOUBLE, BOOLS),
    "get_dummies": DUMMIES,
    # the first column of float64 decides: those after it may have any dtype that can be cast
    "float64, then Int64": last(DOUBLE, pd.array(INTEGERS, "Int64")),
    "float64, then Float64": last(DOUBLE, pd.array(X[:, 0], "Float64")),
    "float64, then boolean": last(DOUBLE, pd.array(BOOLS, "boolean")),
    "float64, then category": last(DOUBLE, pd.Categorical(INTEGERS)),
    "float64, then object": last(DOUBLE, INTEGERS.astype(object)),
    "float64, then Int64 with a missing value": last(
        DOUBLE, pd.array([None, *INTEGERS[1:]], "Int64")
    ),
    "float64, then numbers as text": last(DOUBLE, INTEGERS.astype(str)),
    "other index": DOUBLE[::-1],
    "index of dates": DOUBLE.set_index(pd.date_range("2026", periods=SAMPLES)),
    "columns of two levels": pd.DataFrame(
        X, columns=pd.MultiIndex.from_product([[0, 1], range(4)])
    ),
    "subclass": type("Table", (pd.DataFrame,), {})(last(DOUBLE, BOOLS)),
}
REFUSED = {
    "float32 and bool": last(SINGLE, BOOLS),
    "int64 and bool": last(WHOLE, BOOLS),
    "Int64": WHOLE.astype("Int64"),
    "Float32": SINGLE.astype("Float32"),
    "Float64": SINGLE.astype("Float64"),
    "boolean": (WHOLE > 2).astype("boolean"),
    "Float64 with a missing value": SINGLE.astype("Float64").mask(SINGLE > 2),
    "category": WHOLE.astype("category"),
    "object": SINGLE.astype(object),
    "text": SINGLE.astype(str),
    "dates": pd.DataFrame({name: pd.date_range("2026", periods=SAMPLES) for name in NAMES}),
    "spans of time": WHOLE.astype("timedelta64[s]"),
    "sparse": SINGLE.astype(pd.SparseDtype("float64", 0.0)),
    "Int64, then float64": first(DOUBLE, pd.array(INTEGERS, "Int64")),
    "boolean, then float64": first(DOUBLE, pd.array(BOOLS, "boolean")),
    "category, then float64": first(DOUBLE, pd.Categorical(INTEGERS)),
    "object, then float64": first(DOUBLE, INTEGERS.astype(object)),
    "float32 and category": last(SINGLE, pd.Categorical(INTEGERS)),
    "NumPy, object": X.astype(object),
    "NumPy, text": X.astype(str),
    "NumPy, bytes": X.astype(bytes),
    "NumPy, dates": INTEGERS.astype("datetime64[D]"),
    "NumPy, long double": X.astype("longdouble"),
}
UNCAST = {
    "float64, then words": last(DOUBLE, "word"),
    "float64, then dates": last(DOUBLE, datetime.datetime(2026, 1, 1)),
}
CLASS = pd.Series(Y[:, 0])
TRAINED_LABELS = {
    "int64": CLASS,
    "int32": CLASS.astype("int32"),
    "uint8": CLASS.astype("uint8"),
    "float64": CLASS.astype("float64"),
    "bool": CLASS > 0,
    "index": pd.Index(CLASS),
    "index of float64": pd.Index(CLASS.astype("float64")),
    "range": pd.RangeIndex(SAMPLES) % 3,
    "frame": CLASS.to_frame(),
    "frame of float64": CLASS.astype("float64").to_frame(),
    "array of Int64": pd.array(CLASS, "Int64"),
    "array of categories": pd.Categorical(CLASS),
    "index of categories": pd.CategoricalIndex(CLASS),
    "subclass": type("Column", (pd.Series,), {})(CLASS),
}
REFUSED_LABELS = {
    "Int64": CLASS.astype("Int64"),
    "category": CLASS.astype("category"),
    "object": CLASS.astype(object),
    "text": CLASS.astype(str),
    "index of objects": pd.Index(CLASS.astype(object)),
    "index of text": pd.Index(CLASS.astype(str)),
    "sparse": CLASS.astype(pd.SparseDtype("int64", 0)),
    "frame of Int64": CLASS.to_frame().astype("Int64"),
}
WEIGHTS = pd.Series(X[:, 0].astype("float64") ** 2)
TRAINED_WEIGHTS = {
    "float64": WEIGHTS,
    "float32": WEIGHTS.astype("float32"),
    "int64": pd.Series(INTEGERS),
    "bool": WEIGHTS > 1,
    "index": pd.Index(WEIGHTS),
    "frame": WEIGHTS.to_frame(),
    "frame of bool": (WEIGHTS > 1).to_frame(),
    "array of Float64": pd.array(WEIGHTS, "Float64"),
}
REFUSED_WEIGHTS = {
    "Float64": WEIGHTS.astype("Float64"),
    "boolean": (WEIGHTS > 1).astype("boolean"),
    "category": pd.Series(INTEGERS).astype("category"),
    "object": WEIGHTS.astype(object),
}


def table(argument, data):
    return [pytest.param(argument, given, id=f"{argument}, {name}") for name, given in data.items()]


@pytest.fixture(scope="module")
def pair_for():
    """A `Pair` for each rank of labels and weights: a trace for several loses the rank."""

    @functools.cache
    def of_ranks(*ranks):
        return Pair(plain, compile_with(optimizer="sgd"))

    def of_data(y, sample_weight=None, **others):
        return of_ranks(*map(rank, (y, sample_weight)))

    def rank(array):
        return 2 if isinstance(array, pd.Series) else np.ndim(array)

    return of_data


SPLITS = pytest.mark.parametrize("split", [0.0, 0.3])


@covers("data: pandas, columns of every dtype")
@pytest.mark.parametrize(
    ("argument", "given"),
    table("x", TRAINED) + table("y", TRAINED_LABELS) + table("sample_weight", TRAINED_WEIGHTS),
)
def test_what_fit_trains_on(pair_for, argument, given):
    data = {"x": X, "y": Y, argument: given}
    pair_for(**data).assert_parity(data, script=fit, batch_size=8)


@covers("data: pandas, columns of every dtype", "fit: validation_split")
@pytest.mark.parametrize("name", ["float64 and bool", "bool", "float64, then category"])
def test_validation_split(pair_for, name):
    data = {"x": TRAINED[name], "y": CLASS, "sample_weight": WEIGHTS}
    pair_for(**data).assert_parity(data, script=fit, batch_size=8, validation_split=0.3)


def raised(pair, split, **data):
    """The errors of both sides."""
    for trainer in pair.restarted():
        with pytest.raises((TypeError, ValueError)) as error:
            trainer.fit(**data, batch_size=8, validation_split=split, verbose=0)
        yield error


@covers("errors: dtypes that Keras does not have")
@SPLITS
@pytest.mark.parametrize(
    ("argument", "given"),
    table("x", REFUSED) + table("y", REFUSED_LABELS) + table("sample_weight", REFUSED_WEIGHTS),
)
def test_what_fit_refuses(pair_for, argument, given, split):
    theirs, ours = raised(pair_for(Y), split, **{"x": X, "y": Y, argument: given})
    assert ours.type is theirs.type
    assert "astype('float32')" in str(ours.value)
    if "Invalid dtype" in str(theirs.value):
        assert str(theirs.value) in str(ours.value)


@covers("errors: dtypes that Keras does not have")
@SPLITS
@pytest.mark.parametrize(("argument", "given"), table("x", UNCAST))
def test_what_pandas_cannot_cast(pair_for, argument, given, split):
    theirs, ours = raised(pair_for(Y), split, **{argument: given, "y": Y})
    assert (ours.type, str(ours.value)) == (theirs.type, str(theirs.value))
