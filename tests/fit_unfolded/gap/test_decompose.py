"""The parts add up, the replays equal fit, and a cause that acts alone is the only part."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from fit_unfolded.comparison.compare import train
from fit_unfolded.gap import Snapshots, decompose
from fit_unfolded.gap.decompose import DETAILS, NotFinite
from fit_unfolded.gap.page import verdict
from fit_unfolded.workloads import UserData, Workload

RNG = np.random.default_rng(0)
X = RNG.normal(size=[22, 4]).astype("float32")
Y = RNG.integers(0, 3, 22)
WEIGHTS = RNG.random(22).astype("float32")
SEED = 3
layers = keras.layers


def model_of(*hidden):
    return keras.Sequential([keras.Input([4]), *hidden, layers.Dense(3, "softmax")])


def gap_of(build, rate=0.1, epoch=None, make=lambda: X, y=Y, extra=None, fit=None, **compile):
    """Trains by fit and takes the last epoch apart.

    Args:
        make: gives x, a new dataset each time.
        rate: 0 for weights that do not move.
    """
    how = {"run_eagerly": True, "loss": "sparse_categorical_crossentropy"} | compile
    workload = Workload(
        name="tiny",
        description="",
        make_data=None,
        read_data=None,
        build=build,
        compile=lambda: how | {"optimizer": keras.optimizers.SGD(rate, momentum=0.9)},
        fit={"epochs": 2, "batch_size": 4, "shuffle": False} | (fit or {}),
    )

    def data():
        keras.utils.set_random_seed(SEED)
        return UserData(make(), y, (X[:4], Y[:4]), extra or {}, "")

    snapshots = Snapshots(epoch)
    run = train("keras_fit", workload, data(), SEED, callbacks=[snapshots])
    gap = decompose(run.trainer.model, snapshots, data(), workload.fit, SEED)
    index = gap.epoch - 1
    assert gap.loss == run.history["loss"][index]
    assert gap.val_loss == run.history.get("val_loss", [None] * 9)[index]
    check(gap)
    return gap


def check(gap):
    """What holds for every gap."""
    assert gap.replay_ulp == 0
    assert not gap.validation_ulp
    total = math.fsum(part.change for part in gap.parts)
    assert total == pytest.approx(gap.whole, abs=1e-15)
    assert gap.parts[-1].value == gap.last


def changes(gap):
    """The parts that are not exactly 0."""
    return {part.name: part.change for part in gap.parts if part.change}


SAME = {"validation_data": (X, Y)}  # so that the rows are no part


# One cause alone ------------------------------------------------------------------------------

ALONE = {
    "none": ({}, [], set()),
    "moving_weights": ({"rate": 0.1}, [], {"moving_weights"}),
    "training_mode": ({}, [layers.Dropout, 0.5], {"training_mode"}),
    "noise": ({}, [layers.GaussianNoise, 1.0], {"training_mode"}),
    "batch_statistics": ({}, [layers.BatchNormalization], {"batch_statistics"}),
    "class_weight": ({"extra": SAME | {"class_weight": {0: 3.0}}}, [], {"weights"}),
    "sample_weight": ({"extra": SAME | {"sample_weight": WEIGHTS}}, [], {"weights"}),
    "rows": ({"extra": {"validation_data": (X[:9], Y[:9])}}, [], {"rows"}),
    "validation_weight": (
        {"extra": {"validation_data": (X, Y, WEIGHTS)}},
        [],
        {"validation_weights"},
    ),
    "both_weighted": (
        {"extra": {"validation_data": (X, Y, WEIGHTS), "sample_weight": WEIGHTS}},
        [],
        set(),
    ),
}


@pytest.mark.parametrize("cause", ALONE)
def test_a_cause_that_acts_alone_is_the_only_part(cause):
    how, layer, expected = ALONE[cause]

    def build():
        return model_of(*([layer[0](*layer[1:])] if layer else []))

    gap = gap_of(build, **{"rate": 0.0, "extra": SAME} | how)
    assert set(changes(gap)) == expected
    if expected:
        (part,) = (part for part in gap.parts if part.name in expected)
        assert gap.share(part) == 1
        assert f"of it because {part.because}" in verdict(gap)
    else:
        assert verdict(gap) == f"val_loss equals loss, {gap.loss:.4g}."
