"""Every kind of data that `fit` takes, and sizes that do not divide by the batch."""

import gc
import itertools
import time
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from cases import ONE_HOT, SIDE, SPARSE, VALUE, X, Y, compile_with, plain, two_named
from parity import TRAINERS, Pair, assert_parity, assert_same, calls, covers, fit, watch
from platforms import needs_fork

from fit_unfolded.comparison.record import Recorder

BLOCKS = (1, 2)


@pytest.fixture(scope="module", params=BLOCKS)
def pair(request):
    return Pair(plain, compile_with(optimizer="sgd", steps_per_execution=request.param))


def kind(name, *data, test=None, **arguments):
    """A case; data in functions, for what can be walked through only once."""
    return pytest.param(
        *data, test, arguments, id=name, marks=covers(f"data: {name.partition(',')[0]}")
    )


POSITIVE = np.where(X > 0, X, 0)
FRAME = pd.DataFrame(X.astype("float64"), columns=list("abcdefgh"))
CLASS = pd.Series(Y[:, 0])
SPLIT = {"validation_split": 0.3}


def dataset(*arrays, batch=8):
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).batch(batch)


def unknown(*arrays):
    return dataset(*arrays).filter(lambda *batch: True)


def growing():
    """Of 2 batches, then of 3 more each time."""
    sizes = itertools.count(2, 3)

    def batches():
        return itertools.repeat((X[:8], Y[:8]), next(sizes))

    return tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec([8, 8]), tf.TensorSpec([8, 1], tf.int64))
    )


def generator(batches=3, endless=False):
    while True:
        for i in range(batches):
            yield X[i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]
        if not endless:
            return


def with_weights(batches=100):
    for i in range(batches):
        part = slice(i % 3 * 8, i % 3 * 8 + 8)
        yield X[part], Y[part], np.arange(22.0)[part]


class Batches(keras.utils.PyDataset):
    """The data in batches of 8; notes when it is told about epochs."""

    def __init__(self, length=3, slow=False, **arguments):
        super().__init__(**arguments)
        self.length = length
        self.slow = slow
        self.told = []

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        if self.slow and index % 2 == 0:
            time.sleep(0.01)  # later batches are ready first; they must wait
        part = slice(index % 3 * 8, index % 3 * 8 + 8)
        return X[part], Y[part]

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


ARRAYS = [
    kind("NumPy arrays", {"x": X, "y": Y}, **SPLIT),
    kind("NumPy arrays, float64", {"x": X.astype("float64"), "y": Y.astype("float64")}, **SPLIT),
    kind("NumPy arrays, float16 and int8", {"x": X.astype("float16"), "y": Y.astype("int8")}),
    kind("NumPy arrays, integers", {"x": (X * 9).astype("int32"), "y": Y}, **SPLIT),
    kind("NumPy arrays, not in C order", {"x": np.asfortranarray(X), "y": Y[::-1]}, **SPLIT),
    kind("TensorFlow tensors", {"x": tf.constant(X), "y": tf.constant(Y)}, **SPLIT),
    kind("TensorFlow tensors, float64", {"x": tf.constant(X, tf.float64), "y": Y}),
    kind("TensorFlow tensors, a variable", {"x": tf.Variable(X), "y": Y}),
    kind("pandas", {"x": FRAME, "y": CLASS}, **SPLIT),
    kind("pandas, labels in a frame", {"x": FRAME, "y": pd.DataFrame(Y)}, **SPLIT),
    kind("pandas, other index", {"x": FRAME[::-1], "y": CLASS[::-1]}, shuffle="batch"),
    kind("SciPy sparse", {"x": scipy.sparse.csr_matrix(POSITIVE), "y": Y}, **SPLIT),
    kind(
        "SciPy sparse, float64 coo", {"x": scipy.sparse.coo_array(POSITIVE.astype(float)), "y": Y}
    ),
    kind("tf.SparseTensor", {"x": tf.sparse.from_dense(POSITIVE), "y": Y}, **SPLIT),
]
STREAMS = [
    kind("tf.data.Dataset", lambda: {"x": dataset(), "validation_data": dataset()}),
    kind(
        "tf.data.Dataset, 3 steps of 3, then of the rest",
        lambda: {"x": dataset().repeat(3)},
        steps_per_epoch=4,
    ),
    kind("tf.data.Dataset, runs out", lambda: {"x": dataset()}, steps_per_epoch=2, epochs=3),
    kind(
        "tf.data.Dataset, of unknown size",
        lambda: {"x": unknown(), "validation_data": unknown()},
        epochs=3,
    ),
    kind("tf.data.Dataset, longer in each epoch", lambda: {"x": growing()}, epochs=3),
    kind(
        "tf.data.Dataset, endless",
        lambda: {"x": dataset().repeat(), "validation_data": dataset().repeat()},
        test=lambda: {"x": dataset().repeat(), "steps": 2},
        steps_per_epoch=2,
        validation_steps=2,
    ),
    kind(
        "tf.data.Dataset, with class weights",
        lambda: {"x": dataset(), "class_weight": {0: 2.0, 2: 0.5}},
    ),
    kind("tf.data.Dataset, with sample weights", lambda: {"x": dataset(X, Y, np.arange(22.0))}),
    kind(
        "tf.data.Dataset, shuffled",
        lambda: {"x": dataset(X, Y).unbatch().shuffle(22, seed=1).batch(4)},
    ),
    kind("generator", lambda: {"x": generator()}, epochs=1),
    kind(
        "generator, endless",
        lambda: {"x": generator(endless=True), "validation_data": generator(endless=True)},
        test=lambda: {"x": generator(endless=True), "steps": 2},
        steps_per_epoch=4,
        validation_steps=2,
    ),
    kind("generator, runs out", lambda: {"x": generator(5)}, steps_per_epoch=3, epochs=3),
    kind("generator, with sample weights", lambda: {"x": with_weights(6)}, steps_per_epoch=3),
    kind("PyDataset", lambda: {"x": Batches(), "validation_data": Batches()}),
    kind("PyDataset, in order", lambda: {"x": Batches()}, shuffle=False),
    kind("PyDataset, with class weights", lambda: {"x": Batches(), "class_weight": {1: 3.0}}),
    kind("PyDataset, with threads", lambda: {"x": Batches(workers=3, slow=True)}),
    kind(
        "PyDataset, endless with threads",
        lambda: {"x": Batches(None, workers=2, slow=True)},
        test={"x": X, "y": Y},
        steps_per_epoch=4,
    ),
    kind(
        "PyDataset, endless",
        lambda: {"x": Batches(None), "validation_data": Batches(None)},
        test=lambda: {"x": Batches(None), "steps": 2},
        steps_per_epoch=4,
        validation_steps=2,
    ),
    kind("PyDataset, runs out", lambda: {"x": Batches()}, steps_per_epoch=2, epochs=3),
]


@covers("fit: x", "fit: y", "fit: validation_data")
@pytest.mark.parametrize(("data", "test", "arguments"), ARRAYS + STREAMS)
def test_each_kind_of_data(pair, data, test, arguments):
    batch = {"batch_size": 8} if isinstance(data, dict) else {}
    how = {"script": fit} if test is None else {"test": test}
    pair.assert_parity(data, **how, **{"epochs": 2, **batch, **arguments})


@covers("data: tf.data.Dataset")
@pytest.mark.parametrize("metrics", [None, ["acc"]], ids=str)
@pytest.mark.parametrize("call", ["fit", "evaluate", "validation"])
def test_no_batch_at_all(call, metrics):
    def script(Trainer):
        trainer = Trainer(plain())
        trainer.compile("sgd", SPARSE, metrics=metrics, run_eagerly=True)
        recorder = Recorder()
        arguments = {"verbose": 0, "callbacks": [recorder]}
        empty = unknown().take(0)
        seen = {}
        try:
            if call == "validation":
                seen["history"] = trainer.fit(X, Y, validation_data=empty, **arguments).history
            else:
                result = getattr(trainer, call)(empty, **arguments)
                seen["result"] = result.history if call == "fit" else result
        except Exception as error:
            seen["error"] = type(error).__name__
        return {**seen, "calls": calls(recorder)}

    assert_parity(script=script)


@covers("data: NumPy arrays")
def test_labels_without_a_last_axis():
    eager = compile_with(run_eagerly=True)
    assert_parity(plain, eager, {"x": X, "y": Y[:, 0]}, batch_size=8, validation_split=0.3)


@covers("data: PyDataset")
def test_a_pydataset_is_told_of_epochs_as_by_fit(pair):
    def script(trainer):
        data, test = Batches(), Batches()
        trainer.fit(data, epochs=2, verbose=0, validation_data=test)
        trainer.evaluate(test, verbose=0)
        return {"data": data.told, "test": test.told}

    assert pair.assert_parity(script=script)["data"].count("begin") == 2


@needs_fork
@covers("data: PyDataset")
def test_a_pydataset_with_processes():
    def script(Trainer):
        trainer = Trainer(plain())
        trainer.compile("sgd", SPARSE)
        data = Batches(workers=2, use_multiprocessing=True)
        return {"history": trainer.fit(data, verbose=0, shuffle=False).history}

    assert_parity(script=script)


@covers("data: a generator used twice goes on where it stopped")
def test_a_generator_goes_on(pair):
    def script(trainer):
        taken = []

        def counted():
            for batch in generator(6):
                taken.append(batch)
                yield batch

        data, seen = counted(), {"history": [], "batches taken": []}
        for _ in range(2):
            run = trainer.fit(data, steps_per_epoch=2, epochs=1, verbose=0)
            seen["history"].append(run.history)
            seen["batches taken"].append(len(taken))
        return seen

    for _ in range(10):
        seen = [watch(script, trainer) for trainer in pair.restarted()]
        if seen[0]["batches taken"] == seen[1]["batches taken"]:
            break  # how far tf.data has read ahead when a fit ends is a race
    assert_same(*seen)


NAMED = {"optimizer": "sgd", "loss": {"klass": SPARSE, "value": "mse"}, "metrics": None}
ROWS = {"x": X, "side": SIDE}, {"klass": Y, "value": VALUE}


@pytest.fixture(scope="module")
def named_pair():
    return Pair(two_named, compile_with(**NAMED))


@covers("data: dicts, lists and tuples of arrays")
@pytest.mark.parametrize(
    "data",
    [
        {"x": ROWS[0], "y": ROWS[1]},
        {"x": {"side": SIDE, "x": X}, "y": {"value": VALUE, "klass": Y}},
        {"x": {"x": FRAME, "side": tf.constant(SIDE)}, "y": {"klass": CLASS, "value": VALUE}},
        {
            "x": ROWS[0],
            "y": ROWS[1],
            "sample_weight": {"klass": X[:, 0] ** 2, "value": X[:, 1] ** 2},
        },
        {"x": ROWS[0], "y": ROWS[1], "sample_weight": X[:, 0] ** 2},
    ],
    ids=["dicts", "other order", "mixed kinds", "weights for each output", "one weight for all"],
)
def test_structures_of_arrays(named_pair, data):
    named_pair.assert_parity(data, epochs=2, batch_size=8, validation_split=0.3)


@covers("data: dicts, lists and tuples of arrays", "data: tf.data.Dataset")
def test_structures_in_a_dataset(named_pair):
    data = tf.data.Dataset.from_tensor_slices(ROWS).batch(8)
    named_pair.assert_parity({"x": data, "validation_data": data}, epochs=2)


@covers("data: dicts, lists and tuples of arrays")
@pytest.mark.parametrize("container", [list, tuple])
def test_lists_and_tuples_of_inputs(container):
    def build():
        inputs = [keras.Input([8]), keras.Input([4])]
        joined = keras.layers.Concatenate()(inputs)
        return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(joined))

    data = {"x": container([X, SIDE]), "y": Y}
    assert_parity(build, compile_with(run_eagerly=True), data, batch_size=8, validation_split=0.3)


class Counted(keras.Model):
    """Classes of ragged rows of numbers, by their length and their sum."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(3, activation="softmax")

    def call(self, rows):
        rows = tf.cast(rows, "float32")
        lengths = tf.reduce_sum(tf.ones_like(rows), axis=1)
        return self.out(tf.stack([lengths, tf.reduce_sum(rows, axis=1)], axis=1))


@covers("data: ragged tensors")
@pytest.mark.parametrize("as_dataset", [False, True])
def test_ragged_inputs(as_dataset):
    rows = tf.ragged.constant([list(range(1 + i % 3)) for i in range(22)], dtype=tf.int32)

    def data():
        if as_dataset:
            return {"x": dataset(rows, Y)}
        return {"x": rows, "y": Y}

    assert_parity(Counted, compile_with(), data, **({} if as_dataset else {"batch_size": 8}))


@covers("data: strings")
@pytest.mark.parametrize(
    "text",
    [np.array(["a b", "b c"] * 11, object), tf.constant(["a b", "b c"] * 11)],
    ids=["NumPy", "TensorFlow"],
)
def test_strings(text):
    def build():
        vectors = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=list("abc"))
        return keras.Sequential([vectors, keras.layers.Dense(3, activation="softmax")])

    assert_parity(build, compile_with(), {"x": text, "y": Y}, epochs=2, batch_size=8)


@covers("data: sequences of other lengths in each batch")
def test_batches_of_other_lengths_become_ragged_predictions():
    def data():
        for steps in (3, 5, 4):
            yield X[:4, :steps, None], X[:4, :steps, None]

    def build():
        return keras.Sequential([keras.Input([None, 1]), keras.layers.Dense(1)])

    assert_parity(build, compile_with(loss="mse", metrics=["mae"]), lambda: {"x": data()})


@covers("data: x alone")
def test_no_labels():
    def build():
        inputs = keras.Input([8])
        outputs = keras.layers.Dense(2, activity_regularizer="l2")(inputs)
        return keras.Model(inputs, outputs)

    arguments = {"loss": None, "metrics": None, "run_eagerly": True}
    assert_parity(build, compile_with(**arguments), {"x": X}, batch_size=8, validation_split=0.3)
    assert_parity(build, compile_with(**arguments), lambda: {"x": dataset(X)})


@covers("data: one-hot labels, and None among several labels")
def test_none_among_the_labels():
    def script(Trainer):
        trainer = Trainer(two_named())
        trainer.compile("sgd", {"klass": "categorical_crossentropy"})
        y = {"klass": ONE_HOT, "value": None}
        return {"history": trainer.fit(ROWS[0], y, batch_size=8, verbose=0).history}

    assert_parity(script=script)


def test_data_from_python_are_freed():
    """fit's are not: TensorFlow keeps every function that it has made a dataset of."""

    def freed(Trainer, model, make):
        data = Batches()
        reference = weakref.ref(data)
        Trainer(model).predict(make(data), steps=3, verbose=0)
        del data
        gc.collect()
        return reference() is None

    model = plain()
    for make in (lambda data: data, lambda data: ((data[i][0],) for i in itertools.count())):
        found = {side: freed(Trainer, model, make) for side, Trainer in TRAINERS.items()}
        assert found == {"keras_fit": False, "manual_loop": True}
