"""Distances in ULP, units in the last place: the number of steps of the format in between."""

from collections.abc import Mapping

import numpy as np


def distance(a, b) -> float:
    """Largest distance in ULP between two values of one structure.

    Two numbers are `|a - b|` divided by the step between the larger magnitude and the number
    below it, in their own dtype and rounded up to a whole number: neighbours are 1 apart, and
    only equal numbers are 0 apart (0.0 and -0.0 are equal). NaN against NaN in the same place is
    0, so is an infinity against itself. Integers, booleans and strings have no last place: they
    are 0 apart when equal and inf when not.

    Args:
        a, b: numbers, arrays of any shape and dtype, None, strings, or lists, tuples and mappings
            of those. Python floats count as float64.

    Returns:
        0.0 when nothing differs; inf for different shapes, dtypes, lengths or keys, and for NaN
        or infinity against a number.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return np.inf
        return max((distance(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return np.inf
        return max(map(distance, a, b), default=0.0)
    return _array_distance(np.asarray(a), np.asarray(b))


def log_distance(a, b) -> float:
    """`distance` between two values of callback logs or of a history.

    Keras computes logs in float32 and hands them out as Python floats; two floats that float32
    holds without loss are counted in float32 ULP, all other values as `distance` counts them.
    """
    if isinstance(a, float) and isinstance(b, float) and _is_float32(a) and _is_float32(b):
        return distance(np.float32(a), np.float32(b))
    return distance(a, b)


def _is_float32(value: float) -> bool:
    with np.errstate(over="ignore"):
        return np.isnan(value) or float(np.float32(value)) == value


def _array_distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    same = a == b
    is_float = a.dtype.kind == "f" or a.dtype.name == "bfloat16"
    if is_float:
        same = same | ((a != a) & (b != b))  # only NaN differs from itself
    if np.all(same):
        return 0.0
    if not is_float:
        return np.inf
    a, b = a[~same], b[~same]
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return np.inf
    larger = np.maximum(np.abs(a), np.abs(b))
    step = (larger - np.nextafter(larger, np.zeros_like(larger))).astype(np.float64)
    # Divided before subtracting: float64's largest, of opposite sign, would overflow.
    steps = np.abs(a.astype(np.float64) / step - b.astype(np.float64) / step)
    return float(np.ceil(np.max(steps)))
