"""The peak arithmetic rate and memory bandwidth of this machine."""

from fit_unfolded.bench.limit import measure_limits


def test_limit(benchmark):
    benchmark.group = "limit"
    limits = benchmark.pedantic(measure_limits, rounds=1)
    benchmark.extra_info.update(kind="limit", **limits._asdict())
