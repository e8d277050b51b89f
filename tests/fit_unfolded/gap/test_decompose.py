"""The parts add up, the replays equal fit, and a cause that acts alone is the only part."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from fit_unfolded.gap import Snapshots, decompose
from fit_unfolded.gap.decompose import DETAILS, NotFinite
from fit_unfolded.gap.page import verdict
from fit_unfolded.gap.snapshots import state_of
from fit_unfolded.workloads import UserData

RNG = np.random.default_rng(0)
X = RNG.normal(size=[22, 4]).astype("float32")
Y = RNG.integers(0, 3, 22)
WEIGHTS = RNG.random(22).astype("float32")
SEED = 3
layers = keras.layers


def model_of(*hidden):
    return keras.Sequential([keras.Input([4]), *hidden, layers.Dense(3, "softmax")])


def gap_of(build, rate=0.1, epoch=None, make=lambda: X, y=Y, extra=None, fit=None, **compile):
    """Trains by fit and takes the last epoch apart.

    Args:
        make: gives x, a new dataset each time.
        rate: 0 for weights that do not move.
    """
    how = {"run_eagerly": True, "loss": "sparse_categorical_crossentropy"} | compile
    fit = {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0} | (fit or {})

    def data():
        keras.utils.set_random_seed(SEED)
        return UserData(make(), y, (None, None), extra or {}, "")

    given, snapshots = data(), Snapshots(epoch)
    keras.utils.set_random_seed(SEED)
    model = build()
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), **how)
    keras.utils.set_random_seed(SEED)
    callbacks = [*fit.pop("callbacks", []), snapshots]
    history = model.fit(given.x, given.y, callbacks=callbacks, **given.extra, **fit).history
    gap = decompose(model, snapshots, data(), fit, SEED, left=state_of(model))
    assert gap.loss == history["loss"][-1]
    if gap.val_loss is not None:
        assert gap.val_loss == history["val_loss"][-1]
    check(gap)
    return gap


def check(gap):
    """What holds for every gap."""
    assert gap.replay_ulp == 0
    assert not gap.validation_ulp
    total = math.fsum(part.change for part in gap.parts)
    assert total == pytest.approx(gap.whole, abs=1e-15)
    assert gap.parts[-1].value == gap.last
    assert all(part.title in gap._repr_html_() for part in gap.parts)


def changes(gap):
    """The parts that are not exactly 0."""
    return {part.name: part.change for part in gap.parts if part.change}


SAME = {"validation_data": (X, Y)}  # so that the rows are no part


# One cause alone ------------------------------------------------------------------------------

ALONE = {
    "training_mode": ({}, [layers.Dropout, 0.5], {"training_mode"}),
    "batch_statistics": ({}, [layers.BatchNormalization], {"batch_statistics"}),
    "class_weight": ({"extra": SAME | {"class_weight": {0: 3.0}}}, [], {"weights"}),
    "sample_weight": ({"extra": SAME | {"sample_weight": WEIGHTS}}, [], {"weights"}),
    "rows": ({"extra": {"validation_data": (X[:9], Y[:9])}}, [], {"rows"}),
    "validation_weight": (
        {"extra": {"validation_data": (X, Y, WEIGHTS)}},
        [],
        {"validation_weights"},
    ),
    "both_weighted": (
        {"extra": {"validation_data": (X, Y, WEIGHTS), "sample_weight": WEIGHTS}},
        [],
        set(),
    ),
}


@pytest.mark.parametrize("cause", ALONE)
def test_a_cause_that_acts_alone_is_the_only_part(cause):
    how, layer, expected = ALONE[cause]

    def build():
        return model_of(*([layer[0](*layer[1:])] if layer else []))

    gap = gap_of(build, **{"rate": 0.0, "extra": SAME} | how)
    assert set(changes(gap)) == expected
    if expected:
        (part,) = (part for part in gap.parts if part.name in expected)
        assert gap.share(part) == 1
        assert f"of it because {part.because}" in verdict(gap)
    else:
        assert verdict(gap) == f"val_loss equals loss, {gap.loss:.4g}."


def test_a_frozen_batchnorm_is_no_part():
    """Called with `training=False` by hand, it has moving averages in training too."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.dense = layers.BatchNormalization(), layers.Dense(3, "softmax")
            self(X[:2])

        def call(self, x, training=None):
            return self.dense(self.norm(x, training=False))

    gap = gap_of(Model, extra=SAME)
    assert set(changes(gap)) == {"moving_weights"}


def test_a_sum_as_reduction_depends_on_the_batches():
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    how = {"shuffle": True, "steps_per_epoch": 1, "epochs": 3}  # epoch 3 has the third batch
    gap = gap_of(model_of, rate=0.0, loss=loss, extra=SAME, fit=how)
    assert set(changes(gap)) == {"batches"}


# All together ---------------------------------------------------------------------------------


def everything():
    hidden = layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.1))
    return model_of(hidden, layers.BatchNormalization(), layers.Dropout(0.3))


def test_all_parts_of_a_graph():
    how = {"shuffle": True, "epochs": 3, "validation_split": 0.4}
    extra = {"class_weight": {0: 2.0}}
    gap = gap_of(everything, epoch=2, extra=extra, fit=how, run_eagerly=False)
    assert gap.epoch == 2
    assert set(changes(gap)) - {"batches"} == {
        "moving_weights",
        "training_mode",
        "batch_statistics",
        "regularizers",
        "weights",
        "rows",
    }
    assert gap.after_fit is None
    regularizers = next(part for part in gap.parts if part.name == "regularizers")
    before, after = gap.penalties
    assert regularizers.change == pytest.approx(after - before)
    assert gap.plain_mean != gap.loss  # 13 rows make batches of 8 and 5


def test_a_dataset_of_unknown_length():
    """Shuffled anew in each epoch. fit runs a step without a batch, whose rows it counts."""

    def make():
        pairs = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(22)
        return pairs.batch(8, drop_remainder=True).filter(lambda *_: True)

    how = {"epochs": 2, "batch_size": None}
    with pytest.warns(UserWarning, match="ran out of data"):
        gap = gap_of(model_of, 0.1, None, make, None, SAME, how, run_eagerly=False)
    assert changes(gap).keys() >= {"moving_weights", "rows"}


def test_the_chain_is_that_of_keras():
    """`evaluate` is Keras's own, and without a validation the chain ends there."""
    models = []
    gap = gap_of(lambda: models.append(everything()) or models[0], fit={"shuffle": True})
    assert gap.val_loss is gap.validation_ulp is None
    assert [part.name for part in gap.parts][-1] == "batches"
    expected = models[0].evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)["loss"]
    assert gap.evaluate == expected
    assert verdict(gap).startswith("evaluate on the training rows is ")


def test_weights_that_a_callback_replaces_after_the_validation():
    stopping = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    how = {"epochs": 9, "callbacks": [stopping]}
    gap = gap_of(model_of, rate=50.0, extra=SAME, fit=how)
    assert gap.epoch < 9
    assert gap.after_fit < gap.val_loss


# What cannot be taken apart -------------------------------------------------------------------


def test_random_numbers_of_another_origin_are_noticed(monkeypatch):
    class Noise(layers.Layer):
        def call(self, x, training=None):
            return x + tf.random.normal(tf.shape(x)) if training else x

    monkeypatch.setitem(globals(), "check", lambda gap: None)
    gap = gap_of(lambda: model_of(Noise()), extra=SAME, fit={"epochs": 2})
    assert gap.replay_ulp > 0


def test_a_loss_that_is_not_finite():
    with pytest.raises(NotFinite, match="a loss is nan"):
        gap_of(model_of, make=lambda: X * np.nan)


def test_the_details_that_are_named():
    page = (Path(__file__).parents[3] / "docs" / "details.md").read_text()
    words = {
        "moving_weights": "before the update",
        "training_mode": "training=False",
        "batch_statistics": "training=False",
        "regularizers": "regularizers",
        "weights": "class weights apply to training only",
        "batches": "Masked steps",
        "rows": "validation split is the last rows",
        "validation_weights": "splits sample weights",
    }
    assert set(words) == set(DETAILS)
    for name, number in DETAILS.items():
        title = page.partition(f"\n{number}. **")[2].partition("**")[0]
        assert words[name] in " ".join(title.split()), name
