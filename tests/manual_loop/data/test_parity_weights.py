"""Weights of classes, samples, time steps and outputs, in the loss and in the weighted metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import (
    ONE_HOT,
    SEQUENCES,
    SHORT,
    SPARSE,
    VALUE,
    X,
    Y,
    compile_with,
    functional,
    plain,
    two_outputs,
)
from parity import assert_parity, covers, fit

PER_SAMPLE = X[:, 0] ** 2
PER_STEP = SEQUENCES[:, :, 0] ** 2


def of_sequences(*before):
    def build():
        layers = [keras.layers.SimpleRNN(3, return_sequences=True), keras.layers.Dense(1)]
        return keras.Sequential([keras.Input([5, 4]), *(make() for make in before), *layers])

    return build


@covers("fit: sample_weight", "weights: of each time step")
@pytest.mark.parametrize("before", [(), (keras.layers.Masking,)], ids=["", "with a mask"])
def test_weights_of_time_steps(before):
    arguments = {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mse", "mae"]}
    data = {"x": SEQUENCES, "y": SEQUENCES[:, :, :1], "sample_weight": PER_STEP}
    compile = compile_with(optimizer="sgd", **arguments, run_eagerly=not before)
    assert_parity(of_sequences(*before), compile, data, **SHORT)


@covers("fit: sample_weight", "weights: of each output")
@pytest.mark.parametrize(
    "weight",
    [PER_SAMPLE, [PER_SAMPLE, X[:, 1] ** 2], [PER_SAMPLE, np.ones([22, 1])]],
    ids=["one for all", "one for each", "of other ranks"],
)
def test_weights_of_outputs(weight):
    arguments = {"loss": [SPARSE, "mse"], "metrics": ["acc", "mae"]}
    arguments["weighted_metrics"] = [["acc"], ["mae", "mse"]]
    data = {"x": X, "y": [Y, VALUE], "sample_weight": weight}
    arguments["optimizer"] = "sgd"
    assert_parity(two_outputs, compile_with(**arguments), data, **SHORT)


@covers("fit: class_weight", "weights: of classes")
@pytest.mark.parametrize("labels", [Y, Y[:, 0], ONE_HOT], ids=["[n, 1]", "[n]", "one-hot"])
@pytest.mark.parametrize("as_dataset", [False, True], ids=["arrays", "dataset"])
def test_weights_of_classes(labels, as_dataset):
    loss = "categorical_crossentropy" if labels is ONE_HOT else SPARSE
    compile = compile_with(loss=loss, weighted_metrics=["acc"], run_eagerly=True)
    data = {"x": X, "y": labels}
    if as_dataset:
        data = {"x": tf.data.Dataset.from_tensor_slices((X, labels)).batch(8)}
    assert_parity(plain, compile, {**data, "class_weight": {0: 2.0, 2: 0.5}}, epochs=2)


@covers("weights: of the validation data")
def test_weights_of_the_validation_data():
    data = {"x": X, "y": Y, "validation_data": (X[:10], Y[:10], PER_SAMPLE[:10])}
    assert_parity(functional, compile_with(weighted_metrics=["acc"]), data, epochs=2)


@covers("weights: with every reduction of the loss")
@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight", "none"])
def test_reductions(reduction):
    def compile():
        loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
        return compile_with(loss=loss, run_eagerly=True)()

    data = {"x": X, "y": Y, "sample_weight": PER_SAMPLE}
    assert_parity(plain, compile, data, then=fit, **SHORT)
