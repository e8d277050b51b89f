"""A call on one batch."""

import pytest


@pytest.mark.benchmark(group="train_on_batch")
def test_train_on_batch(benchmark, trainer, batch):
    assert len(benchmark(trainer.train_on_batch, *batch)) == 2


@pytest.mark.benchmark(group="test_on_batch")
def test_test_on_batch(benchmark, trainer, batch):
    assert len(benchmark(trainer.test_on_batch, *batch)) == 2


@pytest.mark.benchmark(group="predict_on_batch")
def test_predict_on_batch(benchmark, trainer, batch):
    x, _ = batch
    assert len(benchmark(trainer.predict_on_batch, x)) == len(x)
