"""The benchmarks refuse what was not the same work, and count and draw what they say."""

import contextlib
import copy
import json
import os
import signal
import sys
import time

import keras
import numpy as np
import pytest
from matplotlib import image
from platforms import needs_peak_memory, needs_signals

import keras_fit
import manual_loop
from fit_unfolded import cli
from fit_unfolded.bench import cases, environment, machines, report, run, suite
from fit_unfolded.bench.cases import Case, Variant
from fit_unfolded.bench.limit import Limits, Work, work
from fit_unfolded.bench.measure import LossesDiffer, Turn, across, bootstrap, in_turns, measure
from fit_unfolded.bench.models import LARGE_MODELS, MODELS
from fit_unfolded.bench.peers import race
from fit_unfolded.bench.suite import Task
from fit_unfolded.common.errors import InputError

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


def test_no_figure_where_the_losses_differ(monkeypatch):
    monkeypatch.setitem(cases.TRAINERS, "loop", LearnsFaster)
    with pytest.raises(LossesDiffer, match=r"loss .* in fit default, .* in loop default"):
        cases.run(Case(TINY, ("default",)), 0.0, at_least=1)


def test_no_figure_where_the_weights_differ():
    x, y = TINY.data()
    case = Case(TINY, ("step",))
    both = {"fit": case.trainer(Variant("fit", "step"))}
    both["other"] = Nudges(both["fit"].model.__class__.from_config(both["fit"].model.get_config()))
    both["other"].compile(**cases.compile_arguments())
    both["other"].model.set_weights(both["fit"].model.get_weights())
    with pytest.raises(LossesDiffer, match=r"after the last turn: .*bias differs in fit and other"):
        measure(both, x, y, 16, seed=0, turns=1, epochs_per_turn=2)


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


def processes_of(rng, count, between, within):
    """Tables of seconds of a speedup of 3, with noise between processes and within them."""
    return [
        (3 * rng.lognormal(0, within, [5, 2]) * rng.lognormal(0, between), np.ones([5, 2]))
        for _ in range(count)
    ]


def test_the_interval_across_processes_has_their_variance():
    """95 % of the intervals contain the true ratio; turns alone, which share a process, do not."""
    rng = np.random.default_rng(0)
    found = [processes_of(rng, 3, between=0.05, within=0.01) for _ in range(600)]
    ratios = [across(processes) for processes in found]
    covered = np.mean([ratio.low < 3 < ratio.high for ratio in ratios])
    assert 0.92 < covered < 0.98
    alone = [bootstrap(*processes[0], resamples=50) for processes in found[:100]]
    assert np.mean([ratio.low < 3 < ratio.high for ratio in alone]) < 0.5
    assert across(processes_of(rng, 3, 0.0, 0.0)) == pytest.approx((3.0, 3.0, 3.0))


def test_a_drift_and_a_burst_do_not_move_a_process():
    drift = np.linspace(1, 3, 9)[:, None]
    burst = np.array([1, 1, 1, 50, 1, 1, 1, 1, 1.0])[:, None]
    assert across([(2 * drift * burst, drift)] * 2) == pytest.approx((2.0, 2.0, 2.0))


def test_rounds_go_on_until_the_intervals_are_narrow_or_the_time_is_used_up():
    def wants_another(count, used, stable, limit=100.0, left=1000.0):
        task = Task("mlp", (), 1.0, limit, used, [{}] * count)
        return task.wants_another(lambda task: stable, left)

    assert wants_another(2, 500.0, stable=True)  # three processes in any case
    assert not wants_another(3, 30.0, stable=True)
    assert wants_another(3, 30.0, stable=False)
    assert not wants_another(3, 80.0, stable=False)  # the fourth would end after 107 seconds
    assert not wants_another(3, 30.0, stable=False, left=9.0)  # and this one after 10
    assert not wants_another(suite.MOST_PROCESSES, 1.0, stable=False)
    assert not wants_another(1, 1.0, stable=False, limit=0.0)
    refused = Task("mlp", (), 1.0, 100.0, 1.0, [{"refused": "loss"}])
    assert not refused.wants_another(lambda task: False, 1000.0)


def test_a_busy_machine_is_waited_for_then_told(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shares = iter([0.8, 0.5, 0.02])
    monkeypatch.setattr(environment, "busy_share", lambda: next(shares))
    assert environment.wait_until_quiet()["busy"] == 0.02
    monkeypatch.setattr(environment, "busy_share", lambda: 0.8)
    assert environment.wait_until_quiet(most=0.0)["busy"] == 0.8


def test_a_failed_process_is_refused_without_its_paths():
    found = suite.run([sys.executable, "-S", "-c", "open('/home/someone/x')"], os.environ)
    assert set(found) == {"refused"}
    assert "No such file" in found["refused"]
    assert "someone" not in found["refused"]


def test_no_path_in_a_flag(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/x --xla_cpu_y=1")
    assert environment.environment()["flags"]["XLA_FLAGS"] == "(a path) --xla_cpu_y=1"


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


def test_the_language_model_predicts_the_next_token():
    x, y = LARGE_MODELS["language model"].data()
    assert np.array_equal(x[:, 1:], y[:, :-1])


@needs_peak_memory
def test_a_fresh_process_reports_memory_and_traces():
    found = suite.run(Task("", ("memory", "lesson", "block", "loop")).command(), os.environ)
    assert 0 < found["idle_bytes"] <= found["peak_bytes"]
    assert found["traces"] >= 1


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Exit status, page and file of `bench --quick` on one tiny case."""
    directory = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "QUICK_SECONDS", 0.0)
        patch.setattr(cases, "quick_cases", lambda: [Case(TINY, ("default", "block"))])
        patch.setattr(sys, "argv", ["fit-unfolded", "bench", "--quick", "--output", str(directory)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return caught.value.code, json.loads((directory / "quick.json").read_text())


def test_quick_gives_both_sides_and_their_ratio(quick):
    status, figures = quick
    assert not status
    assert figures["refused"] == []
    assert figures["environment"]["versions"]["keras"] == keras.__version__
    assert [entry["mode"] for entry in figures["cases"]] == ["default", "block"]
    for entry in figures["cases"]:
        assert entry["samples"] == 64
        assert set(entry["samples_per_second"]) == {"fit", "loop"}
        value, low, high = entry["speedup"]
        assert low <= value <= high


def test_quick_refuses_and_exits_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(cases.TRAINERS, "loop", LearnsFaster)
    monkeypatch.setattr(cases, "quick_cases", lambda: [Case(TINY, ("step",))])
    monkeypatch.setattr(sys, "argv", ["", "bench", "--quick", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "lesson: refused, turn 0, epoch 0, call " in capsys.readouterr().out
    assert json.loads((tmp_path / "quick.json").read_text())["cases"] == []


def test_the_ratios_are_a_table_in_a_notebook():
    rows = [["lesson step", "1", "2", "2.00", "1.90 to 2.10"]]
    cell = run.Ratios([], rows, [{"case": "cnn", "why": "they differ"}])._repr_html_()
    assert all(text in cell for text in [*run.HEADERS, *rows[0], "cnn: refused, they differ."])


def process(fit, loop, **more):
    """One of a model with constant seconds."""
    modes = ("default", "step", "block", "block XLA")
    seconds = {f"fit {mode}": [[fit]] * 3 for mode in modes}
    seconds |= {f"loop {mode}": [[loop]] * 3 for mode in modes}
    seconds["loop block XLA"] = [[loop / 2]] * 3
    first = {"fit default": 1.0, "loop default": 1.5}
    return {"samples": 64, "steps": 4, "seconds": seconds, "first_step": first} | more


def results(directory, loops=(0.5, 0.5, 0.5), date="2030-01-02", busy=0.03, refused=None):
    """Writes a folder of results of the mlp and of its peers."""
    machine = {
        "cpu": "A processor", "cores": 2, "gpus": [], "system": "Linux", "intra_op_threads": 0,
        "python": "3.11", "versions": {"keras": "3"}, "flags": {},
    }  # fmt: skip
    file = {
        "date": date, "command": "fit-unfolded bench", "commit": "abc", "minutes": 1.0,
        "environment": machine, "start": {"busy": busy, "waited": 4, "frequency": None},
    }  # fmt: skip

    def task(*processes):
        return {"limit": 100.0, "used": 60, "processes": list(processes)}

    sweep = {"fit default width 16": [[1.0]], "loop default width 16": [[0.25]]}
    memory = {"peak_bytes": 200 * 2**20, "idle_bytes": 2**20, "traces": 3}
    stream = {"peak_bytes": 41 * 2**20, "idle_bytes": 2**20, "data_bytes": 2**28}
    cnn = [{"refused": refused}] if refused else [process(1.0, 1.0)] * 2
    own = {
        "mlp": task(*(process(1.0, loop) for loop in loops)),
        "cnn": task(*cnn),
        "sweep": task(*[{"samples": {"width 16": 64}, "seconds": sweep}] * 3),
        "limit": task(
            {"flops": 1e11, "bandwidth": 2e10,
             "work": {name: {"flops": 10**6, "bytes": 10**5} for name in ("mlp", "cnn")}}
        ),
        "anatomy": task({"a step": {"mlp": {"a piece": 2e-3}}, "an epoch": {"mlp": {"read": 0.5}}}),
        "memory mlp, block, fit": task(memory),
        "memory mlp, block, loop": task(memory | {"peak_bytes": 100 * 2**20}),
        "stream fit": task(stream),
        "stream loop": task(stream | {"peak_bytes": 31 * 2**20}),
    }  # fmt: skip
    rivals = process(1.0, 0.5)
    rivals["seconds"] |= {"PyTorch eager": [[0.75]] * 3, "PyTorch compiled": [[2.0]] * 3}
    del rivals["first_step"]
    rivals["apart"] = dict.fromkeys(rivals["seconds"], 1e-7)
    reached = {"seconds": 2.0, "accuracies": [0.9, 0.975]}
    peers = {
        "mlp": task(*[rivals | {"refused": {"JAX lax.scan": "no compiler"}}] * 3),
        "target fit": task(*[reached | {"seconds": 4.0}] * 3),
        "target loop": task(*[reached] * 3),
    }
    directory.mkdir(exist_ok=True)
    for name, tasks in (("bench.json", own), ("peers.json", peers)):
        (directory / name).write_text(suite.compact(copy.deepcopy(file) | {"tasks": tasks}))
    return directory


def test_the_report_shows_what_was_measured(tmp_path):
    page = report.write_report(results(tmp_path / "a", refused="loss 1 in fit")).read_text()
    assert "| mlp | **2.00** (2.00 to 2.00) | **2.00** (2.00 to 2.00) |" in page
    assert "**4.00** (4.00 to 4.00) | 3 | 60 of 100 |" in page  # best
    assert "are stable: no 95 % interval extends more than 5 %" in page
    assert "| mlp, loop block XLA |" in page
    assert "**3.00** (3.00 to 3.00), eager" in page  # not the compiled variant
    assert "| PyTorch compiled | 32 | 1e-07 | 8.00 |" in page.partition("## Appendix")[2]
    assert "| loop | **2.00** (2.00 to 2.00) | 2 | 0.9750 | 3 |" in page
    assert "All need the same epochs." in page
    assert "| mlp, default | 1.00 | 1.50 | 1.50 (1.50 to 1.50) |" in page
    assert "| a piece | 2,000 |" in page
    assert "| read | 500.00 |" in page
    assert "| mlp, block | 200 | 100 | 0.500 | 199 | 99 | 3 | 3 |" in page
    assert "needs 40 MiB with fit and 30 MiB with the loop" in page
    assert "| width 16 | 64 | 256 | **4.00** (4.00 to 4.00) |" in page
    assert "used 3% of the cores at the start, after a wait of 4 s" in page
    assert "- cnn: loss 1 in fit" in page
    assert "- JAX lax.scan: no compiler" in page
    for name in ("ratios.png", "modes.png", "limit.png", "sweeps.png"):
        assert f"({name})" in page
        assert np.std(image.imread(tmp_path / "a" / name)) > 0


def test_what_is_wide_busy_or_refused_is_marked(tmp_path):
    results(tmp_path / "a", loops=(0.5, 0.6, 0.4), busy=0.4, refused="loss")
    results(tmp_path / "b", date="2030-01-03")
    page = machines.page(tmp_path)
    new, old = (line for line in page.splitlines() if line.startswith("| [A processor, 2 cores]"))
    assert "(b/report.md) | 2030-01-03 | 2.00 | 1.00 |" in new
    assert "no peers" not in new
    assert "(a/report.md) | 2030-01-02 | ~2.0" in old
    assert "**refused: cnn, JAX lax.scan**; unstable: " in old
    assert "the machine was busy" in old
    marked = report.text(report.Suite.read(tmp_path / "a"))
    assert "**The machine was busy.**" in marked
    assert ") time limit | " in marked


@pytest.mark.parametrize("name", ["bench.json", "peers.json"])
def test_results_that_are_damaged_are_named(tmp_path, name):
    path = results(tmp_path / "a") / name
    content = json.loads(path.read_text())
    report.Suite.read(path.parent)
    del content["tasks"]
    for damaged, words in [
        (b"", "JSONDecodeError"),
        (path.read_bytes()[:-9], "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (b"[" * 100_000, "RecursionError"),
        (b"[]", "TypeError"),
        (json.dumps(content).encode(), "KeyError: 'tasks'"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name} is damaged .*{words}.*measure again"):
            machines.page(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=rf"{name} is a directory; name a JSON file"):
        report.write_report(path.parent)


def test_the_figures_of_the_readme_are_of_the_newest_results(tmp_path):
    results(tmp_path / "a", loops=(0.25, 0.25, 0.25))
    results(tmp_path / "b", date="2030-01-03")
    english, korean = machines.READMES.values()
    found = machines.figures(english, tmp_path)
    assert "| loop / `fit`, default | 2.00 | 1.00 |" in found
    assert "| best loop / best PyTorch | 3.00 |  |" in found
    assert "`fit` 4.00 s, loop 2.00 s" in found
    assert "| 루프 / `fit`, 기본 | 2.00 | 1.00 |" in machines.figures(korean, tmp_path)


def test_no_page_is_stale():
    """`python -m fit_unfolded.bench.machines` writes them."""
    page = (machines.RESULTS / "README.md").read_text()
    assert page == machines.page()
    for file, words in machines.READMES.items():
        readme = file.read_text(encoding="utf-8")
        assert readme == machines.with_figures(readme, words)
        stale = readme.replace(f"| {words.speedup} |", "| |")
        assert stale != machines.with_figures(stale, words) == readme
    for directory, found in machines.folders().items():
        assert (directory / "report.md").read_text() == report.text(found)


@needs_signals
def test_an_interrupted_suite_ends_with_all_its_processes(tmp_path, monkeypatch):
    """The grandchild holds a lock on a file, which is free once it has ended."""
    import fcntl

    monkeypatch.chdir(tmp_path)
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
            suite.run(command, os.environ)
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
    race.check_first_epoch(expected, expected * np.float32(1 + 5e-6))
    with pytest.raises(LossesDiffer, match=r"epoch 0, batch 1: loss 0\.5 in Keras, 0\.6"):
        race.check_first_epoch(expected, np.array([1.0, 0.6], "float32"))


def test_the_order_of_fit_is_a_permutation_and_shuffled():
    order = race.fit_order(64, 16)
    assert order.shape == (4, 16)
    assert sorted(order.ravel()) == list(range(64))
    assert not np.array_equal(order.ravel(), np.arange(64))
    assert np.array_equal(order, race.fit_order(64, 16))


def logits_of(name):
    """x of a few samples, and Keras's weights and outputs before the softmax."""
    model = Case(MODELS[name], ("step",)).build()
    x, _ = MODELS[name].cut(4).data()
    last = model.layers[-1]
    before = keras.Model(model.inputs[0], last.input)(x)
    weights = [np.array(weight) for weight in model.get_weights()]
    return x, weights, np.array(before @ last.kernel + last.bias)


@pytest.mark.parametrize("name", ["lesson", "cnn"])
def test_torch_has_the_weights_of_keras(name):
    torch = pytest.importorskip("torch", reason="the extra `peers` is not installed")
    from fit_unfolded.bench.peers.pytorch import Net

    x, weights, expected = logits_of(name)
    found = Net(weights)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("name", ["lesson", "cnn"])
def test_jax_has_the_weights_of_keras(name, products):
    pytest.importorskip("jax", reason="the extra `peers` is not installed")
    from fit_unfolded.bench.peers.jax_optax import forward

    x, weights, expected = logits_of(name)
    found = np.asarray(forward(weights, x, products))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
