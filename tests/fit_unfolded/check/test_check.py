"""`check` on loops in several styles: right ones, and each known mistake by name and line."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from fit_unfolded.check import assert_trains_like_fit, check
from fit_unfolded.check.mistakes import of_logs, of_test_step, of_train_step
from fit_unfolded.check.observe import Observer
from fit_unfolded.check.rows import problem_of
from fit_unfolded.common.errors import InputError

MEAN = "mean.update_state(loss, sample_weight=len(xb))"
RESET = "        mean.reset_state()\n        acc.reset_state()\n        for xb, yb in batches"
NOT_IN_A_GRAPH = ("    @tf.function\n", "")


def found(report):
    """What is in check.json, in brief."""
    figures = json.loads(json.dumps(report.figures()))
    return figures["verdict"], figures["stage"], figures["causes"]


# Right loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["script", "class"])
def test_a_right_loop_is_equal(write, style):
    report = check(write(style))
    assert found(report) == ("equal", None, [])
    assert report.compared == report.steps == 4
    assert report.epochs == 2


@pytest.mark.parametrize(
    ("style", "stages"), [("by_hand", {"loss", "gradients"}), ("closure", {"metrics"})]
)
def test_the_order_of_sums_is_rounding(write, style, stages):
    """A hand-made cross entropy; a hand-made mean of Python floats, which are float64."""
    report = check(write(style))
    assert found(report) == ("rounding", None, [])
    assert {stage.name for stage in report.stages if stage.ulp} <= stages


def test_other_means_of_clipping_are_no_mistake(write):
    path = write(
        "class",
        (
            '"optimizer": keras.optimizers.SGD(0.05, 0.9)',
            '"optimizer": keras.optimizers.SGD(0.05, 0.9, global_clipnorm=0.5)',
        ),
        (
            "self.optimizer.apply(",
            "gradients, _ = tf.clip_by_global_norm(gradients, 0.5)\n        self.optimizer.apply(",
        ),
    )
    assert check(path).passed


def test_rows_in_their_order_are_right_with_shuffle_false(write):
    in_order = ("rng.permutation(len(x))", "np.arange(len(x))")
    path = write("class", in_order, ('"batch_size": 20}', '"batch_size": 20, "shuffle": False}'))
    assert found(check(path)) == ("equal", None, [])
    assert found(check(write("class", in_order))) == ("different", "data", ["not-shuffled"])


# Broken loops ---------------------------------------------------------------------------------

# Style, replacement, the stage, the causes, and what is in the line that is named.
BROKEN = [
    (
        "script",
        ("model(xb, training=True)", "model(xb)"),
        "forward",
        ["batchnorm-without-training"],
        "model(xb)",
    ),
    (
        "class",
        ("tf.reduce_mean(terms) + sum(self.model.losses)", "tf.reduce_mean(terms)"),
        "loss",
        ["regularizers-left-out"],
        "sparse_categorical_crossentropy(",
    ),
    (
        "class",
        ("sum(self.model.losses)", "2 * sum(self.model.losses)"),
        "loss",
        ["regularizers-twice"],
        "sparse_categorical_crossentropy(",
    ),
    (
        "by_hand",
        ("-tf.reduce_mean(", "-tf.reduce_sum("),
        "loss",
        ["sum-for-mean"],
        "tape.gradient(",
    ),
    (
        "class",
        ("tf.reduce_mean(terms)", "tf.reduce_sum(terms) / 20"),
        "loss",
        ["divided-by-batch-size"],
        "sparse_categorical_crossentropy(",
    ),
    (
        "class",
        ("self.model.trainable_weights", "self.model.trainable_weights[2:]"),
        "gradients",
        ["other-weights"],
        "tape.gradient(",
    ),
    (
        "script",
        ("opt.apply", "grads = [tf.clip_by_norm(g, 0.1) for g in grads]\n            opt.apply"),
        "gradients",
        ["clipped-per-variable"],
        "opt.apply_gradients(",
    ),
    (
        "class",
        ("Learner(model, 0.05)", "Learner(model, 0.001)"),
        "update",
        ["other-optimizer-arguments"],
        "self.optimizer.apply(",
    ),
    (
        "script",
        ("opt = keras.optimizers.SGD(0.05, 0.9)", "opt = keras.optimizers.RMSprop(0.01)"),
        "update",
        ["other-optimizer"],
        "opt.apply_gradients(",
    ),
    (
        "class",
        (
            "            order = rng",
            "            self.optimizer = keras.optimizers.SGD(0.05, 0.9)\n            order = rng",
        ),
        "update",
        ["optimizer-made-anew"],
        "self.optimizer.apply(",
    ),
    (
        "script",
        (".batch(batch_size)\n    tests", ".batch(batch_size, drop_remainder=True)\n    tests"),
        "data",
        ["partial-batch-dropped"],
        "model(xb, training=True)",
    ),
    (
        "class",
        ("y[rows]", "y[order[::-1]][start : start + batch_size]"),
        "data",
        ["x-shuffled-without-y"],
        "sparse_categorical_crossentropy(",
    ),
    (
        "script",
        (
            "from_tensor_slices((x, y))",
            "from_tensor_slices((np.concatenate([x, validation_data[0]])"
            ", np.concatenate([y, validation_data[1]])))",
        ),
        "data",
        ["validation-rows-leak"],
        "model(xb, training=True)",
    ),
    (
        "script",
        (".shuffle(len(x))", ".shuffle(3)"),
        "data",
        ["small-shuffle-buffer"],
        "model(xb, training=True)",
    ),
    (
        "script",
        (MEAN, "mean.update_state(loss)"),
        "metrics",
        ["mean-of-batches"],
        "mean.update_state(loss)",
    ),
    (
        "script",
        (RESET, "        for xb, yb in batches"),
        "metrics",
        ["metrics-not-reset"],
        MEAN,
    ),
    (
        "script",
        (
            "            acc.update_state(yb, out)\n        history",
            "            acc.update_state(yb, model(xb))\n        history",
        ),
        "metrics",
        ["metrics-after-update"],
        "acc.update_state(yb, model(xb))",
    ),
    (
        "script",
        ("model(xb, training=False)", "model(xb, training=True)"),
        "validation",
        ["evaluating-in-training-mode"],
        "model(xb, training=True)",
    ),
    (
        "script",
        ("loss_fn(yb, out) + tf.add_n(model.losses), s", "loss_fn(yb, out), s"),
        "validation",
        ["regularizers-left-out"],
        "mean.update_state(loss_fn(yb, out), s",
    ),
    ("class", ("range(epochs)", "range(epochs + 1)"), "epoch", ["other-epochs"], None),
]


@pytest.mark.parametrize(
    ("style", "replacement", "stage", "names", "in_line"),
    BROKEN,
    ids=[f"{style}-{names[0]}" for style, _, _, names, _ in BROKEN],
)
def test_a_mistake_is_named_with_its_line(write, style, replacement, stage, names, in_line):
    path = write(style, replacement)
    report = check(path)
    assert found(report) == ("different", stage, names)
    if in_line is not None:
        assert in_line in path.read_text().splitlines()[report.stage.line - 1]


def test_a_departure_that_no_known_mistake_makes_has_no_cause(write):
    path = write("class", ("tf.reduce_mean(terms)", "tf.reduce_mean(terms ** 1.1)"))
    assert found(check(path)) == ("different", "loss", [])


def test_a_value_frozen_by_tf_function_is_undecided(write):
    """Eagerly, the closure reads the scale anew at each step; its graph keeps the first."""
    path = write(
        "closure",
        ("    @tf.function", "    scale = [0.0]\n\n    @tf.function"),
        (
            "        return total",
            "        for w in weights:\n"
            "            w.assign_sub(scale[0] * tf.ones_like(w))\n        return total",
        ),
        ("            for extra", "            for extra"),
    )
    frozen = (
        path.read_text()
        .replace("scale = [0.0]", "scale = [0.0 if tf.executing_eagerly() else 1.0]")
        .replace("scale[0]", "float(not tf.executing_eagerly())")
    )
    path.write_text(frozen)
    report = check(path)
    assert found(report) == ("undecided", None, [])
    assert "tf.functions" in report.notes[0]


def test_all_mistakes_point_at_lines_that_are_there():
    weights = {0: 1.0, 1: 3.0}
    x, y = np.zeros([4, 2], "float32"), np.array([0, 1, 1, 1])
    problem = problem_of({"x": x, "y": y, "class_weight": weights}, {})
    for mistake in (*of_train_step(problem), *of_logs(), *of_test_step()):
        assert mistake.keras.find().text
        if mistake.edit is not None:
            assert mistake.edit.wrong_function()


# Other models and data ------------------------------------------------------------------------


def test_sparse_gradients_are_given_to_the_optimizer_as_such(write):
    embedding = write(
        "script",
        ("keras.Input([4])", 'keras.Input([4], dtype="int32")'),
        (
            'keras.layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L2(0.01)),',
            "keras.layers.Embedding(9, 3), keras.layers.Flatten(),",
        ),
        (" + tf.add_n(model.losses)", ""),
        ('.astype("float32")', '.astype("int32") % 9'),
    )
    assert found(check(embedding)) == ("equal", None, [])


def test_weights_that_are_frozen_stay_so(write):
    frozen = (
        "def build():\n    return keras",
        "def build():\n    model = made()\n    model.layers[0].trainable = False\n"
        "    return model\n\n\ndef made():\n    return keras",
    )
    assert found(check(write("class", frozen))) == ("equal", None, [])
    trained = ("self.model.trainable_weights", "self.model.weights[:4]")
    report = check(write("class", frozen, trained))
    assert found(report) == ("different", "gradients", ["frozen-layers-trained"])


def test_a_long_loop_is_compared_as_far_as_it_was_observed(write, monkeypatch):
    monkeypatch.setattr("fit_unfolded.check.run.OBSERVED_SECONDS", 0.5)
    longer = ('"epochs": 2', '"epochs": 30')
    report = check(write("script", longer))
    assert found(report) == ("equal", None, [])
    assert 0 < report.compared < 30 * 2
    assert any("was observed for its first" in note for note in report.notes)


# As a test of one's own -----------------------------------------------------------------------


def test_assert_trains_like_fit(write):
    assert_trains_like_fit(write("class"))
    with pytest.raises(AssertionError, match=r"regularizers-left-out(.|\n)*tf.add_n"):
        assert_trains_like_fit(write("class", (" + sum(self.model.losses)", "")))


# Bad files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        (
            ("self.step(x[rows], y[rows])", "raise KeyError('rows')"),
            r"train\(\) raises KeyError: 'rows'\n.*line \d+, in train(.|\n)*in run",
        ),
        (("Learner(model, 0.05)", "Learner(build(), 0.05)"), "changes no weight of the model"),
        (("def train(model, x, y", "def train(model, x, labels, y"), "parameter 'labels'"),
        (("def train(", "def training("), "there is no train"),
        (
            (
                ".run(x, y, epochs, batch_size)",
                '.run(x, y, epochs, batch_size)\n    return {"loss": [1.0]}',
            ),
            "returns 1 values of 'loss' for 2 epochs",
        ),
        (
            (
                ".run(x, y, epochs, batch_size)",
                '.run(x, y, epochs, batch_size)\n    return {"losses": [1.0, 1.0]}',
            ),
            "history with 'losses', which fit does not log",
        ),
    ],
)
def test_a_file_that_cannot_be_used(write, replacement, words):
    with pytest.raises(InputError, match=words):
        check(write("class", replacement))


def test_a_loop_that_makes_nan_is_told_where(write):
    path = write("class", ("tf.reduce_mean(terms)", "tf.reduce_mean(terms * np.nan)"))
    report = check(path)
    assert found(report) == ("different", "loss", [])
    assert any("NaN" in note for note in report.notes)


# Nothing stays behind -------------------------------------------------------------------------


def patched():
    return (
        tf.GradientTape.gradient,
        tf.GradientTape.__enter__,
        keras.Layer.__call__,
        keras.optimizers.Optimizer.apply,
        keras.losses.Loss.__call__,
        keras.losses.mean_squared_error,
        keras.metrics.Mean.update_state,
    )


def test_every_hook_is_undone_also_after_an_error():
    before = patched()
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])

    def fail():
        with Observer(model, __file__):
            assert not any(a is b for a, b in zip(before, patched(), strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(a is b for a, b in zip(before, patched(), strict=True))
    assert not tf.config.functions_run_eagerly()


def test_the_observer_sees_a_step_and_its_line():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.5)
    x = np.ones([3, 2], "float32")
    with Observer(model, __file__) as seen:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    (step,) = seen.steps
    (block,), (update,) = step.blocks, step.updates
    assert block.calls[0].training is True
    np.testing.assert_array_equal(block.calls[0].x[0], x)
    np.testing.assert_array_equal(update.values[0], [[3.0], [3.0]])
    np.testing.assert_array_equal(update.after[1], update.before[1] - 1.5)
    source = Path(__file__).read_text().splitlines()
    assert "model(x, training=True)" in source[block.calls[0].line - 1]
    assert "apply_gradients" in source[update.line - 1]
