"""Arrays on the device: each iterator continues where it stopped, and nothing stays bound."""

import numpy as np
import pytest
import tensorflow as tf
from cases import SPARSE, X, Y, mlp
from parity import assert_parity, covers, values

from manual_loop.data.resident import ResidentDataset
from manual_loop.execution import xla_stages
from manual_loop.execution.step_function import StepFunction


def step_function(step=lambda x: {"first": x[0], "size": tf.shape(x)[0]}, steps=1, **how):
    usual = {"run_eagerly": False, "jit_compile": False, "steps_per_execution": lambda: steps}
    return StepFunction(step, **usual | how)


def iterator(start, samples, batch_size=2):
    array = np.arange(start, start + samples, dtype="float32")
    return iter(ResidentDataset(array, samples, batch_size, False))


def take(function, batches):
    return {name: int(value) for name, value in function(batches).items()}


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_iterators_in_turns(how):
    function = step_function(**how)
    a, b = iterator(0, 6), iterator(100, 4)
    firsts = [take(function, i)["first"] for i in (a, b, a, a, b)]
    assert firsts == [0, 100, 2, 4, 102]
    with pytest.raises(StopIteration):
        function(a)


def test_an_iterator_continues_in_another_function():
    a = iterator(0, 6)
    assert [take(step_function(), a)["first"] for _ in range(3)] == [0, 2, 4]


@pytest.mark.parametrize("block", [2, 3])
def test_the_partial_batch_ends_a_block(block):
    function = step_function(steps=block)
    a = iterator(0, 7)
    logs = [take(function, a) for _ in range(2)]
    assert logs[-1] == {"first": 6, "size": 1}
    with pytest.raises(StopIteration):
        function(a)


@pytest.mark.parametrize("bytes_", [1, 2 * 2 * 4, 2**20])
@pytest.mark.parametrize("block", [2, 3, 9])
def test_a_block_in_stages_takes_each_batch_once(monkeypatch, bytes_, block):
    monkeypatch.setattr(xla_stages, "STAGE_BYTES", bytes_)
    seen = tf.Variable(tf.zeros([13]))

    def step(x):
        seen.assign_add(tf.reduce_sum(tf.one_hot(tf.cast(x, tf.int32), 13), axis=0))
        return {"first": x[0]}

    function, a = step_function(step, block, jit_compile=True), iterator(0, 13)
    while a.position < a.dataset.num_batches:
        before = int(tf.reduce_sum(seen))
        function(a)
        assert int(tf.reduce_sum(seen)) == min(before + 2 * block, 13)
    assert seen.numpy().tolist() == [1] * 13


def test_nothing_stays_bound():
    function = step_function(steps=2)
    a = iterator(0, 8)
    function(a)
    (bound,) = function._on_arrays.values()
    held = bound._variables[0]
    assert held.read_value().shape == [8]
    function.release()
    assert held.read_value().shape == [0]
    assert take(function, a)["first"] == 6  # bound again, where it stopped


def after(first):
    """A script that trains on whole batches of arrays, after another fit."""

    def script(Trainer):
        trainer = Trainer(mlp())
        trainer.compile("adam", SPARSE)
        first(trainer)
        trainer.fit(X, Y, batch_size=11, epochs=3, verbose=0)
        script.trainer = trainer
        return {"variables": values(trainer.model.variables + trainer.optimizer.variables)}

    return script


@covers("fit: arrays after a dataset")
def test_arrays_take_the_graph_of_a_dataset():
    """Its batch size is open, for which TensorFlow may optimize differently."""
    rows = tf.data.Dataset.from_tensor_slices((X, Y))
    cases = [
        (lambda trainer: trainer.fit(rows.batch(8), verbose=0), None),
        (lambda trainer: trainer.fit(rows.batch(8, drop_remainder=True), verbose=0), None),
        (lambda trainer: trainer.fit(rows.batch(11, drop_remainder=True), verbose=0), 11),
        (lambda trainer: None, 11),
    ]
    for first, size in cases:
        script = after(first)
        assert_parity(script=script)
        (bound,) = script.trainer._function("train")._on_arrays.values()
        (_, indices), _ = bound._one.structured_input_signature
        assert indices.shape.as_list() == [size]
