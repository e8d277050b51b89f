"""How fast this machine can be at all."""

from fit_unfolded.bench.limit import measure_limits


def test_limit(benchmark):
    benchmark.group = "limit"
    limits = benchmark.pedantic(measure_limits, rounds=1)
    benchmark.extra_info.update(kind="limit", **limits._asdict())
