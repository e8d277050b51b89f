"""A whole call on all of the data, with fit's default settings."""

import pytest

WARM = {"warmup_rounds": 2, "rounds": 10}


@pytest.mark.benchmark(group="fit, one epoch")
def test_fit(benchmark, trainer, model, data):
    how = {"batch_size": model.batch_size, "verbose": 0}
    history = benchmark.pedantic(trainer.fit, data, how, **WARM)
    assert len(history.history["loss"]) == 1


@pytest.mark.benchmark(group="fit, two epochs on 100 rows")
def test_short_fit(benchmark, trainer, model, data):
    x, y = (array[:100] for array in data)
    how = {"batch_size": model.batch_size, "epochs": 2, "verbose": 0}
    history = benchmark.pedantic(trainer.fit, (x, y), how, **WARM)
    assert len(history.history["loss"]) == 2


@pytest.mark.benchmark(group="evaluate")
def test_evaluate(benchmark, trainer, model, data):
    how = {"batch_size": model.batch_size, "verbose": 0}
    loss, _ = benchmark.pedantic(trainer.evaluate, data, how, **WARM)
    assert loss > 0


@pytest.mark.benchmark(group="predict")
def test_predict(benchmark, trainer, model, data):
    x, _ = data
    how = {"batch_size": model.batch_size, "verbose": 0}
    assert len(benchmark.pedantic(trainer.predict, (x,), how, **WARM)) == len(x)
