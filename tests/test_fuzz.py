"""Random examples on both sides; `make fuzz N=1000` draws more of them."""

import collections

import fuzz
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from parity import covers

EXAMPLES = 8


@covers("everything together, drawn at random")
def test_random_examples_are_equal_on_both_sides():
    outcomes = collections.Counter()

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        derandomize=False,
        database=None,
        phases=[Phase.generate],  # an example is printed as it was drawn: shrinking takes long
        suppress_health_check=list(HealthCheck),
    )
    @given(program=fuzz.programs())
    def examine(program):
        try:
            outcomes[fuzz.run(program) or "trained"] += 1
        except AssertionError as error:
            how = "with tests/support on PYTHONPATH, run:"
            raise AssertionError(f"{error}\n\n{how}\n\n{program}") from error

    examine()
    assert sum(outcomes.values()) >= EXAMPLES
    # the others were refused by both sides with the same type of error
    assert outcomes["trained"] + outcomes[fuzz.WAVERS] >= EXAMPLES * 2 / 3, outcomes


PROGRAM = """\
from fuzz import *

with policy("float32"):
    hold(plain, lambda: dict(loss="mse", run_eagerly=True), lambda: as_arrays(X, ONE_HOT), epochs=1)
"""


def test_a_difference_is_found(monkeypatch):
    assert fuzz.run(PROGRAM) is None
    monkeypatch.setattr(fuzz, "REPEATS", 2)
    keras_trainer = fuzz.TRAINERS["keras_fit"]
    monkeypatch.setitem(
        fuzz.TRAINERS, "manual_loop", lambda model: keras_trainer(one_step_off(model))
    )
    with pytest.raises(AssertionError, match="ULP apart"):
        fuzz.run(PROGRAM)


def test_a_fit_that_differs_from_itself_is_told_apart(monkeypatch):
    keras_trainer = fuzz.TRAINERS["keras_fit"]
    changes = iter([one_step_off])  # the first time only

    def wavering_trainer(model):
        return keras_trainer(next(changes, lambda model: model)(model))

    monkeypatch.setitem(fuzz.TRAINERS, "keras_fit", wavering_trainer)
    assert fuzz.run(PROGRAM) == fuzz.WAVERS


def one_step_off(model):
    kernel = model.weights[0]
    kernel.assign(np.nextafter(kernel.numpy(), np.float32(9)))
    return model
