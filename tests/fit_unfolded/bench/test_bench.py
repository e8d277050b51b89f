"""The benchmarks refuse what was not the same work, and count and draw what they say."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib import image
from platforms import needs_peak_memory, needs_signals

import keras_fit
import manual_loop
from fit_unfolded import cli
from fit_unfolded.bench import cases, peers, report, run, suite
from fit_unfolded.bench.cases import Case, Variant
from fit_unfolded.bench.fresh import in_fresh_process
from fit_unfolded.bench.limit import Limits, Work, work
from fit_unfolded.bench.measure import LossesDiffer, Turn, bootstrap, in_turns, measure
from fit_unfolded.bench.models import MODELS

TINY = MODELS["lesson"].cut(64)


class LearnsFaster(manual_loop.Trainer):
    """A side that is not the same."""

    def compile(self, optimizer, **arguments):
        super().compile(keras.optimizers.Adam(2e-3), **arguments)


class Nudges(keras_fit.Trainer):
    """A side that leaves other weights behind than those its losses come from."""

    def fit(self, *arguments, **settings):
        history = super().fit(*arguments, **settings)
        bias = self.model.weights[1]
        bias.assign(np.nextafter(np.array(bias), np.float32(1)))
        return history


@pytest.mark.parametrize("mode", ["step", "block"])
def test_no_figure_where_the_losses_differ(mode, monkeypatch):
    monkeypatch.setitem(cases.TRAINERS, "loop", LearnsFaster)
    with pytest.raises(LossesDiffer, match=r"epoch 0, batch 1: loss .* in fit, .* in loop"):
        cases.run(Case(TINY, mode, xla=(False,)), 0.0)


def test_no_figure_where_the_weights_differ():
    x, y = TINY.data()
    case = Case(TINY, "step")
    both = {"fit": case.trainer(Variant("fit", False))}
    both["other"] = Nudges(both["fit"].model.__class__.from_config(both["fit"].model.get_config()))
    both["other"].compile(**cases.compile_arguments() | case.how(Variant("fit", False)))
    both["other"].model.set_weights(both["fit"].model.get_weights())
    with pytest.raises(LossesDiffer, match=r"after the last turn: .*bias differs in fit and other"):
        measure(both, x, y, 16, seed=0, turns=1, epochs_per_turn=2)


def test_xla_may_differ_by_rounding_and_no_more():
    case = Case(TINY, "step")
    losses = {variant: np.array([1.0, 0.5], "float32") for variant in case.variants}
    for variant in case.variants[2:]:
        losses[variant] = losses[variant] * np.float32(1 + 5e-6)
    cases.check_batch_losses(case, losses)
    for variant in case.variants[2:]:
        losses[variant] = losses[variant] * np.float32(1 + 5e-5)
    with pytest.raises(LossesDiffer, match=r"in fit, .* in fit XLA"):
        cases.check_batch_losses(case, losses)


def test_the_interval_of_equal_times_is_a_point():
    fast = np.full([6, 2], 0.5)
    assert bootstrap(2 * fast, fast) == (2.0, 2.0, 2.0)


def test_a_drift_that_both_share_does_not_widen_the_interval():
    drift = np.linspace(1, 3, 9)[:, None]
    ratio = bootstrap(2 * drift, drift)
    assert ratio == (2.0, 2.0, 2.0)
    assert not ratio.unstable


def test_the_interval_covers_the_ratio_and_widens_with_noise():
    rng = np.random.default_rng(0)
    calm, restless = (
        bootstrap(3 * rng.lognormal(0, sigma, [12, 2]), rng.lognormal(0, sigma, [12, 2]))
        for sigma in (0.02, 0.5)
    )
    for ratio in (calm, restless):
        assert ratio.low < 3 < ratio.high
        assert ratio.low <= ratio.value <= ratio.high
    assert restless.high - restless.low > 5 * (calm.high - calm.low)
    assert not calm.unstable
    assert restless.unstable


def test_turns_alternate_until_the_time_is_over():
    seen = []

    def runner(name):
        def turn(seed):
            seen.append((name, seed))
            return Turn([1.0], [[0.0]])

        return turn

    found = in_turns({n: runner(n) for n in "ab"}, seed=7, turns=9, at_least=2, seconds=0.0)
    assert seen == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]
    assert {name: len(turns) for name, turns in found.items()} == {"a": 2, "b": 2}


def test_work_of_the_mlp_by_hand():
    forward = 2 * 128 * 784 * 512 + 2 * 128 * 512 * 10
    backward = 2 * 128 * 784 * 512 + 2 * (2 * 128 * 512 * 10)  # not for the first layer's input
    parameters = 784 * 512 + 512 + 512 * 10 + 10
    found = work(MODELS["mlp"])
    assert found == Work(forward + backward, 28 * parameters + 128 * (784 + 1) * 4)
    assert found.seconds(Limits(flops=1e9, bandwidth=1e15)) == (forward + backward) / 1e9


def test_work_of_the_cnn_by_hand():
    first = 2 * 128 * 26 * 26 * 32 * (3 * 3 * 1)
    second = 2 * 128 * 11 * 11 * 64 * (3 * 3 * 32)
    dense = 2 * 128 * 1600 * 10
    assert work(MODELS["cnn"]).flops == 2 * first + 3 * second + 3 * dense


@needs_peak_memory
def test_a_fresh_process_reports_memory_and_traces():
    found = in_fresh_process("lesson", "block", "loop", False)
    assert 0 < found["idle_bytes"] <= found["peak_bytes"]
    assert found["traces"] >= 1


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Exit status, page and file of `bench --quick` on one tiny case."""
    directory = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "QUICK_SECONDS", 0.0)
        patch.setattr(cases, "quick_cases", lambda: [Case(TINY, "block")])
        patch.setattr(sys, "argv", ["fit-unfolded", "bench", "--quick", "--output", str(directory)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return caught.value.code, json.loads((directory / "quick.json").read_text())


def test_quick_gives_both_sides_and_their_ratio(quick):
    status, figures = quick
    assert not status
    assert figures["refused"] == []
    assert figures["environment"]["versions"]["keras"] == keras.__version__
    variants = [(entry["side"], entry["xla"]) for entry in figures["cases"]]
    assert variants == [("fit", False), ("loop", False), ("fit", True), ("loop", True)]
    for entry in figures["cases"]:
        assert entry["samples"] == 64
        assert set(entry["ratios"]) == {"", "XLA", "best"}
        assert all(low <= value <= high for value, low, high in entry["ratios"].values())


def test_quick_refuses_and_exits_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(cases.TRAINERS, "loop", LearnsFaster)
    monkeypatch.setattr(cases, "quick_cases", lambda: [Case(TINY, "step", xla=(False,))])
    monkeypatch.setattr(sys, "argv", ["", "bench", "--quick", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "lesson step: refused, epoch 0, batch 1: loss" in capsys.readouterr().out
    assert json.loads((tmp_path / "quick.json").read_text())["cases"] == []


def test_the_report_shows_what_was_measured(quick, tmp_path):
    _, figures = quick
    seconds = {"stats": {"data": [0.25, 0.5, 1.0]}}
    records = [
        e | {"work": work(TINY)._asdict(), "first_step": [1.0, 2.0]} for e in figures["cases"]
    ]
    extra = [
        *records,
        *({**e, "sweep": "width", "value": 64} for e in records if not e["xla"]),
        {"kind": "limit", "flops": 1e11, "bandwidth": 2e10},
        *(
            {"kind": "memory", "model": "lesson", "mode": "block", "side": side,
             "peak_bytes": size * 2**20, "idle_bytes": 2**20, "traces": 3}
            for side, size in (("fit", 200), ("loop", 100))
        ),
        *(
            {"kind": "anatomy", "what": what, "model": model, "pieces": {"fit": 3e-3, "a piece": t}}
            for what, model, t in (
                ("a step", "lesson", 1e-3), ("a step", "mlp", 2e-3), ("an epoch", "mlp", 0.5)
            )
        ),
        *(
            {"kind": "stream", "side": side, "data_bytes": 2**28, "peak_bytes": size * 2**20,
             "idle_bytes": 2**20}
            for side, size in (("fit", 41), ("loop", 31))
        ),
    ]  # fmt: skip
    file = {
        "machine_info": figures["environment"] | {"load_before": 0.25},
        "datetime": "2030-01-02T03:04:05",
        "refused": {"mlp step": "epoch 0, batch 1: loss 1.0 on fit, 2.0 on loop"},
        "benchmarks": [{"extra_info": entry} | seconds for entry in extra],
    }
    (tmp_path / "bench.json").write_text(json.dumps(file))
    page = report.write_report(tmp_path).read_text()
    value, low, high = records[0]["ratios"][""]
    assert f"**{value:.2f}** ({low:.2f} to {high:.2f})" in page
    assert "| lesson, block | 200 | 100 | 0.500 | 199 | 99 | 3 | 3 |" in page
    assert "needs 40 MiB with fit and 30 MiB with the loop" in page
    assert "| a step, µs | lesson | mlp |" in page
    assert "| a piece | 1,000 | 2,000 |" in page
    assert "| a piece | 500.00 |" in page
    assert "load average before: 0.25" in page
    assert f"| {records[0]['ratios']['best'][0]:.2f} of 13" in page
    assert "loop / fit, at most | 1.00 of 1.1 |" in page
    assert "loop / fit, at most | 0.50 of 1.05 |" in page
    assert "- mlp step: epoch 0, batch 1: loss 1.0 on fit, 2.0 on loop" in page
    assert "| lesson, block | 1.50 | 1.50 | 1.00 |" in page
    assert f"| {0.5 / 4 * 1e6:,.0f} |" in page
    for name in ("ratios.png", "modes.png", "limit.png", "sweeps.png"):
        assert f"({name})" in page
        assert np.std(image.imread(tmp_path / name)) > 0


def test_earlier_results_are_read_under_the_present_names_of_models():
    entry = {"extra_info": {"kind": "memory", "model": "chapter"}, "stats": {"data": []}}
    (found,) = report.Suite({"benchmarks": [entry]}, None).memory
    assert found["model"] == "lesson"
    for directory in (Path(report.__file__).parents[2] / "benchmarks" / "results").iterdir():
        page = report.text(report.Suite.read(directory))
        assert "| lesson, step | " in page
        assert "chapter" not in page


@needs_signals
def test_an_interrupted_suite_ends_with_all_its_processes(tmp_path, monkeypatch):
    """The grandchild holds a lock on a file, which is free once it has ended."""
    import fcntl

    monkeypatch.setattr(suite, "SUITE", tmp_path)
    lock = tmp_path / "lock"
    holds = "import fcntl, time\nf = open('lock', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
    holds += "open('begun', 'w')\ntime.sleep(60)"
    python = [sys.executable, "-S", "-c"]
    command = [*python, f"import subprocess\nsubprocess.run({[*python, holds]!r})"]

    def interrupt(*_):
        if (tmp_path / "begun").exists():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            suite._run(command, os.environ)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with lock.open("w") as file:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)
    pytest.fail("a process of the suite goes on")


def test_peers_that_compute_something_else_are_refused():
    expected = np.array([1.0, 0.5], "float32")
    peers.check_first_epoch(expected, expected * np.float32(1 + 5e-6))
    with pytest.raises(LossesDiffer, match=r"epoch 0, batch 1: loss 0\.5 in Keras, 0\.6"):
        peers.check_first_epoch(expected, np.array([1.0, 0.6], "float32"))


def test_the_order_of_fit_is_a_permutation_and_shuffled():
    order = peers.fit_order(64, 16)
    assert order.shape == (4, 16)
    assert sorted(order.ravel()) == list(range(64))
    assert not np.array_equal(order.ravel(), np.arange(64))
    assert np.array_equal(order, peers.fit_order(64, 16))


def logits_of(name):
    """x of a few samples, and Keras's weights and outputs before the softmax."""
    model = Case(MODELS[name], "step").build()
    x, _ = MODELS[name].cut(4).data()
    last = model.layers[-1]
    before = keras.Model(model.inputs[0], last.input)(x)
    weights = [np.array(weight) for weight in model.get_weights()]
    return x, weights, np.array(before @ last.kernel + last.bias)


@pytest.mark.parametrize("name", ["lesson", "mlp", "cnn"])
def test_torch_has_the_weights_of_keras(name):
    torch = pytest.importorskip("torch", reason="the extra `peers` is not installed")
    x, weights, expected = logits_of(name)
    found = peers.torch_module(name, weights)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lesson", "mlp", "cnn"])
def test_jax_has_the_weights_of_keras(name):
    pytest.importorskip("jax", reason="the extra `peers` is not installed")
    x, weights, expected = logits_of(name)
    found = np.asarray(peers.jax_forward(name)(weights, x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
