"""Where the time of a step goes."""

import pytest

from fit_unfolded.bench.anatomy import anatomy
from fit_unfolded.bench.models import MODELS


@pytest.mark.parametrize("model", list(MODELS))
def test_anatomy(benchmark, model):
    """The round is the whole measurement; the pieces are in `extra_info`."""
    benchmark.group = f"anatomy {model}"
    pieces = benchmark.pedantic(anatomy, [MODELS[model]], rounds=1)
    benchmark.extra_info.update(kind="anatomy", model=model, seconds_a_step=pieces)
