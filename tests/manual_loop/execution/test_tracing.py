"""The loop traces no more graphs than fit does, and a second call traces none."""

import keras
import pytest
from cases import CLASSES, SHORT, SPARSE, X, Y
from parity import TRAINERS, covers, observe


class Traced(keras.layers.Dense):
    """Counts how often Python runs its `call`: once for each graph that is traced."""

    traces = 0

    def call(self, x):
        self.traces += 1
        return super().call(x)


def script(Trainer, how, calls):
    layer = Traced(3, activation="softmax")
    model = keras.Sequential([keras.Input([8]), layer])
    trainer = Trainer(model)
    trainer.compile("sgd", SPARSE, metrics=["acc"], **how)
    layer.traces = 0
    counts = []
    for call in calls:
        call(trainer)
        counts.append(layer.traces)
        layer.traces = 0
    return {"counts": counts}


def fit(**arguments):
    return lambda trainer: trainer.fit(**{**CLASSES, **arguments}, verbose=0)


def evaluate(**arguments):
    return lambda trainer: trainer.evaluate(X, Y, verbose=0, **arguments)


def predict(**arguments):
    return lambda trainer: trainer.predict(X, verbose=0, **arguments)


LONG = {**SHORT, "epochs": 3}
CALLS = {
    "twice the same": [fit(**SHORT), fit(**LONG), evaluate(), evaluate(), predict(), predict()],
    "whole batches": [fit(batch_size=11), fit(batch_size=11, epochs=2, initial_epoch=1)],
    "one short batch": [fit(batch_size=8), fit(batch_size=8)],
    "other sizes": [
        fit(batch_size=8),
        fit(batch_size=7),
        fit(batch_size=5),
        evaluate(batch_size=5),
    ],
    "with weights": [fit(sample_weight=X[:, 0]), fit(sample_weight=X[:, 1])],
}


@covers("tracing: graphs of one call", promise="no more than fit")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=["one batch", "blocks"])
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_no_more_graphs_than_fit(calls, how):
    theirs, ours = (observe(side, script, how, calls)["counts"] for side in TRAINERS)
    assert sum(theirs) > 0
    assert all(a >= b for a, b in zip(theirs, ours, strict=True)), f"fit {theirs}, the loop {ours}"


@covers("tracing: graphs of a second call", promise="none")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=["one batch", "blocks"])
def test_a_second_call_traces_nothing(how):
    counts = observe("manual_loop", script, how, CALLS["twice the same"])["counts"]
    assert counts[1::2] == [0, 0, 0]
    assert counts[0] > 0


@covers("tracing: predict", promise="once more for a shorter last batch, as fit")
def test_predict_knows_the_batch_size():
    whole, short = predict(batch_size=11), predict(batch_size=8)
    for side in TRAINERS:
        counts = observe(side, script, {}, [whole, whole, short, short, predict(batch_size=7)])
        assert counts["counts"] == [1, 0, 1, 0, 0]
