"""Small steps are called by an op: nothing else differs."""

import re
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, X, Y, compile_with, mlp
from parity import TRAINERS, assert_parity, assert_same, covers, observe, values

from manual_loop.execution import dispatch
from manual_loop.execution.dispatch import SMALL, Dispatcher, is_small, op_of
from manual_loop.execution.graph import graph


@pytest.fixture
def made(monkeypatch):
    """The second call is by the op; the ops, as they are made."""
    found = []

    def op_of(function):
        found.append(original(function))
        return found[-1]

    original = dispatch.op_of
    monkeypatch.setattr(dispatch, "CALLS", 1)
    monkeypatch.setattr(dispatch, "op_of", op_of)
    return found


@covers("compile: steps_per_execution", "compile: jit_compile")
@pytest.mark.parametrize(
    "how", [{"optimizer": "adam"}, {"steps_per_execution": 2}, {"jit_compile": True}], ids=str
)
def test_calls_by_an_op(made, how):
    xla = {"batch_size": 11} if how.get("jit_compile") else {"validation_split": 0.3}
    fitting = {"epochs": 3, "batch_size": 4, "test": {"x": X, "y": Y, "batch_size": 11}, **xla}
    assert_parity(mlp, compile_with(**how), CLASSES, **fitting)
    assert made


def train_until_it_fails(Trainer):
    """An unknown label in the last of three batches: the error, and what is left behind."""
    trainer = Trainer(mlp())
    trainer.compile(**compile_with(metrics=None)())
    labels = Y.copy()
    labels[20] = 7
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        trainer.fit(X[:21], labels[:21], batch_size=7, shuffle=False, verbose=0)
    words = str(caught.value)
    # what does not depend on the loss may be set or not: see docs/tolerances.md
    weights = [v for v in trainer.model.variables if "seed_generator" not in v.path]
    moments = [v for v in trainer.optimizer.variables if v.name != "iteration"]
    return {
        "cause": re.search("Received a label value of .*", words)[0],
        "line": "losses.py" in words,
        "weights": values(weights),
        "optimizer variables": values(moments),
    }


@covers("errors in a step", promise="the same words, the line that made the op, the same weights")
def test_an_error_in_a_call_by_an_op(made):
    fit, loop = (observe(side, train_until_it_fails) for side in TRAINERS)
    assert made
    assert fit["line"]
    assert_same(fit, loop)


def counting():
    """A function that counts its calls in a variable, and fails at every third."""
    count = tf.Variable(0)

    def step():
        tf.debugging.assert_none_equal(count.assign_add(1) % 3, 0, message="the third call")
        return {"b": count.read_value(), "a": {"c": tf.constant(2.0)}}

    return count, graph(step).get_concrete_function()


def test_what_a_call_returns(made):
    _, function = counting()
    call = Dispatcher(function, is_small=True)
    by_function, by_op = call(), call()
    assert len(made) == 1
    assert list(by_op) == list(by_function) == ["b", "a"]
    assert [by_function["b"].numpy(), by_op["b"].numpy()] == [1, 2]
    assert by_op["a"]["c"].numpy() == 2


def test_which_thread_runs_the_ops():
    threads = []

    def note():
        threads.append(threading.get_native_id())
        return np.float32(0)

    count = tf.Variable(0.0)
    step = graph(lambda: count.assign_add(tf.numpy_function(note, [], tf.float32)))
    function = step.get_concrete_function()
    function(), op_of(function)()
    by_function, by_op = threads
    assert by_function != by_op == threading.get_native_id()


def test_a_large_step_is_never_called_by_an_op(made):
    _, function = counting()
    call = Dispatcher(function, is_small=False)
    call(), call()
    assert not made


def test_an_error_that_does_not_come_again(made):
    """It is raised as it was, and what the second attempt changed is put back."""
    count, function = counting()
    call = Dispatcher(function, is_small=True)
    call(), call()
    with pytest.raises(tf.errors.InvalidArgumentError, match="the third call"):
        call()
    assert count.numpy() == 3


def traced(step, size):
    return graph(step).get_concrete_function(tf.TensorSpec([None, size], tf.float32))


def test_only_small_steps_are_called_by_an_op():
    """Decided by the largest tensor, with the batch size for what the graph leaves open."""
    step = traced(lambda x: tf.reduce_sum(x, 1), 64)
    assert is_small(step, SMALL // 64)
    assert not is_small(step, SMALL // 64 + 1)
    inner = graph(lambda x: tf.reduce_sum(tf.tile(x, [1, SMALL])))
    assert not is_small(traced(lambda x: inner(x), 2), 1)


def printing(x):
    with tf.control_dependencies([tf.print(x)]):
        return tf.identity(x)


OUTSIDE = {
    "numpy_function": lambda x: tf.numpy_function(lambda a: a, [x], tf.float32),
    "py_function": lambda x: tf.py_function(lambda a: a, [x], tf.float32),
    "print": printing,
}


@pytest.mark.parametrize("op", OUTSIDE)
def test_a_step_that_acts_outside_the_graph_is_called_as_a_function(op):
    assert is_small(traced(lambda x: x + 1, 1), 1)
    assert not is_small(traced(OUTSIDE[op], 1), 1)
    inner = graph(OUTSIDE[op])
    assert not is_small(traced(lambda x: inner(x), 1), 1)


@covers("errors in a step", promise="a failing step runs once")
def test_python_in_a_failing_step_runs_once():
    def script(Trainer):
        calls = []

        class Counts(keras.layers.Layer):
            def call(self, x):
                noted = tf.numpy_function(lambda a: calls.append(1) or a, [x], tf.float32)
                return tf.ensure_shape(noted, x.shape)

        model = keras.Sequential([keras.Input([8]), Counts(), keras.layers.Dense(3)])
        trainer = Trainer(model)
        trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        labels = Y.copy()
        labels[20] = 7
        with pytest.raises(tf.errors.InvalidArgumentError):
            trainer.fit(X[:21], labels[:21], batch_size=7, shuffle=False, verbose=0)
        return {"calls": len(calls)}

    assert assert_parity(script=script)["calls"] == 3
