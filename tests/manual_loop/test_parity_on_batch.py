"""`train_on_batch`, `test_on_batch` and `predict_on_batch`: one batch per call, on both sides."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import ONE_HOT, SPARSE, VALUE, X, Y, compile_with, mlp, plain, two_outputs
from overrides import MODELS
from parity import TRAINERS, assert_parity, covers, exact, values

WEIGHTS = np.linspace(0.5, 2, len(X)).astype("float32")


def on_batch(trainer, batches, after_fit=False, **arguments):
    """Train and test on each batch, as list and as dict; and predict it."""
    seen = {}
    if after_fit:  # which leaves a traced step behind
        trainer.fit(**batches[0], batch_size=8, verbose=0)
    for i, batch in enumerate(batches):
        of_test = {k: v for k, v in batch.items() if k != "class_weight"}
        seen[f"train {i}"] = trainer.train_on_batch(**batch)
        seen[f"train {i}, dict"] = trainer.train_on_batch(**batch, return_dict=True)
        seen[f"test {i}"] = trainer.test_on_batch(**of_test)
        seen[f"test {i}, dict"] = trainer.test_on_batch(**of_test, return_dict=True)
        seen[f"metrics {i}"] = [float(m.result()) for m in trainer.model.metrics[:1]]
        seen[f"predict {i}"] = exact(trainer.predict_on_batch(batch["x"]))
    seen["names"] = trainer.metrics_names
    trainer.reset_metrics()
    seen["reset"] = [float(m.result()) for m in trainer.model.metrics[:1]]
    seen["weights"] = values(trainer.model.variables)
    seen["optimizer"] = values(trainer.optimizer.variables)
    return seen


def script(Trainer, build, compile, *args, **arguments):
    trainer = Trainer(build())
    trainer.compile(**compile())
    return on_batch(trainer, *args, **arguments)


def part(rows, **arrays):
    return keras.tree.map_structure(lambda array: array[rows], arrays)


HALVES = slice(0, 8), slice(8, 13)
PLAIN = [part(rows, x=X, y=Y) for rows in HALVES]
WEIGHTED = [part(rows, x=X, y=Y, sample_weight=WEIGHTS) for rows in HALVES]
BY_CLASS = [{**part(rows, x=X, y=ONE_HOT), "class_weight": {0: 0.5, 2: 3.0}} for rows in HALVES]
OTHER_DTYPES = [part(HALVES[0], x=X.astype("float64"), y=Y.astype("int8"))]
TENSORS = [part(HALVES[0], x=tf.constant(X), y=tf.constant(Y))]
BOTH = [part(rows, x=X, y=[Y, VALUE], sample_weight=[WEIGHTS, WEIGHTS]) for rows in HALVES]

SGD = {"optimizer": "sgd"}
ACC = compile_with(**SGD, weighted_metrics=["acc"])
OF_BOTH = compile_with(
    **SGD, loss=[SPARSE, "mse"], metrics=[["acc"], ["mae"]], loss_weights=[1.0, 0.5]
)


@covers("on batch: train_on_batch, test_on_batch, predict_on_batch, reset_metrics, metrics_names")
@pytest.mark.parametrize(
    ("build", "compile", "batches"),
    [
        pytest.param(plain, ACC, WEIGHTED[:1], id="sample_weight"),
        pytest.param(
            plain,
            compile_with(**SGD, loss="categorical_crossentropy"),
            BY_CLASS[:1],
            id="class_weight",
        ),
        pytest.param(two_outputs, OF_BOTH, BOTH[:1], id="two outputs"),
        pytest.param(plain, compile_with(**SGD, metrics=None), OTHER_DTYPES, id="only a loss"),
        pytest.param(plain, compile_with(run_eagerly=True), OTHER_DTYPES + TENSORS, id="eager"),
        pytest.param(plain, compile_with(**SGD, jit_compile=True), PLAIN[:1], id="XLA"),
        pytest.param(plain, compile_with(steps_per_execution=3), TENSORS, id="block"),
    ],
)
def test_one_batch_per_call(build, compile, batches):
    assert_parity(build, compile, batches, script=script)


@covers("on batch: after fit, whose traced step it shares")
def test_after_fit():
    assert_parity(mlp, ACC, WEIGHTED, script=script, after_fit=True)


@covers("on batch: models with steps of their own")
@pytest.mark.parametrize("name", ["VAE", "compute_loss"])
def test_overridden_steps(name):
    build, compile, _ = MODELS[name]
    batches = [part(HALVES[0], x=X)] if name == "VAE" else PLAIN
    if name == "VAE":  # its step takes `x`, but is given `(x, None, None)`
        build = VaeOfTuples
    assert_parity(build, compile, batches, script=script)


class VaeOfTuples(MODELS["VAE"][0]):
    def train_step(self, data):
        return super().train_step(data[0])

    def test_step(self, data):
        return super().test_step(data[0])


def predict_uncompiled(Trainer):
    trainer = Trainer(plain())
    return {"predict": trainer.predict_on_batch(X[:4]), "names": trainer.metrics_names}


@covers("on batch: predict_on_batch before compile")
def test_predict_on_batch_needs_no_compile():
    assert_parity(script=predict_uncompiled)


WRONG = [
    ("train_on_batch", {"x": X, "y": Y, "sample_weight": WEIGHTS, "class_weight": {0: 1.0}}),
    ("train_on_batch", {"x": X, "class_weight": {0: 1.0}}),
    ("train_on_batch", {"x": X, "y": Y, "class_weight": [1.0, 2.0]}),
    ("train_on_batch", {"y": Y}),
    ("train_on_batch", {"x": X}),
    ("train_on_batch", {"x": X, "y": Y[:3]}),
    ("train_on_batch", {"x": X[:, :5], "y": Y}),
    ("train_on_batch", {"x": None, "y": Y}),
    ("train_on_batch", {"x": X, "y": Y, "batch_size": 3}),
    ("test_on_batch", {"x": X, "y": Y, "class_weight": {0: 1.0}}),
    ("test_on_batch", {"x": X, "y": Y[:3]}),
    ("test_on_batch", {"x": X, "y": Y, "sample_weight": WEIGHTS[:3]}),
    ("predict_on_batch", {"x": X, "y": Y}),
    ("predict_on_batch", {"x": None}),
    ("predict_on_batch", {"x": X[:, :5]}),
    ("predict_on_batch", {}),
]


def of_row(row):
    return f"{row[0]}({', '.join(row[1])})" if isinstance(row[0], str) else None


@pytest.fixture(scope="module")
def both():
    trainers = [Trainer(plain()) for Trainer in TRAINERS.values()]
    for trainer in trainers:
        trainer.compile("sgd", SPARSE, run_eagerly=True)
    return trainers


@covers("errors: wrong calls of the *_on_batch methods", promise="the same exception type")
@pytest.mark.parametrize("row", WRONG, ids=of_row)
def test_wrong_calls(both, row):
    method, arguments = row
    kinds = []
    for trainer in both:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            getattr(trainer, method)(**arguments)
        kinds.append(caught.type)
    assert kinds[0] is kinds[1], caught.value


@covers("errors: *_on_batch before compile", promise="ValueError that names it")
@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_before_compile(method):
    for Trainer in TRAINERS.values():
        with pytest.raises(ValueError, match="compile"):
            getattr(Trainer(plain()), method)(X, Y)
