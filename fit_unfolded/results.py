"""What a command writes: the figures as JSON, with all that is needed to read them later."""

import json
import math
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fit_unfolded.compare import Comparison, Run
from fit_unfolded.files import replacing
from fit_unfolded.measure import Measurement


def circumstances() -> dict[str, Any]:
    """Versions and machine."""
    packages = ("fit-unfolded", "tensorflow", "keras", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }


def run_figures(run: Run) -> dict[str, Any]:
    """History and evaluation of one side."""
    return {"history": run.history, "evaluate": run.evaluate}


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """The verdict, and each check."""
    return {
        "match": comparison.match,
        "verdict": comparison.verdict,
        "checks": [check._asdict() for check in comparison.checks],
    }


def throughput_figures(measurement: Measurement | None) -> dict[str, Any] | None:
    """Every timed epoch in seconds, medians, quartiles, samples a second and the ratio."""
    return None if measurement is None else asdict(measurement)


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Writes strict JSON: NaN and infinities as the strings "nan", "inf" and "-inf"."""
    text = json.dumps(_finite(figures), indent=2, allow_nan=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
