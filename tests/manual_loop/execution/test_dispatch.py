"""Calls by an op, with which a training of many short steps goes on: nothing else differs."""

import math
import re
import threading

import numpy as np
import pytest
import tensorflow as tf
from cases import CLASSES, X, Y, compile_with, mlp
from parity import TRAINERS, assert_parity, assert_same, covers, observe, values

from manual_loop.execution import dispatch as calls
from manual_loop.execution.bound import graph
from manual_loop.execution.dispatch import Call, op_of


@pytest.fixture
def prepared(monkeypatch):
    """The second call is by the op, however long the first one took; the ops, as they are made."""
    made = []

    def op_of(function):
        made.append(original(function))
        return made[-1]

    original = calls.op_of
    monkeypatch.setattr(calls, "CALLS", 1)
    monkeypatch.setattr(calls, "SHORT", math.inf)
    monkeypatch.setattr(calls, "op_of", op_of)
    return made


@covers("compile: steps_per_execution", "compile: jit_compile")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}, {"jit_compile": True}], ids=str)
def test_calls_by_an_op(prepared, how):
    xla = {"batch_size": 11} if how.get("jit_compile") else {"validation_split": 0.3}
    fitting = {"epochs": 3, "batch_size": 4, "test": {"x": X, "y": Y, "batch_size": 11}, **xla}
    assert_parity(mlp, compile_with(**how), CLASSES, **fitting)
    assert prepared


def train_until_it_fails(Trainer):
    """An unknown label in the last of three batches: the error, and what is left behind."""
    trainer = Trainer(mlp())
    trainer.compile(**compile_with(metrics=None)())
    labels = Y.copy()
    labels[20] = 7
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        trainer.fit(X[:21], labels[:21], batch_size=7, shuffle=False, verbose=0)
    words = str(caught.value)
    return {
        "cause": re.search("Received a label value of .*", words)[0],
        "line": "losses.py" in words,
        "weights": values(trainer.model.variables),
        "optimizer variables": values(trainer.optimizer.variables),
    }


@covers("errors in a step", promise="the same words, the line that made the op, the same weights")
def test_an_error_in_a_call_by_an_op(prepared):
    fit, loop = (observe(side, train_until_it_fails) for side in TRAINERS)
    assert prepared
    assert fit["line"]
    assert_same(fit, loop)


def counting():
    """A function that counts its calls in a variable, and fails at every third."""
    count = tf.Variable(0)

    def step():
        tf.debugging.assert_none_equal(count.assign_add(1) % 3, 0, message="the third call")
        return {"b": count.read_value(), "a": {"c": tf.constant(2.0)}}

    return count, Call(graph(step).get_concrete_function())


def test_what_a_call_returns(prepared):
    _, call = counting()
    by_function, by_op = call(), call()
    assert len(prepared) == 1
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


def test_an_error_that_does_not_come_again(prepared):
    """It is raised as it was, and what the second attempt changed is put back."""
    count, call = counting()
    call(), call()
    with pytest.raises(tf.errors.InvalidArgumentError, match="the third call"):
        call()
    assert count.numpy() == 3


@pytest.mark.parametrize(("limit", "expected"), [("CALLS", 3), ("SHORT", 0)])
def test_few_or_long_calls_are_no_calls_by_an_op(prepared, monkeypatch, limit, expected):
    monkeypatch.setattr(calls, limit, expected)
    _, call = counting()
    call(), call()
    assert not prepared
