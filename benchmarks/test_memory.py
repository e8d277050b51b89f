"""Peak memory and number of traces: a process of its own for each figure."""

import pytest

from fit_unfolded.bench.fresh import in_fresh_process, streamed
from fit_unfolded.bench.models import MODELS


@pytest.mark.parametrize("side", ["fit", "loop"])
@pytest.mark.parametrize("mode", ["step", "block"])
@pytest.mark.parametrize("model", list(MODELS))
def test_memory(benchmark, model, mode, side):
    """The round is the life of the process, its imports included."""
    benchmark.group = f"memory {model} {mode}"
    figures = benchmark.pedantic(in_fresh_process, [model, mode, side, False], rounds=1)
    benchmark.extra_info.update(kind="memory", model=model, mode=mode, side=side, **figures)


@pytest.mark.parametrize("side", ["fit", "loop"])
def test_memory_of_a_stream(benchmark, side):
    """Four times as much as may lie on the device."""
    benchmark.group = "memory stream"
    figures = benchmark.pedantic(streamed, [side], rounds=1)
    benchmark.extra_info.update(kind="stream", side=side, **figures)
