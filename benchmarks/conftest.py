"""Shared by all benchmarks: the clock, and the environment in every record."""

import os

from fit_unfolded.common.tf_import import import_tensorflow

LOAD = os.getloadavg()[0]  # of the last minute, before any benchmark
import_tensorflow()

import pytest  # noqa: E402

from fit_unfolded.bench.environment import environment  # noqa: E402


class Clock:
    """A clock that only `advance` moves.

    Variants that are compared must run alternately, but pytest-benchmark times one test after
    another. So `fit_unfolded.bench.measure` times the rounds, and each is entered with this clock.
    """

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


CLOCK = Clock()
REFUSED: dict[str, str] = {}


@pytest.fixture
def refuse():
    """Fails, and records for the report which figure was refused, and why."""

    def refused(figure, why):
        REFUSED[figure] = why
        pytest.fail(f"refused: {why}")

    return refused


@pytest.fixture
def enter(benchmark):
    """Enters rounds that were timed before, their group, and further information."""

    def entered(seconds, group, **extra_info):
        rounds = iter(seconds)
        benchmark.group = group
        benchmark.extra_info.update(extra_info, environment=environment())
        benchmark.pedantic(CLOCK.advance, setup=lambda: ((next(rounds),), {}), rounds=len(seconds))

    return entered


def pytest_collection_modifyitems(items):
    for item in items:
        if "enter" in item.fixturenames:
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


def pytest_benchmark_update_machine_info(machine_info):
    for name in ("node", "release"):  # the report is about a type of machine, not one host
        machine_info.pop(name, None)
    machine_info.update(environment(), load_before=LOAD)


def pytest_benchmark_update_json(output_json):
    output_json["refused"] = REFUSED
