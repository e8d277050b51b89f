"""What is written down of a measured variant, as JSON, and read again for the report."""

from typing import Any

from fit_unfolded.bench.cases import Result, Variant


def record(result: Result, variant: Variant) -> dict[str, Any]:
    """Everything but the timed seconds; the ratios of its case stand in each variant's record."""
    case, measurement = result.case, result.measurement
    return {
        "kind": "training",
        "model": case.model.name,
        "mode": case.mode,
        "policy": case.policy,
        "side": variant.side,
        "xla": variant.xla,
        "batch_size": case.model.batch_size,
        "samples": measurement.samples,
        "steps": case.model.steps,
        "turns": measurement.turns,
        "samples_per_second": measurement.timings[str(variant)].samples_per_second,
        "first_step": result.first_step[str(variant)],
        "ratios": {name: list(ratio) for name, ratio in result.ratios.items()},
    }
