"""`bench WORKLOAD`: one model in every execution mode."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf

import manual_loop
from fit_unfolded import workloads
from fit_unfolded.bench import own
from fit_unfolded.bench.measure import Ratio, Turn, summarize
from fit_unfolded.bench.own import Row, Start, Variant
from fit_unfolded.cli.job import Job

FIT, LOOP = Variant("fit", 1, False), Variant("loop", 1, False)


@pytest.fixture
def job():
    """The lesson with two batches of 16, one of them partial."""
    workload = workloads.get("lesson")
    data = workload.load(seed=0)
    data = workloads.Data(data.x[:20], data.y[:20], data.x[:1], data.y[:1])
    return Job(workload, data, 0, "CPU", workload.fit | {"epochs": 3}, {}, 1)


@pytest.fixture
def two_modes(monkeypatch):
    """One step per call and two, without XLA; and the least number of turns."""
    monkeypatch.setattr(own, "LEAST_TURNS", 1)
    monkeypatch.setattr(own, "MOST_TURNS", 1)
    all_variants = own.variants
    monkeypatch.setattr(own, "variants", lambda n: [v for v in all_variants(n) if not v.xla])


def test_the_variants():
    assert [str(variant) for variant in own.variants(4)] == [
        "fit",
        "loop",
        "fit, 4 steps per call",
        "loop, 4 steps per call",
        "fit XLA",
        "loop XLA",
        "fit XLA, 4 steps per call",
        "loop XLA, 4 steps per call",
    ]
    assert all(variant.steps == 1 for variant in own.variants(1))
    assert len(own.variants(1)) == 4


def test_a_model_is_measured(job, two_modes, tmp_path, capsys):
    assert own.bench(job, tmp_path)
    page, error = capsys.readouterr()
    assert error == ""
    lines = [line for line in page.splitlines() if not line.startswith("Written: ")]  # a path
    assert max(map(len, lines)) <= 80
    # 14 of the 20 rows, those not held back for validation, are one step
    assert "Estimated for 3 epochs of 1 step, without validation: " in page
    assert "Each timed epoch has the first 2 batches." in page
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["steps_per_epoch"] == 1
    assert figures["samples_per_timed_epoch"] == 20
    names = [variant["name"] for variant in figures["variants"]]
    assert names == ["fit", "loop", "fit, 2 steps per call", "loop, 2 steps per call"]
    for variant in figures["variants"]:
        assert variant["first_step"] > variant["step"] > 0
        assert variant["samples_per_second"] > 0
    assert figures["variants"][0]["speedup"] == [1, 1, 1]
    assert figures["variants"][0]["pays_after_steps"] is None


class Unequal(manual_loop.Trainer):
    """Its steps are larger in multi-step calls."""

    def compile(self, optimizer, steps_per_execution, **arguments):
        super().compile(optimizer, steps_per_execution=steps_per_execution, **arguments)
        self.optimizer.learning_rate.assign(0.001 * steps_per_execution)


def test_no_figures_where_the_loop_differs(job, two_modes, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(own.TRAINERS, "loop", Unequal)
    monkeypatch.setattr(own, "variants", lambda n: [Variant(s, n, False) for s in own.TRAINERS])
    assert not own.bench(job, tmp_path)
    page = capsys.readouterr().out
    assert page.startswith("No figures: fit and the loop differ, turn 0, ")
    assert "2 steps per call" in page
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["fit", "loop"])
def test_xla_is_left_out_where_it_fails(job, monkeypatch, broken):
    def start(job, variant, given, size):
        if variant.xla and variant.side == broken:
            raise tf.errors.UnimplementedError(None, None, "no such kernel")
        return Start(1.0, 0.1)

    monkeypatch.setattr(own, "_start", start)
    found, left_out = own._start_all(job, {}, 16, 1)
    assert list(found) == [FIT, LOOP]
    assert [str(variant) for variant in left_out] in (
        ["fit XLA", "loop XLA"],
        ["loop XLA", "fit XLA"],
    )
    assert set(left_out.values()) == {"UnimplementedError: no such kernel"}


def test_an_error_without_xla_is_raised(job, monkeypatch):
    def start(job, variant, given, size):
        raise RuntimeError("broken")

    monkeypatch.setattr(own, "_start", start)
    with pytest.raises(RuntimeError, match="broken"):
        own._start_all(job, {}, 16, 1)


def test_no_mode_begins_too_late(job, monkeypatch):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(own, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(own, "_start", lambda *_: Start(1.0, 0.1))
    found, left_out = own._start_all(job, {}, 16, 4)
    assert [str(variant) for variant in found] == ["fit", "loop"]
    assert set(left_out.values()) == {"no time left"}
    assert len(found) + len(left_out) == 8


def test_the_table():
    seconds = {"fit": 4.0, "loop": 2.0}
    turns = {name: [Turn([s, s], []), Turn([s, s], [])] for name, s in seconds.items()}
    measurement = summarize(turns, samples=80)
    fit, loop = own.table(measurement, {FIT: Start(1.0, 0.0), LOOP: Start(2.0, 0.0)}, batches=10)
    assert (fit.samples_per_second, loop.samples_per_second) == (20, 40)
    assert (fit.step, loop.step) == (0.4, 0.2)
    assert loop.speedup.value == 2
    assert (fit.pays_after, loop.pays_after) == (None, 5)


@pytest.mark.parametrize(
    ("later", "saved", "steps"),
    [(2.0, 0.5, 4), (2.1, 0.5, 5), (-1.0, 0.5, 0), (1.0, -0.5, None), (-1.0, 0.0, None)],
)
def test_after_how_many_steps_a_mode_pays(later, saved, steps):
    assert own.pays_after(later, saved) == steps


@pytest.mark.parametrize(
    ("interval", "steps", "epoch", "words"),
    [
        ((0.5, 0.9), None, 4, "never"),
        ((1.5, 2.5), 0, 4, "at once"),
        ((1.5, 2.5), 6, 4, "1.5"),
        ((1.5, 2.5), 6000, None, "6,000"),
        ((0.9, 1.2), 6, 4, "unclear"),
    ],
)
def test_pays_after_in_words(interval, steps, epoch, words):
    row = Row(LOOP, 1.0, Ratio(1.0, *interval), 1.0, 1.0, steps)
    assert own._after(row, epoch) == words


def test_a_slow_model_has_shorter_timed_epochs():
    assert own._timed_batches(64, [0.001, 0.001]) == 64
    assert own._timed_batches(64, [0.15, 0.1]) == own.TURN_SECONDS / 0.5
    assert own._timed_batches(64, [100.0]) == 1


@pytest.mark.parametrize(
    ("x", "fit", "steps"),
    [
        (np.ones(100), {"batch_size": 16}, 7),
        (np.ones(100), {"batch_size": 16, "validation_split": 0.3}, 5),
        ({"a": np.ones(100)}, {}, 4),
        (np.ones(100), {"steps_per_epoch": 3}, 3),
        (tf.data.Dataset.range(9).batch(2), {}, 5),
        (tf.data.Dataset.range(9).batch(2).repeat(), {}, None),
    ],
)
def test_steps_of_an_epoch(job, x, fit, steps):
    data = workloads.Data(x, None, None, None)
    made = Job(job.workload, data, 0, "CPU", fit, {}, 1)
    assert own._epoch_steps(made, data) == steps
