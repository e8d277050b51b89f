"""Single steps joined in one call, where nobody can tell: all numbers stay those of fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import X, Y, compile_with, mlp, plain
from parity import TRAINERS, assert_same, covers, observe, values

import manual_loop
from manual_loop.callbacks import watches_single_batches
from manual_loop.execution import steps_tuner


@pytest.fixture
def joined(monkeypatch):
    """Calls are joined from the second step of an epoch on; how many steps each call ran."""
    sizes = []

    def steps(tuner, left):
        sizes.append(min(left, 3))
        return sizes[-1]

    monkeypatch.setattr(steps_tuner.StepsTuner, "steps", steps)
    return sizes


def all_numbers(Trainer, build):
    """What fit, evaluate and predict leave, without a callback that watches batches."""
    trainer = Trainer(build())
    trainer.compile(**compile_with()())
    history = trainer.fit(X, Y, batch_size=4, epochs=2, validation_split=0.3, verbose=0).history
    return {
        "history": history,
        "evaluate": trainer.evaluate(X, Y, batch_size=4, verbose=0),
        "predict": trainer.predict(X, batch_size=4, verbose=0),
        "variables": values(trainer.model.variables + trainer.optimizer.variables),
    }


@covers("compile: steps_per_execution")
@pytest.mark.parametrize("build", [plain, mlp], ids=lambda build: build.__name__)
def test_joined_steps_are_single_steps(joined, build):
    fit, loop = (observe(side, all_numbers, build) for side in TRAINERS)
    assert 3 in joined
    assert_same(fit, loop)


def train(watching=(), build=plain, **how):
    trainer = manual_loop.Trainer(build())
    trainer.compile("sgd", "sparse_categorical_crossentropy")
    trainer.fit(X, Y, batch_size=2, verbose=0, callbacks=list(watching), **how)
    return trainer


class Watcher(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


def test_a_callback_that_watches_batches_sees_each(joined):
    watcher = Watcher()
    train([watcher])
    assert watcher.batches == list(range(11))
    assert not joined


def test_stop_training_at_the_start_of_an_epoch_ends_it_after_one_step(joined):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.stop_training = True

    assert int(train([Stop()]).optimizer.iterations.numpy()) == 1


def test_an_error_leaves_the_state_of_its_batch(joined):
    labels = Y.copy()
    labels[17] = 7  # in the ninth batch of two
    left = []
    for watching in ([], [Watcher()]):
        keras.utils.set_random_seed(0)
        trainer = manual_loop.Trainer(plain())
        trainer.compile("sgd", "sparse_categorical_crossentropy")
        with pytest.raises(tf.errors.InvalidArgumentError, match="Received a label value of 7"):
            trainer.fit(X, labels, batch_size=2, shuffle=False, verbose=0, callbacks=watching)
        left.append(trainer.model.get_weights())
    assert joined
    for joined_weights, single_weights in zip(*left, strict=True):
        np.testing.assert_array_equal(joined_weights, single_weights)


def test_which_callbacks_watch():
    callbacks = keras.callbacks
    unwatching = [
        callbacks.ProgbarLogger(),
        callbacks.History(),
        callbacks.EarlyStopping(),
        callbacks.ModelCheckpoint("a.keras"),
    ]
    watching = [
        callbacks.TerminateOnNaN(),
        callbacks.ModelCheckpoint("a.keras", save_freq=2),
        callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
        Watcher(),
    ]
    assert not any(map(watches_single_batches, unwatching))
    assert all(map(watches_single_batches, watching))


def test_the_first_calls_are_single_steps_and_the_others_take_a_twentieth_of_a_second(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(steps_tuner.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(steps_tuner, "CALLS", 2)
    tuner = steps_tuner.StepsTuner()
    sizes = []
    for _ in range(5):
        sizes.append(tuner.steps(left=100))
        with tuner.timed(sizes[-1]):
            clock[0] += 0.002 * sizes[-1]
    assert sizes == [1, 1, 1, 25, 25]
    assert tuner.steps(left=7) == 7


def swish(x):
    return x * tf.sigmoid(x)


@pytest.mark.parametrize(
    ("step", "joins"),
    [
        (lambda x: tf.nn.relu(x), True),
        (lambda x: tf.sigmoid(x), True),
        (swish, False),
        (keras.activations.swish, False),
        (lambda x: tf.nn.conv1d(x[..., None], tf.ones([1, 1, 1]), 1, "SAME"), False),
        (lambda x: tf.numpy_function(lambda a: a, [x], tf.float32), False),
        (lambda x: None, False),
    ],
)
def test_steps_that_a_loop_may_round_differently_are_left_alone(step, joins):
    traced = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec([2, 3]))
    assert steps_tuner.can_be_joined(traced) is joins


def test_steps_on_a_gpu_are_left_alone(monkeypatch):
    monkeypatch.setattr(steps_tuner, "on_gpu", lambda: True)
    traced = tf.function(tf.nn.relu, autograph=False).get_concrete_function(tf.TensorSpec([2, 3]))
    assert not steps_tuner.can_be_joined(traced)


class OwnList(keras.callbacks.CallbackList):
    """It watches batches itself, though no callback in it does."""

    def __init__(self, **how):
        super().__init__(add_history=True, **how)
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((batch, sorted(logs)))


@covers("callback: CallbackList, a subclass")
def test_a_list_of_callbacks_of_ones_own_sees_each_batch(joined):
    def seen(Trainer):
        trainer = Trainer(plain())
        trainer.compile("sgd", "sparse_categorical_crossentropy")
        callbacks = OwnList(model=trainer.model)
        trainer.fit(X, Y, batch_size=4, verbose=0, callbacks=callbacks)
        return {"batches": callbacks.batches}

    fit, loop = (observe(side, seen) for side in TRAINERS)
    assert len(loop["batches"]) == 6
    assert_same(fit, loop)
    assert not joined
