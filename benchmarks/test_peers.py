"""fit and the loop against plain loops in PyTorch and JAX, run alternately."""

import functools

import pytest

pytest.importorskip("torch", reason="needs the extra `peers`")
pytest.importorskip("jax", reason="needs the extra `peers`")
pytest.importorskip("optax", reason="needs the extra `peers`")

from fit_unfolded.bench.limit import work
from fit_unfolded.bench.models import MODELS
from fit_unfolded.bench.peers import jax_peers, keras_names, run_peers, torch_peers

SECONDS = 15.0  # per model


@functools.cache
def measured(name):
    """All results for a model, measured on the first call."""
    return run_peers(MODELS[name], SECONDS)


CASES = [
    pytest.param(model, name, id=f"{model}-{name}".replace(", ", "-").replace(" ", "-"))
    for model in ("lesson", "mlp", "cnn")
    for name in (*keras_names(MODELS[model]), *torch_peers(model), *jax_peers())
]


@pytest.mark.peers
@pytest.mark.parametrize(("model", "name"), CASES)
def test_peer(enter, refuse, model, name):
    result = measured(model)
    if name in result.refused:
        refuse(f"{name}, {model}", result.refused[name])
    timing = result.measurement.timings[name]
    enter(
        timing.seconds,
        f"peers {model}",
        kind="peer",
        model=model,
        name=name,
        samples=result.measurement.samples,
        steps=MODELS[model].steps,
        turns=result.measurement.turns,
        samples_per_second=timing.samples_per_second,
        apart=result.apart[name],
        work=work(MODELS[model])._asdict(),
    )
