"""Peak memory and number of traces, each measured in a separate process."""

import pytest

from fit_unfolded.bench.fresh import in_fresh_process, streamed
from fit_unfolded.bench.models import MODELS


@pytest.mark.parametrize("side", ["fit", "loop"])
@pytest.mark.parametrize("mode", ["step", "block"])
@pytest.mark.parametrize("model", list(MODELS))
def test_memory(benchmark, model, mode, side):
    """One round is the lifetime of the process, including its imports."""
    benchmark.group = f"memory {model} {mode}"
    figures = benchmark.pedantic(in_fresh_process, [model, mode, side, False], rounds=1)
    benchmark.extra_info.update(kind="memory", model=model, mode=mode, side=side, **figures)


@pytest.mark.parametrize("side", ["fit", "loop"])
def test_memory_of_a_stream(benchmark, side):
    """Four times the data that may stay on the device."""
    benchmark.group = "memory stream"
    figures = benchmark.pedantic(streamed, [side], rounds=1)
    benchmark.extra_info.update(kind="stream", side=side, **figures)
