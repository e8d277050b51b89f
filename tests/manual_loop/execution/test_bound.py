"""Arrays on the device: any walk goes on where it stopped, and nothing stays behind."""

import numpy as np
import pytest
import tensorflow as tf

from manual_loop.data.arrays import Resident, Walk
from manual_loop.execution import bound as desks
from manual_loop.execution.step_function import StepFunction


def step_function(**how):
    usual = {"run_eagerly": False, "jit_compile": False, "steps_per_execution": 1}
    return StepFunction(lambda x: {"first": x[0], "size": tf.shape(x)[0]}, **usual | how)


def walk(start, samples, batch_size=2):
    return Walk(
        Resident(np.arange(start, start + samples, dtype="float32"), samples, batch_size, False)
    )


def take(function, walk):
    return {name: int(value) for name, value in function(walk).items()}


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_walks_in_turns(how):
    function = step_function(**how)
    a, b = walk(0, 6), walk(100, 4)
    firsts = [take(function, w)["first"] for w in (a, b, a, a, b)]
    assert firsts == [0, 100, 2, 4, 102]
    with pytest.raises(StopIteration):
        function(a)


def test_a_walk_goes_on_in_another_function():
    a = walk(0, 6)
    assert [take(step_function(), a)["first"] for _ in range(3)] == [0, 2, 4]


@pytest.mark.parametrize("block", [2, 3])
def test_the_partial_batch_ends_a_block(block):
    function = step_function(steps_per_execution=block)
    a = walk(0, 7)
    logs = [take(function, a) for _ in range(2)]
    assert logs[-1] == {"first": 6, "size": 1}
    with pytest.raises(StopIteration):
        function(a)


@pytest.mark.parametrize("bytes_", [1, 2 * 2 * 4, 2**20])
@pytest.mark.parametrize("block", [2, 3, 9])
def test_a_block_in_stages_takes_each_batch_once(monkeypatch, bytes_, block):
    monkeypatch.setattr(desks, "STAGE_BYTES", bytes_)
    seen = tf.Variable(tf.zeros([13]))

    def step(x):
        seen.assign_add(tf.reduce_sum(tf.one_hot(tf.cast(x, tf.int32), 13), axis=0))
        return {"first": x[0]}

    how = {"run_eagerly": False, "jit_compile": True, "steps_per_execution": block}
    function, a = StepFunction(step, **how), walk(0, 13)
    while a.position < a.order.steps:
        before = int(tf.reduce_sum(seen))
        function(a)
        assert int(tf.reduce_sum(seen)) == min(before + 2 * block, 13)
    assert seen.numpy().tolist() == [1] * 13


def test_nothing_stays_behind():
    function = step_function(steps_per_execution=2)
    a = walk(0, 8)
    function(a)
    (desk,) = function._blocks.values()
    held = desk._variables[0]
    assert held.read_value().shape == [8]
    function.release()
    assert held.read_value().shape == [0]
    assert take(function, a)["first"] == 6  # laid out again, and where it stopped
