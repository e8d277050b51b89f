"""A `PyDataset` with workers: which batches an epoch gets that the one before it left over."""

import time

import keras
import numpy as np
import pytest
from cases import X, Y, compile_with, plain
from parity import Pair, assert_same, covers, first_difference, fit, watch
from platforms import needs_fork

from manual_loop.data.py_dataset import Enqueuer, Order


class Numbered(keras.utils.PyDataset):
    """Batches that differ; notes which were fetched."""

    def __init__(self, length, **arguments):
        super().__init__(**{"workers": 2, **arguments})
        self.length = length
        self.fetched = []

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        self.fetched.append(index)
        return X[:4] * (index + 1), Y[:4]


class Rest(keras.callbacks.Callback):
    """Waits until the queue is full: how full it is when an epoch ends is a race in fit."""

    def rest(self, batch, logs=None):
        time.sleep(0.02)

    on_train_batch_begin = on_train_batch_end = on_test_batch_begin = on_test_batch_end = rest


@pytest.fixture(scope="module")
def pairs():
    """By `steps_per_execution`."""
    return {n: Pair(plain, compile_with(optimizer="sgd", steps_per_execution=n)) for n in (1, 2)}


@pytest.fixture
def pair(pairs):
    return pairs[1]


def kind(length, steps, block=1, **arguments):
    name = {"length": length, "steps": steps, "block": block, **arguments}
    return pytest.param(length, steps, block, arguments, id=str(name))


def assert_parity_in_three(pair, data, **how):
    """Parity with what fit does where its queue is full in time: on a busy machine, not always."""
    for _ in range(3):
        seen = [watch(fit, t, data, lambda: [Rest()], **how) for t in pair.restarted()]
        if first_difference(*seen) is None:
            return
    assert_same(*seen)


VALIDATIONS = [
    kind(3, 2),
    kind(5, 2, 2, max_queue_size=1),
    kind(9, 1, max_queue_size=2, workers=3),
    kind(5, 3, max_queue_size=0),
    kind(3, 4),
    kind(3, None),
    kind(None, 2),
    kind(3, 2, workers=1),
]
TRAININGS = [
    kind(6, 2, 2, max_queue_size=1),
    kind(9, 1, max_queue_size=2, workers=3),
    kind(5, 3, max_queue_size=0),
]


@covers("data: PyDataset with workers, fewer steps than batches", "fit: validation_steps")
@pytest.mark.parametrize(("length", "steps", "block", "arguments"), VALIDATIONS)
def test_validation(pairs, length, steps, block, arguments):
    def data():
        return {"x": X, "y": Y, "validation_data": Numbered(length, **arguments)}

    how = {"epochs": 4, "batch_size": 22, "validation_steps": steps}
    assert_parity_in_three(pairs[block], data, **how)


@covers("data: PyDataset with workers, fewer steps than batches", "fit: steps_per_epoch")
@pytest.mark.parametrize(("length", "steps", "block", "arguments"), TRAININGS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_training(pairs, length, steps, block, arguments, shuffle):
    def data():
        return {"x": Numbered(length, **arguments)}

    how = {"epochs": 4, "steps_per_epoch": steps, "shuffle": shuffle}
    assert_parity_in_three(pairs[block], data, **how)


@covers("data: PyDataset with workers, fewer steps than batches")
def test_validations_differ_at_learning_rate_zero(pair):
    """What surprises: the same weights, another validation loss."""
    for trainer in pair.restarted():
        rate = trainer.optimizer.learning_rate.numpy()
        trainer.optimizer.learning_rate.assign(0.0)
        data = {"validation_data": Numbered(3), "validation_steps": 2}
        history = trainer.fit(X, Y, epochs=3, batch_size=22, verbose=0, **data).history
        trainer.optimizer.learning_rate.assign(rate)
        assert len(set(history["val_loss"])) == 3


class Failing(Numbered):
    """One batch cannot be fetched."""

    def __getitem__(self, index):
        if index == 3:
            raise RuntimeError("no such file")
        return super().__getitem__(index)


@covers("errors: a worker of a PyDataset fails")
@pytest.mark.parametrize("steps", [2, 5])
def test_a_batch_that_fails(pair, steps):
    """Taken or only fetched ahead: in both cases the call fails, with the same error."""
    errors = []
    for trainer in pair.restarted():
        with pytest.raises(Exception, match="no such file") as error:
            trainer.fit(Failing(6), steps_per_epoch=steps, verbose=0, shuffle=False)
        errors.append(error.type)
    assert errors[0] is errors[1]


def test_the_queue_has_a_size():
    data = Numbered(20, max_queue_size=3)
    enqueuer = Enqueuer(data, Order(data, shuffle=False))
    enqueuer.start()
    batches = enqueuer.get()
    next(batches)
    enqueuer.stop()
    assert sorted(data.fetched) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="before `on_epoch_begin`"):
        next(batches)
    with pytest.raises(ValueError, match="max_queue_size"):
        Enqueuer(Numbered(None, max_queue_size=0), Order(None, shuffle=False))


def test_batches_of_none_are_left_out():
    class Gaps(Numbered):
        def __getitem__(self, index):
            return None if index % 2 else index

    data = Gaps(6)
    enqueuer = Enqueuer(data, Order(data, shuffle=False))
    enqueuer.start()
    assert list(enqueuer.get()) == [0, 2, 4]
    enqueuer.stop()


@needs_fork
@covers("data: PyDataset with workers, in processes")
def test_processes_see_the_data_as_the_epoch_begins():
    """In fit, whether a process is forked before `on_epoch_begin` or after it is a race."""

    class Counted(Numbered):
        def on_epoch_begin(self):
            self.epoch = getattr(self, "epoch", 0) + 1

        def __getitem__(self, index):
            return np.array([self.epoch, index])

    data = Counted(3, use_multiprocessing=True)
    enqueuer = Enqueuer(data, Order(data, shuffle=False))
    for epoch in (1, 2):
        data.on_epoch_begin()
        enqueuer.start()
        assert [batch.tolist() for batch in enqueuer.get()] == [[epoch, i] for i in range(3)]
        enqueuer.stop()
