"""`check` on ends by callbacks, several mistakes, frozen values, costs, odd data; its page."""

import re

import keras
import pytest
import tensorflow as tf

from fit_unfolded.check import check, html
from fit_unfolded.check.costs import growth
from fit_unfolded.check.meter import Meter, Sample
from fit_unfolded.common.errors import InputError


def found(report):
    departures = [(d.stage.name, [c.name for c in d.causes]) for d in report.departures]
    return report.verdict, departures


# The end by callbacks -------------------------------------------------------------------------

# `min_delta` lets no epoch count as better than the first, so that fit stops after the second.
EARLY = (
    '"epochs": 2, "batch_size": 20}',
    '"epochs": 4, "batch_size": 20, "callbacks": [keras.callbacks.EarlyStopping('
    '"val_loss", min_delta=10.0, restore_best_weights=True)]}',
)
LAST_LINE = '        history["val_accuracy"].append(acc.result().numpy())\n'
STOPS = """        if epoch == 0:
            best = model.get_weights()
        else:
            model.set_weights(best)
            break
"""


def test_early_stopping_by_hand_is_that_of_the_callback(write):
    right = (LAST_LINE, LAST_LINE + STOPS)
    assert found(check(write("script", EARLY, right))) == ("equal", [])
    lost = (LAST_LINE, LAST_LINE + STOPS.replace("model.set_weights(best)", "pass"))
    report = check(write("script", EARLY, lost))
    assert found(report) == ("different", [("epoch", ["best-weights-not-restored"])])
    assert "the weights of epoch 1" in report.stage.says


def test_a_loop_that_does_not_stop_is_told_where_fit_does(write):
    report = check(write("script", EARLY))
    assert found(report) == ("different", [("epoch", ["other-epochs"])])
    assert report.stage.says == "4 epochs; fit: 2, where a callback stops it"


HALVES = (
    '"epochs": 2, "batch_size": 20}',
    '"epochs": 2, "batch_size": 20, "callbacks": '
    "[keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.05 / (1 + epoch))]}",
)


def test_learning_rates_of_callbacks_are_followed(write):
    loop = "for _ in range(epochs):\n            order"
    set_rate = loop.replace("_ in", "epoch in").replace(
        "            order",
        "            self.optimizer.learning_rate = 0.05 / (1 + epoch)\n            order",
    )
    assert found(check(write("class", HALVES, (loop, set_rate)))) == ("equal", [])
    report = check(write("class", HALVES))
    assert found(report) == ("different", [("update", ["other-optimizer-arguments"])])
    assert report.stage.step == 3  # of the second epoch


def test_a_schedule_that_is_asked_for_the_epoch(write):
    schedule = "keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)"
    report = check(
        write(
            "class",
            (
                '"optimizer": keras.optimizers.SGD(0.05',
                f'"optimizer": keras.optimizers.SGD({schedule}',
            ),
            (
                "for _ in range(epochs):\n",
                "for epoch in range(epochs):\n"
                f"            self.optimizer.learning_rate = {schedule}(epoch)\n",
            ),
        )
    )
    assert found(report) == ("different", [("update", ["schedule-by-epoch"])])


# Several mistakes -----------------------------------------------------------------------------


def test_mistakes_behind_each_other_are_all_named(write):
    report = check(
        write(
            "script",
            ("model(xb, training=True)", "model(xb)"),
            ("loss = loss_fn(yb, out) + tf.add_n(model.losses)", "loss = loss_fn(yb, out)"),
            ("mean.update_state(loss, sample_weight=len(xb))", "mean.update_state(loss)"),
        )
    )
    assert found(report) == (
        "different",
        [
            ("forward", ["batchnorm-without-training"]),
            ("loss", ["regularizers-left-out"]),
            ("metrics", ["mean-of-batches"]),
        ],
    )


# Values frozen at tracing ---------------------------------------------------------------------


def test_a_value_that_is_frozen_at_tracing_is_reproduced(write):
    """Run eagerly, the loop is right; its graph goes on with the first learning rate."""
    path = write(
        "closure",
        HALVES,
        ("def make_step(", "rate = 0.05\n\n\ndef make_step("),
        (
            "        optimizer.apply",
            "        optimizer.learning_rate.assign(rate)\n        optimizer.apply",
        ),
        ("    losses = []", "    global rate\n    losses = []"),
        ("        order = ", "        rate = 0.05 / (1 + epoch)\n        order = "),
    )
    report = check(path)
    assert found(report) == ("different", [("update", ["value-frozen-at-tracing"])])
    assert "rate is 0.025 later, 0.05 in the graph" in report.causes[0].says


# Costs ----------------------------------------------------------------------------------------


def test_what_a_loop_wastes_is_measured(write):
    path = write(
        "script",
        ("    for epoch in range(epochs):", "    kept = []\n    for epoch in range(epochs):"),
        (
            "            mean.update_state(loss,",
            "            kept.append(loss)\n            print(float(loss))\n"
            "            [model.predict_on_batch(xb) for _ in range(2)]\n"
            "            mean.update_state(loss,",
        ),
    )
    report = check(path)
    lines = path.read_text().splitlines()
    at = {cost.name: lines[cost.line - 1].strip() for cost in report.costs}
    assert at == {
        "no-graph": "with tf.GradientTape() as tape:",
        "numbers-read-each-batch": "print(float(loss))",
        "tensors-kept": "kept.append(loss)",
        "predict-in-a-loop": "[model.predict_on_batch(xb) for _ in range(2)]",
    }
    assert report.measured["batches_without_graph"] == 4
    assert report.measured["grows_by_batch"]["tensors"] >= 1  # predict_on_batch keeps more
    assert any("held by kept (" in cost.says for cost in report.costs)
    assert report.verdict == "equal"


def test_graphs_are_counted_and_explained(write):
    path = write(
        "closure",
        ("def step(inputs, labels):", "def step(inputs, labels, number):"),
        ("tf.constant(y[part])))", "tf.constant(y[part]), int(part[0]) + 50 * len(losses)))"),
    )
    report = check(path)
    assert [cost.name for cost in report.costs] == [
        "retraced-for-numbers",
        "numbers-read-each-batch",
    ]
    assert report.measured["graphs"]["step"]["graphs"] == 4
    assert report.costs[0].says.startswith("4 graphs of step in 4 calls: an argument was ")


def test_a_loop_without_waste_has_no_costs(write):
    path = write(
        "closure",
        ("@tf.function", "@tf.function(reduce_retracing=True)"),
        (
            "total += float(step(tf.constant(x[part]), tf.constant(y[part]))) * len(part)",
            "step(tf.constant(x[part]), tf.constant(y[part]))",
        ),
        ('    return {"loss": losses}', ""),
    )
    report = check(path)
    assert report.costs == []
    assert report.measured["graphs"]["step"]["calls"] == 4


def test_a_tape_counts_the_steps_in_one_graph():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    @tf.function
    def loop(x):
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x))
            weights = model.trainable_weights
            optimizer.apply(tape.gradient(loss, weights), weights)

    before = type(loop).__call__
    with Meter(model, __file__, 3) as meter:
        loop(tf.ones([2, 2]))
    (traced,) = meter.functions.values()
    assert (traced.tapes, traced.traces, traced.calls) == (3, [0], 1)
    assert type(loop).__call__ is before


def test_growth_is_what_grows_between_all_samples():
    grows = [Sample(n, 10 + 2 * n, 100 * n, 5, 7) for n in (2, 5, 9)]
    assert growth(grows) == {"tensors": 2.0, "bytes": 100.0}
    assert growth([*grows, Sample(12, 28, 0, 5, 7)]) == {}


# Data -----------------------------------------------------------------------------------------

DATASET = (
    '    return {"x": x[:33], "y": y[:33], "validation_data": (x[33:], y[33:])}',
    """
    def batches():
        for at in range(0, 33, 20):
            yield x[at : at + 20], y[at : at + 20]

    of = tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)
    return {"x": tf.data.Dataset.from_generator(batches, output_signature=of)}""",
)
OVER_DATASET = """

def train(model, x, epochs):
    optimizer = keras.optimizers.SGD(0.05, 0.9)
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    for _ in range(epochs):
        for xb, yb in x:
            with tf.GradientTape() as tape:
                loss = loss_fn(yb, model(xb, training=True)) + sum(model.losses)
            weights = model.trainable_weights
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
"""


def test_fits_additional_step_is_not_held_against_the_loop(write):
    batch_size = ('"batch_size": 20}', '"shuffle": False}')
    report = check(write(OVER_DATASET, DATASET, batch_size))
    assert found(report) == ("equal", [])
    assert any("its optimizer.iterations is 6, after 4 batches" in note for note in report.notes)


def test_fits_one_permutation_is_named(write):
    assert any("the same one in all epochs" in note for note in check(write("class")).notes)


RAGGED = """
import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "sgd", "loss": "mse"}
FIT = {"epochs": 1}


def build():
    inputs = keras.Input([None], dtype="int32")
    features = keras.layers.Embedding(5, 2)(inputs)
    features = keras.layers.GlobalAveragePooling1D()(features)
    return keras.Model(inputs, keras.layers.Dense(1)(features))


def data():
    batches = [(np.ones([4, n], "int32"), np.ones([4, 1], "float32")) for n in (3, 5)]
    of = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 1])
    return {"x": tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=of)}


def train(model, x):
    optimizer = keras.optimizers.SGD()
    for xb, yb in x:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(xb, training=True) - yb))
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
"""

OUTPUTS = """
import keras
import numpy as np
import tensorflow as tf

COMPILE = {
    "optimizer": "sgd",
    "loss": {"a": "mse", "b": "mae"},
    "loss_weights": {"a": 1.0, "b": 3.0},
}
FIT = {"epochs": 1, "batch_size": 4}


def build():
    inputs = keras.Input([3])
    outputs = {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(2)(inputs)}
    return keras.Model(inputs, outputs)


def data():
    rng = np.random.default_rng(0)
    x, a, b = (rng.normal(size=[12, n]).astype("float32") for n in (3, 1, 2))
    return {"x": x, "y": {"a": a, "b": b}}


def train(model, x, y, batch_size):
    keras.utils.set_random_seed(77)
    optimizer = keras.optimizers.SGD()
    order = np.random.permutation(len(x))
    for at in range(0, len(x), batch_size):
        rows = order[at : at + batch_size]
        with tf.GradientTape() as tape:
            made = model(x[rows], training=True)
            loss = tf.reduce_mean(tf.square(made["a"] - y["a"][rows]))
            loss += 3.0 * tf.reduce_mean(tf.abs(made["b"] - y["b"][rows]))
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
"""


@pytest.mark.parametrize("text", [RAGGED, OUTPUTS], ids=["shapes", "outputs"])
def test_batches_of_other_shapes_and_several_outputs(tmp_path, text):
    """The second loop seeds itself, which a comparison from the same state does not mind."""
    path = tmp_path / "loop.py"
    path.write_text(text)
    assert check(path).passed
    if text == OUTPUTS:
        path.write_text(text.replace("3.0 * tf", "tf"))
        assert found(check(path)) == ("different", [("loss", ["loss-weights-ignored"])])


def test_data_that_differ_between_two_calls_are_refused(write):
    path = write("class", ("np.random.default_rng(0)", "np.random.default_rng()"))
    with pytest.raises(InputError, match=r"data\(\) returns another x at its second call"):
        check(path)


# The page -------------------------------------------------------------------------------------


def test_the_page_has_the_lines_of_all_three(write, tmp_path):
    path = write("class", (" + sum(self.model.losses)", ""))
    report = check(path)
    html.write(report, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for side in ("own", "fit", "loop"):
        assert text.count(f'<section class="column source" data-side="{side}"') == 1
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'data-(?:own|fit|loop)(?:-stack)?="([^"]+)"', text)
    assert targets
    assert set(targets) <= set(ids)
    first = text[text.index('id="e1"') :]  # the cause
    assert "regularizers-left-out" in first
    assert re.search(r'data-own="own-0-(\d+)"', first).group(1) == str(report.stage.line)
    assert "for loss in self.losses" in re.sub("<[^>]+>", "", text)
    assert "different: the loop departs from fit in the stage loss" in text
    steps = text[text.index("<h2>Epoch 1</h2>") :]
    assert 'aria-expanded="true">step 2</button> <span>· 5 events, as in step 1</span>' in steps

    cell = report._repr_html_()
    assert cell.startswith("<pre")
    assert "Cause: " in cell
    assert cell.endswith("</iframe></details>")
    assert "color: #" not in cell[: cell.index("<details>")]  # legible on any background
