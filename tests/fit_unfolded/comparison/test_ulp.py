import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fit_unfolded.comparison.ulp import distance, log_distance

FLOATS = [np.float16, np.float32, np.float64]


def numbers(dtype):
    return st.floats(width=np.dtype(dtype).itemsize * 8, allow_nan=False, allow_infinity=False).map(
        dtype
    )


pairs = st.sampled_from(FLOATS).flatmap(lambda t: st.tuples(numbers(t), numbers(t)))


@given(st.sampled_from(FLOATS).flatmap(lambda t: arrays(t, (2, 3))))
def test_equal_arrays_are_zero_apart_also_with_nan_and_infinity(a):
    assert distance(a, a.copy()) == 0


@given(pairs)
def test_distance_is_symmetric_and_zero_only_for_equal_numbers(pair):
    a, b = pair
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)


@given(st.sampled_from(FLOATS).flatmap(numbers))
def test_neighbours_are_one_apart(a):
    towards_zero = np.nextafter(a, a.dtype.type(0))
    assert distance(a, towards_zero) == (a != 0)


@given(pairs)
def test_distance_counts_steps_of_the_larger_number_and_is_finite(pair):
    a, b = pair
    assert distance(a, b) <= 2.0 ** (np.finfo(a.dtype).nmant + 3)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_steps_are_counted(steps):
    a = np.float32(1.5)
    b = np.float32(a + steps * np.spacing(a))
    assert distance(a, b) == steps


def test_largest_difference_of_an_array_counts():
    a = np.ones(4, np.float32)
    b = a.copy()
    b[1] += 3 * np.spacing(a[1])
    b[2] += 5 * np.spacing(a[2])
    assert distance(a, b) == 5


def test_bfloat16_is_counted_in_its_own_steps():
    a = np.array([1.0, np.nan], ml_dtypes.bfloat16)
    b = np.array([1.0078125, np.nan], ml_dtypes.bfloat16)
    assert distance(a, b) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros(2), np.zeros(3)),
        (np.float32(1), np.float64(1)),
        (np.nan, 1.0),
        (np.inf, 1.0),
        (np.inf, -np.inf),
        ([1.0], [1.0, 2.0]),
        ({"loss": 1.0}, {"acc": 1.0}),
        ({"loss": 1.0, "acc": 1.0}, {"acc": 1.0, "loss": 1.0}),
        ({"loss": 1.0}, [1.0]),
        (3, 4),
        ("adam", "sgd"),
        (None, 0.0),
    ],
)
def test_what_has_no_steps_between_is_infinitely_far(a, b):
    assert distance(a, b) == np.inf


def test_nested_structures_give_the_largest_distance_within():
    a = {"loss": [1.0, 2.0], "acc": (np.float32(3),), "name": "x", "none": None}
    b = {
        "loss": [1.0, 2.0 + 4 * np.spacing(2.0)],
        "acc": (np.float32(3),),
        "name": "x",
        "none": None,
    }
    assert distance(a, a) == 0
    assert distance(a, b) == 4


def test_logs_are_counted_in_float32():
    a, b = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    assert log_distance(float(a), float(b)) == 1
    assert distance(float(a), float(b)) > 1e8
    assert log_distance(0.1, np.nextafter(0.1, 1)) == 1  # held by float64 only
    assert log_distance(float("nan"), float("nan")) == 0
    assert log_distance(1e300, 1e300) == 0
