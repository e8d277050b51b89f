"""fit and the loop: every model, execution mode and precision, with and without XLA."""

import functools

import pytest

from fit_unfolded.bench.cases import all_cases, run, sweeps
from fit_unfolded.bench.limit import work
from fit_unfolded.bench.measure import LossesDiffer
from fit_unfolded.bench.record import record

SECONDS = 4.0  # per case
SWEEP_SECONDS = 1.0  # per point


@functools.cache
def measured(case, **limits):
    """All variants of the case, run alternately on the first call."""
    try:
        return run(case, **limits)
    except LossesDiffer as refusal:
        return refusal


def variants(cases):
    return [
        pytest.param(case, variant, id=f"{case}-{variant}".replace(" ", "-"))
        for case in cases
        for variant in case.variants
    ]


@pytest.mark.parametrize(("case", "variant"), variants(all_cases()))
def test_training(enter, refuse, case, variant):
    result = measured(case, seconds=SECONDS)
    if isinstance(result, LossesDiffer):
        refuse(str(case), str(result))
    seconds = result.measurement.timings[str(variant)].seconds
    enter(seconds, str(case), **record(result, variant), work=work(case.model)._asdict())


POINTS = [
    pytest.param(name, value, case, variant, id=f"{name}-{value}-{case.mode}-{variant}")
    for name, points in sweeps().items()
    for value, case in points
    for variant in case.variants
]


@pytest.mark.parametrize(("sweep", "value", "case", "variant"), POINTS)
def test_sweep(enter, refuse, sweep, value, case, variant):
    result = measured(case, seconds=SWEEP_SECONDS, at_least=3, first_steps=0)
    if isinstance(result, LossesDiffer):
        refuse(f"{sweep} {value}, {case.mode}", str(result))
    seconds = result.measurement.timings[str(variant)].seconds
    group = f"{sweep} {value} {case.mode}"
    enter(seconds, group, **record(result, variant), sweep=sweep, value=value)
