"""A user's file in place of a workload: what it gives, and each mistake that it can have."""

import inspect
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from fit_unfolded import workloads
from fit_unfolded.common.errors import InputError
from fit_unfolded.comparison.compare import TRAINERS
from fit_unfolded.workloads import user_file

FILE = '''
"""Twenty rows of noise.

More words.
"""
import keras
import numpy as np
import tensorflow as tf

COMPILE = {"optimizer": "sgd", "loss": "mse"}
FIT = {"epochs": 2, "batch_size": 2 * 4}


def build():
    return keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])


def data():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=[20, 3]).astype("float32"), "y": np.ones([20, 1], "float32")}
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file: `FILE`, with pieces replaced, and lines added to its end."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.py"

    def call(added="", **replaced):
        text = FILE
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text + textwrap.dedent(added))
        return path

    return call


def test_the_names_of_arguments_are_those_of_keras():
    fit = set(inspect.signature(keras.Model.fit).parameters) - {"self"}
    assert set(user_file.DATA_ARGUMENTS) | set(user_file.FIT_ARGUMENTS) == fit
    names = set(inspect.signature(keras.Model.compile).parameters) - {"self"}
    assert set(user_file.COMPILE_ARGUMENTS) == names


def test_what_the_source_tells_without_being_run(write):
    source = user_file.summarize(write("FIT: dict = dict(epochs=3, callbacks=[print])"))
    assert source.fit == {"epochs": 3}
    assert source.description == "Twenty rows of noise."


def test_what_a_file_gives(write):
    file = user_file.load(write("def train(model, x): pass"))
    assert file.fit == {"epochs": 2, "batch_size": 8}
    assert file.compile() == {"optimizer": "sgd", "loss": "mse"}
    assert file.compile() is not file.compile()
    assert list(inspect.signature(file.train).parameters) == ["model", "x"]
    assert user_file.load(write()).train is None
    assert set(user_file.read_data(file, seed=0)) == {"x", "y"}
    a, b = (user_file.build_model(file, seed).get_weights() for seed in (1, 1))
    np.testing.assert_array_equal(a[0], b[0])
    other = user_file.build_model(file, seed=2).get_weights()
    assert not np.array_equal(a[0], other[0])


def test_a_file_may_import_its_neighbors(write, tmp_path):
    path = write("from neighbor import FIT")
    (tmp_path / "neighbor.py").write_text("FIT = {'epochs': 7}\n")
    assert user_file.load(path).fit == {"epochs": 7}


def test_a_definition_may_come_from_elsewhere(write, tmp_path):
    (tmp_path / "everything.py").write_text(FILE)
    path = tmp_path / "mine.py"
    path.write_text("from everything import *\n")
    assert user_file.load(path).fit["batch_size"] == 8


def test_compile_gives_new_objects(write):
    path = write(
        "def compile(): return {'optimizer': keras.optimizers.SGD(), 'loss': 'mse'}",
        COMPILE="C",
    )
    file = user_file.load(path)
    assert file.compile()["optimizer"] is not file.compile()["optimizer"]


def test_a_file_that_is_not_there(tmp_path):
    for name, words in [("none.py", "there is no file"), ("", "is a directory")]:
        with pytest.raises(InputError, match=f"WORKLOAD: .*{words}"):
            workloads.resolve(f"{tmp_path / name}/" if not name else str(tmp_path / name))
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\0")
    with pytest.raises(InputError, match=r"binary\.py"):
        workloads.resolve(str(binary))


# Lines added to the file, and words of the error; found without running the file.
REFUSED_FROM_SOURCE = [
    ("x = = 1", r"mine\.py, line \d+: invalid syntax"),
    ("del build\nreturn 1", r"mine\.py, line \d+: 'return' outside function"),
    ("FIT = {'epoch': 3}", "FIT has 'epoch', which fit does not take; did you mean 'epochs'?"),
    ("FIT = dict(x=3)", r"FIT has 'x'; data\(\) returns it"),
    ("FIT = {'epochs': 0}", "FIT has epochs=0; it must be an integer of at least 1"),
    ("FIT = {'batch_size': 1.5}", "FIT has batch_size=1.5; it must be an integer"),
    ("COMPILE = {'los': 'mse'}", "COMPILE has 'los', which compile does not take; did you mean"),
    ("def compile(): pass", r"there are both COMPILE and compile\(\); keep one"),
]


@pytest.mark.parametrize(("added", "words"), REFUSED_FROM_SOURCE)
def test_a_source_that_is_refused(write, added, words):
    with pytest.raises(InputError, match=words):
        workloads.resolve(str(write(added)))


@pytest.mark.parametrize("name", ["build", "data", "FIT", "COMPILE"])
def test_a_definition_that_is_missing(write, name):
    path = write(**{name: "other"})
    with pytest.raises(InputError, match=rf"mine\.py: there is no {name}; define"):
        user_file.summarize(path)


REFUSED_WHEN_RUN = [
    ("del FIT", "there is no FIT"),
    ("build = 3", "build is of type int; it must be a function"),
    ("def data(n): pass", r"data\(\) must take no arguments"),
    ("train = 3", "train is of type int; it must be a function"),
    ("FIT = list(FIT)", "FIT is of type list; it must be a dict"),
    ("FIT['epoch'] = 3", "FIT has 'epoch'"),
    ("COMPILE['los'] = 3", "COMPILE has 'los'"),
    ("COMPILE = {'optimizer': keras.optimizers.SGD()}", "COMPILE has an object of SGD"),
    ("COMPILE = {'metrics': [keras.metrics.Mean()]}", "COMPILE has an object of Mean"),
]


@pytest.mark.parametrize(("added", "words"), REFUSED_WHEN_RUN)
def test_a_file_that_is_refused_when_run(write, added, words):
    with pytest.raises(InputError, match=words):
        user_file.load(write(added))


@pytest.mark.parametrize(
    ("returned", "words"),
    [("None", "returns None; it must be a dict"), ("{'los': 1}", r"compile\(\) has 'los'")],
)
def test_what_compile_returns(write, returned, words):
    file = user_file.load(write(f"def compile(): return {returned}", COMPILE="C"))
    with pytest.raises(InputError, match=words):
        file.compile()


MODEL = "keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])"
REFUSED_MODELS = [
    ("def build(): return None", r"build\(\) returns None; it must return a keras.Model"),
    (f"def build():\n m = {MODEL}\n m.compile()\n return m", "returns a compiled model"),
    ("def build(): return keras.Sequential([keras.layers.Dense(1)])", "a model without weights"),
    (f"M = {MODEL}\ndef build(): return M", "returns the same model twice"),
    (
        f"def build():\n m = {MODEL}\n m.set_weights([np.random.default_rng().normal(size=[3, 1]), "
        "np.zeros(1)])\n return m",
        "gives other initial values of .*kernel at its second call",
    ),
    (
        f"def build():\n keras.utils.set_random_seed(4)\n return {MODEL}",
        r"build\(\) sets the random seed to 4",
    ),
]


@pytest.mark.parametrize(("added", "words"), REFUSED_MODELS)
@pytest.mark.parametrize("seed", [0, 4])
def test_a_model_that_is_refused(write, added, words, seed):
    file = user_file.load(write(added))
    with pytest.raises(InputError, match=words):
        user_file.build_model(file, seed)


REFUSED_DATA = [
    ("None", r"data\(\) returns None; it must be a dict"),
    ("{'x': np.ones([4, 3]), 'z': 1}", r"data\(\) has 'z', which fit does not take as data"),
    ("{'y': np.ones(4)}", r"data\(\) returns no x"),
    ("{'x': np.ones([0, 3])}", "an x without rows"),
    ("{'x': np.ones([4, 3]), 'y': np.ones(3)}", "returns 4 rows of x, but 3 of y"),
    ("{'x': np.ones([4, 3]), 'sample_weight': np.ones(3)}", "4 rows of x, but 3 of sample_weight"),
    ("{'x': tf.data.Dataset.range(3), 'y': np.ones(3)}", "returns y beside a tf.data.Dataset"),
    ("{'x': np.random.rand(4, 3)}", "returns another x at its second call"),
    ("{'x': {'a': np.random.default_rng().random([4, 3])}}", "returns another x at its second"),
    (
        "{'x': np.ones([4, 3]), 'validation_data': (np.ones(4), np.random.rand(4))}",
        "another validation_data",
    ),
    ("{'x': np.ones(3), 'y': tf.random.set_seed(7) or np.ones(3)}", "sets the random seed to 7"),
]


@pytest.mark.parametrize(("returned", "words"), REFUSED_DATA)
def test_data_that_are_refused(write, returned, words):
    file = user_file.load(write(f"def data(): return {returned}"))
    with pytest.raises(InputError, match=words):
        user_file.read_data(file, seed=0)


def test_data_may_have_a_generator_of_their_own(write):
    file = user_file.load(
        write("def data():\n np.random.seed(3)\n return {'x': np.random.rand(4)}")
    )
    assert user_file.read_data(file, seed=0)["x"].shape == (4,)


@pytest.mark.parametrize(
    ("call", "added", "subject"),
    [
        (lambda path: user_file.load(path), "import nothing_of_this_name", "importing it"),
        (lambda path: user_file.load(path), "raise SystemExit", "importing it"),
        (lambda path: user_file.load(path).build(), "def build(): keras.Model(0)", "build()"),
        (lambda path: user_file.load(path).data(), "def data():\n  return np.ones(-1)", "data()"),
    ],
)
def test_an_exception_is_shown_with_the_lines_of_the_file_only(write, call, added, subject):
    path = write(added)
    with pytest.raises(InputError) as caught:
        call(path)
    first, *frames = str(caught.value).splitlines()
    assert first.startswith(f"{path}: {subject}")
    assert " raises " in first
    assert len(frames) == 2
    line = len(path.read_text().splitlines())
    assert frames[0].startswith(f'  File "{path}", line {line}, in ')
    assert frames[1].strip() == added.splitlines()[-1].strip()


def test_a_batch_is_tried(write):
    given = {"x": np.ones([4, 3], "float32"), "y": np.ones([4, 1], "float32")}
    file = user_file.load(write())
    for side, trainer in TRAINERS.items():
        user_file.try_batch(file.path, side, trainer, file, given, file.fit)
        wrong = user_file.load(write("COMPILE = {'loss': 'msee'}"))
        with pytest.raises(InputError, match=f"{side}, on the first batch, raises ValueError: "):
            user_file.try_batch(file.path, side, trainer, wrong, given, file.fit)


# As a workload --------------------------------------------------------------------------------


def test_a_path_is_told_from_a_name(write, monkeypatch):
    path = write()
    monkeypatch.chdir(path.parent)
    for name in (str(path), "mine.py", "./mine.py"):
        assert workloads.is_file(name)
        assert workloads.resolve(name) == name
    assert not workloads.is_file("digits")
    with pytest.raises(InputError, match="there is no 'mine'"):
        workloads.resolve("mine")


def test_the_validation_data_are_the_test_set(write):
    x = np.arange(10.0)
    y = x + 100
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    found = {
        "validation data": user_file.test_set(x, y, {"validation_data": (x[8:], y[8:])}, {}),
        "split": user_file.test_set(x, y, {}, {"validation_split": 0.2}),
    }
    for name, (test_x, test_y) in found.values():
        assert name == "Validation data"
        np.testing.assert_array_equal(test_x, x[8:])
        np.testing.assert_array_equal(test_y, y[8:])
    assert user_file.test_set(x, y, {"validation_data": dataset}, {})[1] == (dataset, None)
    name, (test_x, _) = user_file.test_set(x, y, {}, {})
    assert name.startswith("First rows of the training set")
    np.testing.assert_array_equal(test_x, x)
    name, (batches, none) = user_file.test_set(dataset.repeat(), None, {}, {})
    assert name == "First 32 batches of the training set"
    assert (int(batches.cardinality()), none) == (32, None)


def test_first_batches():
    x, w = {"a": np.arange(10), "b": np.arange(10)}, np.ones(10)
    given = {"x": x, "y": None, "sample_weight": w, "class_weight": {}, "validation_data": ()}
    found = user_file.first_batches(given, batches=2, batch_size=3)
    assert set(found) == {"x", "y", "sample_weight", "class_weight"}
    assert len(found["x"]["a"]) == len(found["x"]["b"]) == len(found["sample_weight"]) == 6

    shuffled = tf.data.Dataset.range(64).shuffle(64).batch(4)
    assert len({tuple(next(iter(shuffled)).numpy()) for _ in range(3)}) > 1
    found = user_file.first_batches({"x": shuffled, "y": None}, batches=2, batch_size=3)
    assert found["shuffle"] is False
    a, b = ([batch.numpy().tolist() for batch in found["x"]] for _ in range(2))
    assert a == b
    assert user_file.samples_of(found) == 8
