"""Figures as JSON, with the versions and the machine that they come from."""

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fit_unfolded.common.files import replacing


def circumstances() -> dict[str, Any]:
    """Versions and machine."""
    packages = ("fit-unfolded", "tensorflow", "keras", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }


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
