"""The judge of `make soak`, on series that are known to grow or not."""

import numpy as np
import pytest
import soak

SIZE = len(soak.SAME.cards)


def measured(slope, rounds=600, jump=0.0, noise=1.0):
    """Megabytes after each round: `slope` in 1,000 of them, each card with a level of its own."""
    random = np.random.default_rng(0)
    numbers = np.arange(rounds)
    cards = np.tile(random.uniform(0, 30, SIZE), rounds // SIZE + 1)[:rounds]
    later = np.where(numbers > 0.6 * rounds, jump, 0)
    start = 100 * (1 - np.exp(-numbers / 40))  # the first of each kind
    return 500 + start + slope * numbers / 1000 + cards + later + noise * random.normal(size=rounds)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (measured(0), "level"),
        (measured(0, rounds=1200, jump=3), "level"),
        (measured(-50), "level"),
        (measured(18), "grows"),  # half a megabyte kept by one card of the deck
        (measured(500), "grows"),
        (measured(0, rounds=10 * SIZE, noise=50), "undecided"),
        (measured(500, rounds=6 * SIZE), "undecided"),
    ],
    ids=["level", "a jump", "falling", "one card", "each round", "noisy", "short"],
)
def test_the_judge(values, expected):
    rounds = [{side: dict.fromkeys(soak.LIMITS, v) for side in soak.TRAINERS} for v in values]
    assert soak.judge(rounds, soak.SAME)["memory, MB"][-1] == expected


def test_new_graphs_are_judged_against_fit():
    both = measured(500)
    for more, expected in ((0, "level"), (18, "grows")):
        rounds = [
            {"fit": dict.fromkeys(soak.LIMITS, a), "loop": dict.fromkeys(soak.LIMITS, b)}
            for a, b in zip(both, both + measured(more), strict=True)
        ]
        assert soak.judge(rounds, soak.NEW)["memory, MB"][-1] == expected


def test_a_single_bit_is_noticed():
    x = np.ones(3, "float32")
    y = x.copy()
    y[1] = np.nextafter(y[1], np.float32(2))
    assert soak.fingerprint([{"a": x}]) == soak.fingerprint([{"a": x.copy()}])
    assert soak.fingerprint([{"a": x}]) != soak.fingerprint([{"a": y}])
    assert soak.fingerprint([1.0]) != soak.fingerprint([np.float32(1)])


def test_each_card_is_played_once_in_a_deck():
    cards = [soak.NEW.card(number, seed=0)[:2] for number in range(2 * len(soak.NEW.cards))]
    first, second = cards[: len(cards) // 2], cards[len(cards) // 2 :]
    assert first != second
    for part in (first, second):
        assert set(part) == set(soak.NEW.cards)
