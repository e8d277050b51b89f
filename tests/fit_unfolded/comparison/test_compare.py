"""Both sides match, and whatever does not match is caught and named."""

import copy

import keras
import numpy as np
import pytest
from matplotlib import image

import keras_fit
from fit_unfolded import workloads
from fit_unfolded.bench.measure import LossesDiffer, measure
from fit_unfolded.comparison import compare as compare_module
from fit_unfolded.comparison import plot
from fit_unfolded.comparison.compare import IMPLEMENTATIONS, compare, train
from fit_unfolded.workloads import Data

SMALL = {"epochs": 2, "batch_size": 16}
ROWS = 60


def few_rows(name, seed=0):
    return Data(*(array[:ROWS] for array in workloads.get(name).load(seed)))


def run(side, name="digits-mlp", seed=0, **arguments):
    return train(side, workloads.get(name), few_rows(name), seed, SMALL, **arguments)


@pytest.fixture(scope="module")
def fit_run():
    return run("keras_fit")


@pytest.fixture(scope="module")
def loop_run():
    return run("manual_loop")


@pytest.fixture
def changed(fit_run):
    """A copy of the run of fit, to be changed in one place."""
    twin = copy.copy(fit_run)
    for name in ("calls", "history", "weights", "optimizer", "evaluate", "predict"):
        setattr(twin, name, copy.deepcopy(getattr(fit_run, name)))
    twin.side = "changed"
    return twin


class CallsOnceMore(keras_fit.Trainer):
    """A side that calls its first callback twice after batch 1 of epoch 1."""

    def fit(self, x, y, callbacks, **arguments):
        first = callbacks[0]

        class Meddler(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_end(self, batch, logs=None):
                if (self.epoch, batch) == (1, 1):
                    first.on_train_batch_end(batch, logs)

        return super().fit(x, y, callbacks=[*callbacks, Meddler()], **arguments)


@pytest.mark.parametrize("name", ["lesson", "digits", "segmentation"])
def test_both_sides_match(name):
    comparison = compare(*(run(side, name) for side in IMPLEMENTATIONS))
    assert comparison.match
    assert comparison.verdict.startswith("MATCH: 0 ULP")


def test_everything_is_compared(fit_run, loop_run):
    values = {check.name: check.values for check in compare(fit_run, loop_run).checks}
    batches, validation, metrics, epochs = 4, 1, 2, 2
    weights = 64 * 128 + 128 + 128 * 10 + 10
    assert values == {
        # set_params, train begin and end; per epoch: begin, end, batches, test begin and end,
        # test batches; then evaluate over 4 batches and predict over 4
        "callback calls": 3 + epochs * (4 + 2 * (batches + validation)) + 2 * (3 + 2 * 4),
        "batch logs": epochs * (batches + validation) * metrics + 4 * metrics + ROWS * 10,
        "epoch logs": epochs * 3 * metrics + 2 * metrics + metrics,
        "history": epochs * 2 * metrics,
        "weights": weights,
        "optimizer variables": weights + 2,
        "evaluate": metrics,
        "predict": ROWS * 10,
    }


def test_another_seed_is_caught(fit_run):
    comparison = compare(fit_run, run("manual_loop", seed=1))
    assert not comparison.match
    assert "first in batch logs, epoch 0, on_train_batch_end(0), logs[" in comparison.verdict
    assert " in keras_fit, " in comparison.verdict
    assert "ULP apart" in comparison.verdict
    cell = comparison._repr_html_()  # in a notebook
    assert all(check.name in cell for check in comparison.checks)
    assert cell.rstrip().endswith("</pre>")
    assert "MISMATCH: first in batch logs" in cell
    assert "color" not in cell


def test_a_callback_called_once_more_is_caught(fit_run, monkeypatch):
    monkeypatch.setitem(compare_module.TRAINERS, "manual_loop", CallsOnceMore)
    comparison = compare(fit_run, run("manual_loop"))
    # set_params, train begin, 14 calls of epoch 0, epoch begin, batches 0 and 1
    assert comparison.verdict == (
        "MISMATCH: first in callback calls, call 22: on_train_batch_begin(2, logs=[]) in keras_fit,"
        " on_train_batch_end(1, logs=['accuracy', 'loss']) in manual_loop."
    )


def test_a_call_too_few_is_caught(fit_run, changed):
    changed.calls.pop()
    comparison = compare(fit_run, changed)
    assert "on_predict_end(logs=[]) in keras_fit, no call in changed" in comparison.verdict


def test_logs_of_other_names_are_caught(fit_run, changed):
    call = changed.calls[-2]
    changed.calls[-2] = call._replace(logs={"result": call.logs["outputs"]})
    verdict = compare(fit_run, changed).verdict
    assert "logs=['outputs']) in keras_fit" in verdict
    assert "logs=['result']) in changed" in verdict


def test_an_argument_of_another_type_is_caught(fit_run, changed):
    place = next(i for i, call in enumerate(changed.calls) if call.method == "on_epoch_begin")
    changed.calls[place] = changed.calls[place]._replace(argument=np.int64(0))
    assert "np.int64(0)" in compare(fit_run, changed).verdict


def one_ulp_up(value):
    return np.nextafter(np.float32(value), np.float32(np.inf))


def test_one_weight_off_by_one_ulp_is_caught(fit_run, changed):
    path, values = changed.weights[2]
    values[3, 4] = one_ulp_up(values[3, 4])
    comparison = compare(fit_run, changed)
    assert {check.name: check.ulp for check in comparison.checks if check.ulp} == {"weights": 1}
    assert f"first in weights, {path}[3, 4]: " in comparison.verdict
    assert comparison.verdict.endswith(" in changed, 1 ULP apart.")


def test_one_optimizer_variable_off_by_one_ulp_is_caught(fit_run, changed):
    _, momentum = changed.optimizer[-1]
    momentum[0] = one_ulp_up(momentum[0])
    comparison = compare(fit_run, changed)
    assert "first in optimizer variables, sgd" in comparison.verdict.lower()
    assert "1 ULP apart" in comparison.verdict


def test_an_optimizer_variable_too_few_is_caught(fit_run, changed):
    changed.optimizer.pop()
    assert "number of variables: 6 in keras_fit, 5 in changed" in compare(fit_run, changed).verdict


@pytest.mark.parametrize("kind", ["evaluate", "history"])
def test_a_log_off_by_one_ulp_is_caught(fit_run, changed, kind):
    figures = getattr(changed, kind)
    if kind == "history":
        figures["val_loss"][1] = float(one_ulp_up(figures["val_loss"][1]))
        where = "history['val_loss'][1]"
    else:
        figures["loss"] = float(one_ulp_up(figures["loss"]))
        where = "evaluate['loss']"
    verdict = compare(fit_run, changed).verdict
    assert f"first in {kind}, {where}: " in verdict
    assert "1 ULP apart" in verdict


def test_a_history_of_other_names_is_caught(fit_run, changed):
    changed.history["extra"] = changed.history.pop("val_loss")
    assert "names in history" in compare(fit_run, changed).verdict


def test_an_output_of_another_shape_is_caught(fit_run, changed):
    changed.predict = changed.predict[:-1]
    verdict = compare(fit_run, changed).verdict
    assert "predict: float32 [60, 10] in keras_fit, float32 [59, 10] in changed" in verdict


def test_random_states_are_compared_too():
    names = [path for path, _ in run("keras_fit", "digits").weights]
    assert any("seed_generator" in name for name in names)


def trainers():
    return {side: run(side).trainer for side in IMPLEMENTATIONS}


def test_throughput_is_measured_in_turns():
    data = few_rows("digits-mlp")
    finished = []
    found = measure(
        trainers(), data.x, data.y, 16, seed=0, turns=2, epochs_per_turn=3,
        each_turn=lambda: finished.append(1),
    )  # fmt: skip
    assert found.samples == ROWS
    assert len(finished) == 4
    for timing in found.timings.values():
        assert len(timing.seconds) == 2 * (3 - 1)
        assert timing.lower_quartile <= timing.median <= timing.upper_quartile
        assert timing.samples_per_second == pytest.approx(ROWS / np.median(timing.seconds))
    a, b = found.timings.values()
    assert found.ratio == pytest.approx(a.median / b.median)
    assert found.interval[0] <= found.ratio <= found.interval[1]


def test_no_throughput_where_the_losses_differ():
    data = few_rows("digits-mlp")
    both = trainers()
    both["manual_loop"].optimizer.learning_rate = 0.01
    with pytest.raises(LossesDiffer, match=r"turn 0, epoch 0, call [01]: loss .* in keras_fit, "):
        measure(both, data.x, data.y, 16, seed=0, turns=1, epochs_per_turn=2)


def test_the_picture_is_300_dpi_and_shows_both_sides(tmp_path, fit_run, loop_run):
    path = tmp_path / "compare.png"
    plot.draw(path, "digits-mlp", fit_run, loop_run, None)
    pixels = image.imread(path)
    assert pixels.shape[:2] == (1260, 2160)
    for side in plot.STYLES:
        colour = np.array([int(side["color"][i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert np.any(np.all(np.abs(pixels[..., :3] - colour) < 0.01, axis=-1))
