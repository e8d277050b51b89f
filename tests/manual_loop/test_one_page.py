"""The loop on one page is fit, bit for bit: on its own data and on data that can be learned."""

import ast
import contextlib
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from parity import assert_same, covers

import manual_loop

PAGE = Path(manual_loop.__file__).with_name("one_page.py")
ONES = 'x = np.ones([100, 128], "float32")\ny = np.ones([100, 1], "float32")\n'
LEARNABLE = """x = np.random.default_rng(1).normal(size=[100, 128]).astype("float32")
y = np.argmax(x[:, :3], axis=1)[:, None].astype("float32")
"""


def fit(data, epochs):
    """The lesson's own lines."""
    keras.utils.set_random_seed(0)
    names = {"np": np}
    exec(data, names)
    layers = [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])
    arguments = {"epochs": epochs, "validation_split": 0.3, "batch_size": 16, "verbose": 0}
    history = model.fit(names["x"], names["y"], **arguments).history
    return {"history": dict(sorted(history.items())), "weights": model.get_weights()}


@covers("manual_loop/one_page.py")
@pytest.mark.parametrize(
    "data", [ONES, LEARNABLE], ids=["its own data", "data that can be learned"]
)
def test_the_page_is_fit(data):
    source = PAGE.read_text()
    assert source.count(ONES) == 1
    assert source.count("EPOCHS, BATCH_SIZE, VALIDATION_SPLIT = 100,") == 1
    source = source.replace(ONES, data).replace("SPLIT = 100,", "SPLIT = 12,")
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, PAGE, "exec"), names)
    seen = {
        "history": dict(sorted(names["history"].items())),
        "weights": names["model"].get_weights(),
    }
    expected = fit(data, epochs=12)
    assert_same(expected, seen)
    if data == LEARNABLE:
        losses = expected["history"]["loss"]
        assert losses[-1] < losses[0] * 0.5


def test_the_page_imports_nothing_of_this_project():
    modules = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(PAGE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert sorted(modules) == ["keras", "numpy", "os", "tensorflow"]
    assert len(PAGE.read_text().splitlines()) <= 95
