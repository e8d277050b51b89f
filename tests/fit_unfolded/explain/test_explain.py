"""`explain`: both sides make the same calls, and each is traced to the line that it comes from."""

import dataclasses
import io
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import ONE_HOT, SPARSE, VALUE, X, Y, compile_with, plain, policy, two_outputs
from parity import TRAINERS, new_session
from rich.console import Console

from fit_unfolded import cli, workloads
from fit_unfolded.explain import explain, graph, kinds, terminal
from fit_unfolded.explain.decisions import join
from fit_unfolded.explain.run import decide, pair, record

DETAILS = Path(__file__).parents[3] / "docs" / "details.md"
VAE = Path(__file__).parents[3] / "examples" / "vae.py"
WORKLOADS = ["lesson", "lesson-onehot", "digits", "digits-mlp", "segmentation"]
WEIGHTS = np.linspace(0.5, 2, len(X)).astype("float32")


@pytest.fixture(scope="module")
def explained():
    """The `Explanation` of a workload; each is made once."""
    made = {}

    def get(name):
        if name not in made:
            workload = workloads.get(name)
            made[name] = explain(workload, workload.load(0))
        return made[name]

    return get


def source(line):
    """The text of a line."""
    with open(line.path, encoding="utf-8") as file:
        return file.read().split("\n")[line.number - 1].strip()


def page(print_, *args, width=120):
    console = Console(file=io.StringIO(), width=width)
    print_(console, *args)
    return console.file.getvalue()


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_workload_makes_the_same_calls_on_both_sides(explained, name):
    found = explained(name)
    assert found.difference is None, terminal.describe(found.difference)
    calls = [found.event.call for found in found.events]
    assert calls[0] == "on_train_begin"
    assert calls[-1] == "on_train_end"
    assert calls.count("on_train_batch_end") == 2 * 3
    assert calls.count("on_test_batch_end") == 2 * 2
    sources = {found.event.source for found in found.events}
    assert sources == {"callback", "layer", "loss", "metric", "optimizer", "data", "tape"}


def test_mnist_makes_the_same_calls_on_both_sides(tmp_path):
    images, labels = np.arange(40 * 28 * 28).reshape(40, 28, 28) % 256, np.arange(40) % 10
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    workload = workloads.get("mnist")
    found = explain(workload, workload.load(0, file))
    assert found.difference is None, terminal.describe(found.difference)
    assert any(p.event.detail == "x [8, 28, 28, 1], y [8]" for p in found.events)


def arrays(*parts, batch=8):
    """Batches of 8 of the first rows to learn, of the last ones to validate on."""

    def batches():
        rows = slice(0, 16), slice(16, None)
        return [
            tf.data.Dataset.from_tensor_slices(
                keras.tree.map_structure(lambda array, part=part: array[part], parts)
            ).batch(batch)
            for part in rows
        ]

    return batches


CLASSES = arrays(X, Y)
CASES = {
    "sample weights": (plain, compile_with(weighted_metrics=["acc"]), arrays(X, Y, WEIGHTS), {}),
    "several outputs": (
        two_outputs,
        compile_with(
            loss=[SPARSE, "mse"], loss_weights=[1.0, 0.5], metrics=[["acc"], ["mae", "mse"]]
        ),
        arrays(X, (Y, VALUE)),
        {},
    ),
    "EMA": (
        plain,
        compile_with(optimizer=lambda: keras.optimizers.Adam(use_ema=True)),
        CLASSES,
        {},
    ),
    "gradient accumulation": (
        plain,
        compile_with(optimizer=lambda: keras.optimizers.SGD(gradient_accumulation_steps=2)),
        CLASSES,
        {},
    ),
    "EarlyStopping": (
        plain,
        compile_with(optimizer=lambda: keras.optimizers.SGD(5.0)),
        CLASSES,
        {
            "callbacks": lambda: [
                keras.callbacks.EarlyStopping("val_acc", patience=0, restore_best_weights=True)
            ],
            "epochs": 4,
        },
    ),
    "steps_per_execution": (plain, compile_with(steps_per_execution=2), arrays(X, Y, batch=6), {}),
    "a function as loss": (
        plain,
        compile_with(loss=keras.losses.categorical_crossentropy, metrics=None),
        arrays(X, ONE_HOT),
        {},
    ),
}


def streams(build, compile_arguments, batches, options):
    """Each side's events."""
    found = []
    for side in TRAINERS:
        new_session()
        found.append(record(side, build, made(compile_arguments), batches, **options))
    return found


def made(compile_arguments):
    """The arguments with a new optimizer at each call."""

    def arguments():
        given = compile_arguments()
        optimizer = given["optimizer"]
        return given | {"optimizer": optimizer() if callable(optimizer) else optimizer}

    return arguments


def assert_equal(fit, loop):
    _, difference = pair(fit, loop)
    assert difference is None, terminal.describe(difference)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_what_adds_events_adds_them_on_both_sides(case):
    assert_equal(*streams(*case))


def test_a_loss_scale_optimizer_calls_the_one_inside():
    with policy("mixed_float16"):
        fit, loop = streams(plain, compile_with(optimizer="adam"), CLASSES, {})
    assert_equal(fit, loop)
    calls = [event.call for event in fit]
    assert calls.count("loss_scale_optimizer.apply") == 2 * 2
    assert calls.count("adam.finalize_variable_values") == 1
    scaled = next(event for event in fit if event.call == "loss_scale_optimizer.scale_loss")
    before, after = map(float, scaled.detail.split(" -> "))
    assert after > 1000 * before


# What stands on the lines: fit's and the loop's.
LINES = {
    "on_train_begin": ("callbacks.on_train_begin()", "callbacks.on_train_begin()"),
    "on_train_batch_end": (
        "callbacks.on_train_batch_end(end_step, logs)",
        "callbacks.on_train_batch_end(last_step, logs)",
    ),
    "dense.call": ("y_pred = self(x, training=True)", "return model(x, training=training)"),
    "loss.update_state": (
        "self._loss_tracker.update_state(",
        "compiled_metrics.loss.update_state(",
    ),
    "adam.scale_loss": (
        "loss = self.optimizer.scale_loss(loss)",
        "scaled_loss = optimizer.scale_loss(loss)",
    ),
    "tape.enter": ("with tf.GradientTape() as tape:", "with tf.GradientTape() as tape:"),
    "tape.exit": ("with tf.GradientTape() as tape:", "with tf.GradientTape() as tape:"),
    "tape.gradient": (
        "gradients = tape.gradient(loss, trainable_weights)",
        "gradients = tape.gradient(scaled_loss, weights)",
    ),
    "adam.apply": ("self.optimizer.apply_gradients(zip(", "optimizer.apply_gradients(zip("),
    "adam.update_step": (
        "return self.update_step(grad, var, learning_rate)",
        "optimizer.apply_gradients(zip(",
    ),
    "adam.finalize_variable_values": (
        "self.optimizer.finalize_variable_values(self.trainable_weights)",
        "model.optimizer.finalize_variable_values(model.trainable_weights)",
    ),
}


@pytest.mark.parametrize(("call", "texts"), LINES.items(), ids=LINES)
def test_each_event_points_at_the_line_that_makes_the_call(explained, call, texts):
    found = next(found for found in explained("lesson").events if found.event.call == call)
    for line, text in zip((found.fit, found.loop), texts, strict=True):
        assert source(line).startswith(text)
    assert found.fit.file.startswith("keras/src/")
    assert found.loop.file.startswith("manual_loop/")
    assert (found.fit, found.loop) == (found.fit_stack[0], found.loop_stack[0])
    assert found.fit_stack[-1].function.startswith("TensorFlowTrainer.")
    assert found.loop_stack[-1].function.startswith("Trainer.")


def test_the_tape_records_the_forward_pass_and_not_the_update(explained):
    for name in WORKLOADS:
        events = [found.event for found in explained(name).events]
        batch = [e for e in events if (e.epoch, e.phase, e.batch) == (0, "train", 0)]
        calls = [e.call for e in batch]
        enter, leave, ask = (calls.index(f"tape.{what}") for what in ("enter", "exit", "gradient"))
        assert enter < leave < ask
        assert [e.taped for e in batch] == [enter < at < leave for at in range(len(batch))]
        taped = {e.source for e in batch if e.taped}
        assert taped == {"layer", "loss", "metric", "optimizer"}  # the last one scales the loss
        updated = [e.detail for e in batch if e.call.endswith(".update_step")]
        assert updated == list(dict.fromkeys(updated))  # each weight once
        assert batch[ask].detail.endswith(f"-> {len(updated)} gradients")
        assert calls.index(f"{calls[ask + 1].partition('.')[0]}.update_step") > ask
        assert not any(e.taped or e.source == "tape" for e in events if e.phase == "validation")
    lesson = [e.detail for e in (f.event for f in explained("lesson").events)]
    assert {"dense.kernel [128, 64]", "dense_1.bias [3]"} <= set(lesson)


def test_a_forward_pass_outside_the_tape_is_a_difference(explained):
    fit = [found.event for found in explained("lesson").events]
    first = next(at for at, event in enumerate(fit) if event.taped)
    loop = [*fit[:first], dataclasses.replace(fit[first], taped=False), *fit[first + 1 :]]
    _, difference = pair(fit, loop)
    assert difference.number == first + 1


def test_the_tape_is_tensorflows_own_again_afterwards(explained):
    explained("lesson")
    methods = (tf.GradientTape.__enter__, tf.GradientTape.__exit__, tf.GradientTape.gradient)
    assert not any(hasattr(method, "__wrapped__") for method in methods)


OWN_LINES = {
    "vae.call": ("y, divergence = self(x)", "Vae.train_step"),
    "adam.apply": ("self.optimizer.apply_gradients(zip(tape.", "Vae.train_step"),
    "loss.update_state": ("self.total.update_state(loss)", "Vae.train_step"),
    "loss.result": ('return {"loss": self.total.result()}', "Vae.train_step"),
}


def test_a_step_of_the_models_own_is_shown_on_both_sides(explained):
    found = explained(str(VAE))
    assert found.difference is None, terminal.describe(found.difference)
    for call, (text, function) in OWN_LINES.items():
        event = next(e for e in found.events if e.event.call == call)
        assert event.fit == event.loop
        assert (event.fit.path, event.fit.function) == (str(VAE), function)
        assert source(event.fit).startswith(text)
        # what called the step is of each side
        assert event.fit_stack[1].file.startswith("keras/src/")
        assert event.loop_stack[1].file.startswith("manual_loop/")
    validated = [e for e in found.events if e.event.phase == "validation"]
    assert any(e.loop.function == "Vae.test_step" for e in validated)
    assert "vae.py:" in page(terminal.print_events, found, False)


class Doubled(keras.Sequential):
    """Twice the step of Keras."""

    def train_step(self, data):
        super().train_step(data)
        return super().train_step(data)


def test_keras_own_step_inside_one_of_the_models_own():
    def build():
        return Doubled([keras.Input([8]), keras.layers.Dense(1)])

    def compile_arguments():
        return {"optimizer": "sgd", "loss": "mse"}

    fit, loop = streams(build, compile_arguments, arrays(X, VALUE), {"epochs": 1})
    found, difference = pair(fit, loop)
    assert difference is None
    applied = [e for e in found if e.event.call == "sgd.apply"]
    assert len(applied) % 2 == 0
    assert applied[0].fit.function == "TensorFlowTrainer.train_step"
    assert source(applied[0].loop) == "super().train_step(data)"
    assert source(applied[1].loop) == "return super().train_step(data)"


def test_events_know_their_place(explained):
    events = [found.event for found in explained("lesson").events]
    places = list(dict.fromkeys((e.epoch, e.phase, e.batch) for e in events if e.batch is not None))
    train = [("train", 0), ("train", 1), ("train", 2)]
    validation = [("validation", 0), ("validation", 1)]
    assert places == [(epoch, *place) for epoch in (0, 1) for place in train + validation]
    resets = [e for e in events if e.call == "loss.reset_state"]
    assert [(e.epoch, e.phase) for e in resets] == [
        (0, "train"),
        (0, "validation"),
        (1, "train"),
        (1, "validation"),
    ]
    loss = next(e for e in events if e.call == "sparse_categorical_crossentropy.call")
    assert loss.detail.startswith("y [16, 1], y_pred [16, 3] -> ")


DECISIONS = {
    "lesson": {
        'optimizer="adam"': "Adam",
        'loss="sparse_categorical_crossentropy"': "a Loss around that function",
        'metrics="acc"': "SparseCategoricalAccuracy",
        "run_eagerly=False": "tf.function",
        "steps_per_execution=1": "1 step per call",
        'jit_compile="auto"': "no XLA" if not tf.config.list_physical_devices("GPU") else "XLA",
        "auto_scale_loss=True": "no loss scaling",
    },
    "lesson-onehot": {'metrics="acc"': "CategoricalAccuracy"},
    "digits-mlp": {
        "optimizer=SGD(...)": "SGD",
        "loss=SparseCategoricalCrossentropy(...)": "SparseCategoricalCrossentropy",
    },
    "segmentation": {'metrics="acc"': "BinaryAccuracy"},
}


@pytest.mark.parametrize("name", DECISIONS)
def test_what_compile_makes_of_its_arguments(explained, name):
    became = {decision.argument: decision.became for decision in explained(name).compile}
    assert became | DECISIONS[name] == became


def test_the_line_that_decides_and_why(explained):
    decisions = {decision.argument: decision for decision in explained("lesson").compile}
    accuracy = decisions['metrics="acc"']
    assert accuracy.because == ("the labels have shape [batch, 1] and the predictions [batch, 3]")
    assert source(accuracy.fit) == "metric_obj = metrics_module.SparseCategoricalAccuracy("
    loss = decisions['loss="sparse_categorical_crossentropy"']
    assert source(loss.fit) == "loss_obj = losses_module.get(identifier)"
    xla = decisions['jit_compile="auto"']
    assert xla.fit.function == "Trainer._resolve_auto_jit_compile"
    assert source(xla.fit).startswith("return ")
    assert source(xla.loop) == "jit_compile=model.jit_compile,"
    assert source(decisions["auto_scale_loss=True"].loop) == "auto_scale_loss=auto_scale_loss,"
    assert source(decisions["run_eagerly=False"].fit) == "if not self.run_eagerly:"
    assert source(decisions["steps_per_execution=1"].loop).endswith("self._steps() - 1)")


def test_the_line_of_xla_where_keras_resolves_nothing():
    arguments = compile_with(optimizer="sgd", run_eagerly=True)
    fit, loop = (decide(side, plain, arguments, CLASSES) for side in TRAINERS)
    xla = next(d for d in join(fit, loop) if d.argument.startswith("jit_compile="))
    assert (xla.became, xla.fit.function) == ("no XLA", "Trainer.compile")
    assert source(xla.fit) == 'if jit_compile == "auto":'
    assert xla.left == xla.fit
    assert xla.because == "run_eagerly comes first: without a graph there is nothing to compile"


LEFT = {
    'optimizer="adam"': "get",  # keras.optimizers.get
    'loss="sparse_categorical_crossentropy"': "get_loss",
    'metrics="acc"': "get_metric",
    'jit_compile="auto"': "Trainer._resolve_auto_jit_compile",
    "auto_scale_loss=True": "Trainer.compile",
}


def test_what_the_loop_leaves_to_keras_is_said(explained):
    found = explained("lesson")
    left = {d.argument: d.left.function for d in found.compile if d.left is not None}
    assert left == LEFT
    printed = page(terminal.print_decisions, found.compile)
    assert printed.count(", left to ") == len(LEFT)
    assert "not the objects themselves: optimizers" in printed


def test_each_kind_of_event_names_details_as_they_are_titled():
    text = DETAILS.read_text(encoding="utf-8")
    titles = dict(re.findall(r"^(\d+)\. \*\*(.+?)\.\*\*", text, re.MULTILINE | re.DOTALL))
    named = [d for kind in (kinds.EVENTS | kinds.ARGUMENTS).values() for d in kind.details]
    for number, title in named:
        assert title == " ".join(titles[str(number)].replace("`", "").split())


def test_each_event_has_a_sentence_of_its_own_kind(explained):
    for name in WORKLOADS:
        found = explained(name)
        for event in (found.event for found in found.events):
            kind = kinds.of_event(event.source, event.call)
            assert kind in kinds.EVENTS.values()
        assert all(kinds.of_argument(decision.argument).details for decision in found.compile)
    with pytest.raises(KeyError):
        kinds.of_event("tape", "tape.watch")


def test_a_name_is_enough():
    found = explain("lesson")
    assert found.workload == "lesson"
    assert found.difference is None
    shown = found._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert shown.count('"') == 2 * 3  # what the page holds is escaped


def test_decisions_of_objects_functions_and_half_precision():
    def arguments():
        return {
            "optimizer": keras.optimizers.SGD(),
            "loss": "crossentropy",
            "metrics": [keras.metrics.MeanSquaredError(), "mae", keras.losses.mean_absolute_error],
            "weighted_metrics": ["AUC"],
            "jit_compile": True,
        }

    with policy("mixed_float16"):
        halves = [decide(side, plain, arguments, arrays(X, ONE_HOT)) for side in TRAINERS]
    made = join(*halves)
    became = {decision.argument: decision.became for decision in made}
    lines = {decision.argument: source(decision.fit) for decision in made}
    assert lines["jit_compile=True"] == "self._jit_compile = value"
    assert lines['loss="crossentropy"'].startswith("is_binary, is_sparse_categorical = is_binary")
    assert became == became | {
        "optimizer=SGD(...)": "SGD",
        'loss="crossentropy"': "a Loss around categorical_crossentropy",
        "metrics=MeanSquaredError(...)": "MeanSquaredError",
        'metrics="mae"': "MeanAbsoluteError",
        "metrics=mean_absolute_error": "MeanMetricWrapper",
        'weighted_metrics="AUC"': "AUC",
        "auto_scale_loss=True": "a LossScaleOptimizer",
    }


def test_the_page_folds_what_repeats_and_unfolds_it_in_full(explained):
    found = explained("lesson")
    folded = page(terminal.print_events, found, False)
    assert "batch 1, 2: 20 equal events" in folded
    assert "validation batch 1: 11 equal events" in folded
    assert "epoch 1: 98 equal events" in folded
    assert folded.count("│ 2 more at these lines") == 1  # dense.call, dense_1.call
    assert folded.count("    3 more at these lines") == 1  # the other variables
    assert folded.count("dense_1.call") == 0
    full = page(terminal.print_events, found, True)
    assert "equal events" not in full
    assert "more at these lines" not in full
    assert full.count("on_train_batch_end") == 6


def test_a_batch_that_differs_is_not_folded(explained):
    found = explained("lesson")
    events = [p for p in found.events if (p.event.batch, p.event.call) != (2, "adam.apply")]
    rows = [row for row in terminal.rows(events, full=False) if isinstance(row, str)]
    assert "  batch 1: 20 equal events" in rows
    assert "  batch 2" in rows


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits_the_terminal(explained, width):
    found = explained("lesson")
    text = page(terminal.print_events, found, False, width=width)
    text += page(terminal.print_decisions, found.compile, width=width)
    assert max(map(len, text.split("\n"))) <= width
    assert len(text.split("\n")) < 90


def test_streams_that_differ_are_shown_up_to_there(explained):
    fit = [found.event for found in explained("lesson").events]
    loop = fit[:9] + fit[10:]
    pairs, difference = pair(fit, loop)
    assert len(pairs) == 9
    assert terminal.describe(difference) == "\n".join(
        [
            "DIFFERENT from event 10 on:",
            *(
                f"  {side:<4} {event.call} ({event.detail}), {event.line.file}:"
                f"{event.line.number} in {event.line.function}"
                for side, event in (("fit", fit[9]), ("loop", fit[10]))
            ),
        ]
    )
    _, shorter = pair(fit, fit[:-1])
    assert shorter.loop is None
    assert "has no more events" in terminal.describe(shorter)


def test_what_becomes_of_a_step_as_a_graph():
    workload = workloads.get("lesson")
    fit, loop = (graph.graphs(side, workload, workload.load(0)) for side in TRAINERS)
    for found in (fit, loop):
        assert [(trace.step, trace.shape) for trace in found.traces] == [
            ("train_step", "[None, 128]"),  # half a batch comes last
            ("train_step", "[None, 128]"),
            ("test_step", "[16, 128]"),
        ]
        assert "made" in found.traces[1].because
        assert found.captured == {"weights": 4, "optimizer": 2 + 2 * 4, "metrics": 2 * 2}
        assert 0 < found.operations_after < found.operations_before
        assert 0 < len(found.fusions) < found.instructions
        assert any("Relu" in fusion.operations for fusion in found.fusions)
        assert 2 in found.functions.values()
    assert fit.functions["one_step_on_data"] == 2


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the entry point; returns exit status, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["fit-unfolded", "explain", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


def test_the_command_prints_one_page_and_writes_another(run, tmp_path):
    status, printed, errors = run("lesson", "--html", tmp_path / "page.html")
    assert (status, errors) == (0, "")
    assert printed.startswith("lesson: The lesson's example")
    assert 'metrics="acc" → SparseCategoricalAccuracy' in printed
    assert "EQUAL: both implementations make the same 199 calls" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "<html" in (tmp_path / "page.html").read_text()


def test_the_command_fails_where_the_sides_differ(run, monkeypatch):
    monkeypatch.setattr("manual_loop.trainer.Trainer._metrics_or", lambda self, logs: logs)
    status, printed, _ = run("lesson")
    assert status == 1
    assert re.search(r"DIFFERENT from event \d+ on:", printed)
    assert "loss.result" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["leson"], "WORKLOAD: there is no 'leson'; did you mean lesson"),
        (["lesson", "--html", "."], "--html: . is a directory"),
        (["lesson", "--details", "."], "--details: needs --html FILE"),
    ],
)
def test_unusable_input(run, arguments, message):
    status, printed, errors = run(*arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith(f"error: {message}")


def test_a_loop_that_forgets_a_call_is_noticed(monkeypatch):
    monkeypatch.setattr("manual_loop.trainer.Trainer._metrics_or", lambda self, logs: logs)
    fit, loop = streams(plain, compile_with(), CLASSES, {})
    _, difference = pair(fit, loop)
    assert difference.fit.call == "loss.result"
    assert difference.loop.call == "on_test_begin"
