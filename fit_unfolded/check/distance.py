"""How far two values are apart: in units of the last place, in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fit_unfolded.check.observe import State

# Distances up to these are the same terms summed in another order, in ULP of the largest value of
# the tensor; an update of one weight has no sums.
MOST_ULP = 64.0
MOST_ULP_OF_GRADIENTS = 512.0
MOST_ULP_OF_UPDATE = 16.0


def distance(a: Sequence[Any], b: Sequence[Any]) -> float:
    """In ULP of the largest value of each tensor; inf for other shapes, NaN or other integers."""
    if len(a) != len(b):
        return np.inf
    return max((_apart(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _apart(a: Any, b: Any, least: float = 0.0) -> float:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return np.inf
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f"):
        return 0.0
    if a.dtype.kind in "iub" or b.dtype.kind in "iub" or a.dtype.kind not in "fV":
        return np.inf
    narrow = np.float16 if np.float16 in (a.dtype, b.dtype) else np.float32
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return np.inf
    scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))), least)
    return float(np.max(np.abs(a - b)) / np.spacing(narrow(scale)))


def elementwise(a: np.ndarray, b: np.ndarray, before: np.ndarray) -> float:
    """In ULP of each value, or of the value before the update where that was larger."""
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return 0.0
    if a.dtype.kind not in "fV":
        return np.inf
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(before)).astype(np.float32)
    if not np.all(np.isfinite(scale)):
        return np.inf
    return float(np.max(np.abs(a.astype(np.float64) - b) / np.spacing(scale)))


def gradient_distance(a: dict[int, Any], b: dict[int, Any]) -> float:
    """As `distance`, by position; small gradients are measured by a tenth of the largest."""
    least = 0.1 * max((float(np.max(np.abs(g))) for g in b.values() if g.size), default=0.0)
    if not np.isfinite(least):
        return distance([a[place] for place in b], list(b.values()))
    return max((_apart(a[place], b[place], least) for place in b), default=0.0)


def norm(values: dict[int, Any]) -> float:
    """The global norm."""
    return float(np.sqrt(sum(np.sum(np.square(v.astype(np.float64))) for v in values.values())))


def far(a: State, b: State) -> str:
    """The largest difference in words."""
    if len(a) != len(b) or any(np.shape(x) != np.shape(y) for x, y in zip(a, b, strict=True)):
        return "of another shape"
    pairs = zip(a, b, strict=True)
    largest = max(
        float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0))
        for x, y in pairs
    )
    return f"up to {largest:.3g} from fit's"
