"""How the time of a step, and of an epoch, is divided among its parts."""

import pytest

from fit_unfolded.bench.anatomy import anatomy_of_a_step, anatomy_of_an_epoch
from fit_unfolded.bench.models import MODELS

WHAT = {"a step": anatomy_of_a_step, "an epoch": anatomy_of_an_epoch}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("what", list(WHAT))
def test_anatomy(benchmark, what, model):
    """One round is the whole measurement; the parts are in `extra_info`."""
    if (what, model) == ("an epoch", "cnn"):
        pytest.skip("with XLA, a CPU runs convolutions one step per call: gains_from_a_block")
    benchmark.group = f"anatomy of {what} {model}"
    pieces = benchmark.pedantic(WHAT[what], [MODELS[model]], rounds=1)
    benchmark.extra_info.update(kind="anatomy", what=what, model=model, pieces=pieces)
