"""The model of what a step costs, and the measuring that it is fitted to."""

from dataclasses import replace

import pytest

from fit_unfolded.bench import scaling
from fit_unfolded.bench.scaling import Cluster, Cost, Point

COST = Cost(3e-4, 2e-4, 4e-2, 1e-11, 5e-10, 2e-9)
POINTS = scaling.points("replicas", scaling.REPLICAS)


def test_points_scale_the_batch_and_share_it():
    pairs = {(point.count, point.batch) for point in POINTS}
    assert pairs == {(1, 128), (1, 384), (2, 256), (2, 384), (4, 384), (4, 512)}
    assert all(point.batch % point.count == 0 for point in POINTS)


def test_known_costs_are_found_again():
    measured = [replace(point, seconds=COST.seconds(point)) for point in POINTS]
    found = scaling.fitted(measured)
    assert vars(found) == pytest.approx(vars(COST), rel=1e-6)
    assert scaling.errors(found, measured) == pytest.approx([0] * len(measured), abs=1e-9)


def test_no_cost_is_negative():
    measured = [replace(point, seconds=1 / point.count) for point in POINTS]
    assert min(vars(scaling.fitted(measured)).values()) >= 0


def test_the_work_of_a_step():
    point = Point("replicas", 2, 64, 8)
    assert point.gradient_bytes == 4 * (784 * 8 + 8 + 8 * 10 + 10)
    assert point.flop == 2 * 64 * (784 * 8 * 2 + 8 * 10 * 3)


def test_a_ring():
    cluster = Cluster(flops=1e12, bytes_per_second=1e9, latency=1e-6, start=1e-3)
    assert cluster.seconds(1, 1e12, 4e9) == pytest.approx(1.001)
    assert cluster.seconds(4, 1e12, 4e9) == pytest.approx(1e-3 + 0.25 + 6 + 6e-6)


def test_a_point_is_measured():
    point = scaling.measure(Point("one device", 1, 4, 2), None)
    assert 0 < point.seconds < 10
    assert "| one device | 1 | 4 | 2 |" in scaling.tables([point], {})


def test_predictions_are_those_of_the_model():
    first, *_ = scaling.predictions(start=0.01).splitlines()[2:]
    assert first == "| 1 GPU | mlp, 128 samples each | 10.0 | 100% | 10.1 | 1.0 |"
