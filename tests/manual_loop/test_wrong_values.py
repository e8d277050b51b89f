"""Wrong values for every parameter: where fit refuses, so does the loop, with the same type and as
early; where fit accepts, the loop does too, and all that is to be seen is equal."""

import re

import pytest
from parity import covers, first_difference, needs_keras
from wrong_calls import (
    BEGIN,
    END,
    EXCEPTIONS,
    METHODS,
    PAGE,
    Call,
    all_calls,
    breaks_the_rule,
    difference,
    exception,
    noted,
    outcome,
    outcomes,
    pair,
    parameters,
    sample,
    tables,
)

import manual_loop

pytestmark = needs_keras("3.15", "may refuse other calls: these were noted with 3.15")


@covers(
    "errors: every parameter, with wrong types and values",
    promise="the type that fit raises, as early; 0 ULP where fit accepts",
)
@pytest.mark.parametrize("call", sample(), ids=str)
def test_a_wrong_call(call):
    broken = breaks_the_rule(call)
    assert broken is None, broken
    theirs, _ = outcomes(call)
    assert (theirs.error is None) == (str(call) in noted()), "stale: make wrong-calls"


@pytest.mark.parametrize("row", EXCEPTIONS, ids=lambda row: row.title)
def test_every_exception_is_needed(row):
    call = next(call for call in all_calls() if exception(call) is row)
    assert difference(*outcomes(call))
    assert breaks_the_rule(call) is None


class Late(manual_loop.Trainer):
    """Refuses after a step."""

    def fit(self, x, y, **arguments):
        super().fit(x, y, verbose=0)
        return super().fit(x, y, **arguments)


class Lenient(manual_loop.Trainer):
    """Refuses nothing."""

    def fit(self, x, y, **arguments):
        try:
            return super().fit(x, y, **arguments)
        except TypeError:
            return super().fit(x, y, verbose=0)


class Strict(manual_loop.Trainer):
    """Refuses everything."""

    def fit(self, x, y, **arguments):
        raise TypeError


class Vague(manual_loop.Trainer):
    """Refuses with another type."""

    def fit(self, x, y, **arguments):
        try:
            return super().fit(x, y, **arguments)
        except TypeError as error:
            raise ValueError from error


class Other(manual_loop.Trainer):
    """Trains otherwise."""

    def fit(self, x, y, **arguments):
        return super().fit(x, (y + 1) % 3, **arguments)


REFUSED = Call("one", "fit", (("epochs", '"text"'),))
ACCEPTED = Call("one", "fit", (("epochs", "True"),))


@pytest.mark.parametrize(
    ("Trainer", "call", "words"),
    [
        (manual_loop.Trainer, REFUSED, None),
        (manual_loop.Trainer, ACCEPTED, None),
        (Late, REFUSED, "before a variable changes, the loop after"),
        (Lenient, REFUSED, "fit raises TypeError, the loop accepts"),
        (Strict, ACCEPTED, "fit accepts, the loop raises TypeError"),
        (Vague, REFUSED, "fit raises TypeError, the loop ValueError"),
        (Other, ACCEPTED, "ULP apart"),
    ],
)
def test_the_comparison_can_fail(Trainer, call, words):
    theirs, loop = pair("one").restarted()
    trainer = Trainer(loop.model)
    found = difference(outcome(call, theirs), outcome(call, trainer))
    assert found is None if words is None else re.search(words, found), found


def test_every_parameter_is_called_with_wrong_values():
    named = [str(call) for call in all_calls()]
    assert len(set(named)) == len(named)
    for method in METHODS:
        for parameter in parameters(method):
            calls = [call for call in all_calls() if call.method == method]
            found = [call for call in calls if parameter.name in dict(call.arguments)]
            assert len(found) > 5, (method, parameter)


def test_wrong_calls_leave_nothing_behind():
    """After them, a right call does what it does with new trainers."""
    right = Call("one", "fit", (("epochs", "2"),))
    for call in sample():
        outcomes(call)
    used, new = pair("one"), pair.__wrapped__("one")
    for a, b in zip(used.restarted(), new.restarted(), strict=True):
        assert first_difference(outcome(right, a).seen, outcome(right, b).seen) is None


def test_the_page_counts_the_calls_there_are():
    """If not: `make wrong-calls`."""
    assert noted() <= {str(call) for call in all_calls()}
    assert f"{BEGIN}\n{tables()}\n{END}" in PAGE.read_text(encoding="utf-8")
