"""The measure itself: it finds each kind of difference, also the smallest."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, SHORT, compile_with, mlp
from parity import assert_same, first_difference, observe, train

EAGER = {"run_eagerly": True}


@pytest.fixture(scope="module")
def seen():
    return observe("keras_fit", train, mlp, compile_with(**EAGER), CLASSES, **SHORT)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"seed": 1}, "calls"),
        ({"epochs": 3}, "calls"),
        ({"batch_size": 7}, "calls"),
        ({"shuffle": False}, "calls"),
        ({"compile": compile_with(metrics=None, **EAGER)}, "calls"),
        ({"verbose": 2}, "verbose"),
        ({"callbacks": lambda: [keras.callbacks.TerminateOnNaN()]}, None),
        ({}, None),
    ],
    ids=["seed", "epochs", "batch_size", "shuffle", "metrics", "verbose", "callbacks", "nothing"],
)
def test_two_sides_that_are_trained_differently_differ(seen, change, where):
    arguments = {"compile": compile_with(**EAGER), **SHORT, **change}
    compile = arguments.pop("compile")
    other = observe("manual_loop", train, mlp, compile, CLASSES, **arguments)
    difference = first_difference(seen, other)
    assert where in difference if where else difference is None


def test_what_was_seen_is_all_there_and_not_empty(seen):
    assert list(seen) == [
        "calls",
        "history",
        "epochs",
        "weights",
        "optimizer variables",
        "evaluate",
        "predict",
        "calls of evaluate and predict",
        "warnings",
        "stdout",
        "next random numbers",
    ]
    assert list(seen["history"]) == ["acc", "loss", "val_acc", "val_loss"]
    assert seen["epochs"] == [0, 1]
    assert len(seen["weights"]) == 9  # of 2 Dense and BatchNormalization, and Dropout's seed
    assert seen["optimizer variables"]["sgd/iteration"] == 4
    assert len(seen["evaluate"]) == 2
    assert seen["predict"].shape == (22, 3)
    methods = {method for method, *_ in seen["calls"] + seen["calls of evaluate and predict"]}
    assert len(methods) == 15


def test_one_ulp_in_one_weight_is_found(seen):
    path = next(iter(seen["weights"]))
    weights = {**seen["weights"], path: seen["weights"][path].copy()}
    weights[path].flat[3] = np.nextafter(weights[path].flat[3], np.float32(9))
    with pytest.raises(AssertionError, match=r"weights.*1 ULP apart"):
        assert_same(seen, {**seen, "weights": weights})


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0], [1.0, 2.0]),
        ([1.0], (2.0,)),
        ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}),
        (np.float32(1), 1.0),
        (1.0, 1),
        (True, 1),
        ("a", "b"),
        (None, "a"),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2, "float32"), np.zeros(2, "float16")),
    ],
)
def test_unequal_values_differ_and_are_named(a, b):
    assert "['deep'][1]" in first_difference({"deep": [0, a]}, {"deep": [0, b]})


@pytest.mark.parametrize("value", [float("nan"), np.float32(np.inf), None, "a", [1, {"b": (2.0,)}]])
def test_equal_values_do_not(value):
    assert first_difference(value, value) is None


def test_a_sum_of_three_may_depend_on_what_else_its_terms_are_for():
    """Why fit may differ from itself: see `fuzz.sums_in_order`."""

    def sum_with(*kept):
        @tf.function(autograph=False)
        def graph(*numbers):
            terms = [tf.math.ceil(number) for number in numbers]
            return tf.raw_ops.AddN(inputs=terms), *[terms[i] for i in kept]

        return float(graph(*map(tf.constant, (1e8, -1e8, 1.0)))[0])

    assert sum_with() == 1.0  # (1e8 - 1e8) + 1
    assert sum_with(0, 1) == 0.0  # (1 - 1e8) + 1e8: only the memory of the third is free
