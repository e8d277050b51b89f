"""Facts about `fit` that docs/details.md states: both sides show them, and the same numbers."""

import time
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import (
    CLASSES,
    ONE_HOT,
    SEQUENCES,
    SPARSE,
    Batches,
    X,
    Y,
    compile_with,
    functional,
    plain,
    policy,
)
from parity import assert_parity, fit, observe, train, values

from fit_unfolded.comparison.record import Recorder
from manual_loop.keras_version import WARNS_OF_IGNORED_SHUFFLE

callbacks, layers, optimizers = keras.callbacks, keras.layers, keras.optimizers
EAGER = {"run_eagerly": True}
EAGER_OR_GRAPH = pytest.mark.parametrize("run_eagerly", [True, False], ids=["eager", "graph"])


def compiled(Trainer, model, optimizer="sgd", loss=SPARSE, **arguments):
    """A trainer with its model compiled, eager unless told otherwise."""
    trainer = Trainer(model)
    trainer.compile(optimizer, loss, **{**EAGER, **arguments})
    return trainer


def on(**hooks):
    """A callback of functions: each is called with the callback and the hook's arguments."""
    return type("Hooks", (callbacks.Callback,), hooks)()


# Compile


@pytest.mark.parametrize(
    ("build", "logs"),
    [
        (plain, ["categorical_crossentropy_loss", "loss", "mse_loss"]),
        (functional, ["loss", "out_loss"]),
    ],
    ids=["Sequential", "functional"],
)
def test_the_logs_of_two_losses_on_one_output_stay_zero(build, logs):
    data = {"x": X, "y": ONE_HOT}

    def losses(Trainer, loss):
        seen = train(Trainer, build, compile_with(**EAGER, loss=loss, metrics=None), data, then=fit)
        return seen["history"]

    def script(Trainer):
        keras.utils.set_random_seed(0)
        alone = losses(Trainer, "categorical_crossentropy")
        keras.utils.set_random_seed(0)
        return {"alone": alone, "two": losses(Trainer, ["categorical_crossentropy", "mse"])}

    seen = assert_parity(script=script)
    zeros = {name: [0.0] for name in logs if name != "loss"}
    assert seen["two"] == {**seen["alone"], **zeros}


def test_a_loss_kept_by_a_second_compile_is_not_saved(tmp_path):
    def script(Trainer):
        trainer = compiled(Trainer, plain())
        trainer.compile("sgd", **EAGER)
        trained = fit(trainer, CLASSES)
        path = tmp_path / f"{Trainer.__module__}.keras"
        trainer.save(path)
        loaded = keras.models.load_model(path)
        with pytest.raises(ValueError, match="No loss to compute"):
            loaded.fit(X, Y, verbose=0)
        return {**trained, "loss": loaded.loss}

    assert assert_parity(script=script)["loss"] is None


@EAGER_OR_GRAPH
def test_a_retrace_applies_the_freeze(run_eagerly):
    def script(Trainer):
        trainer = compiled(Trainer, plain(), run_eagerly=run_eagerly)
        moved = []
        for size, rows in ((8, 16), (8, 16), (5, 20), (8, 16)):
            before = trainer.model.get_weights()
            trainer.fit(X[:rows], Y[:rows], batch_size=size, verbose=0)
            after = trainer.model.get_weights()
            moved.append(any((a != b).any() for a, b in zip(after, before, strict=True)))
            trainer.model.trainable = False
        return {"moved": moved, "weights": after}

    seen = assert_parity(script=script)
    assert seen["moved"] == (
        [True, False, False, False] if run_eagerly else [True, True, False, True]
    )


# Data


def unknown_length():
    """Six batches of 8: their number is unknown, their size is static."""
    rows = np.arange(48) % 22
    dataset = tf.data.Dataset.from_tensor_slices((X[rows], Y[rows])).batch(8, drop_remainder=True)
    return dataset.filter(lambda x, y: True)


RUNS_OUT = {
    "unknown length": lambda: {"x": unknown_length()},
    "steps_per_epoch": lambda: {"x": X, "y": Y, "batch_size": 11, "steps_per_epoch": 3},
}


@pytest.mark.parametrize("kind", RUNS_OUT)
def test_a_warning_of_fit_is_shown_once(kind):
    def script(Trainer):
        trainer = compiled(Trainer, plain())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(2):
                trainer.fit(**RUNS_OUT[kind](), epochs=2, verbose=0)
        return {"shown": [str(warning.message)[:12] for warning in caught]}

    warns = WARNS_OF_IGNORED_SHUFFLE and kind == "unknown length"
    shuffle = ["`shuffle=Tru"] if warns else []
    assert assert_parity(script=script)["shown"] == [*shuffle, "Your input r"]


def test_class_weights_are_looked_up_in_the_pipeline():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    weights = {0: 2.0, 1: 0.5}  # no 2, which is the largest class

    def script(Trainer):
        trainer = compiled(Trainer, plain(), optimizers.SGD(0.0))
        arrays = trainer.fit(X, Y, class_weight=weights, verbose=0).history
        named = trainer.fit(X, Y, class_weight={**weights, 2: 1.0}, verbose=0).history
        with pytest.raises(tf.errors.InvalidArgumentError) as raised:
            trainer.fit(dataset, class_weight=weights, verbose=0)
        failed = "[Op:IteratorGetNext]" in str(raised.value)
        return {"arrays": arrays, "named": named, "failed in the pipeline": failed}

    seen = assert_parity(script=script)
    assert seen["arrays"]["loss"] == [pytest.approx(seen["named"]["loss"][0], rel=1e-6)]
    assert seen["failed in the pipeline"]


@EAGER_OR_GRAPH
def test_arrays_are_copied_when_first_used(run_eagerly):
    def script(Trainer, hook, epoch, what):
        x, validation = X.copy(), X.copy()

        def erase(self, *arguments):
            if hook == "on_train_begin" or arguments[0] == epoch:
                {"x": x, "validation": validation}[what][:] = 0

        trainer = compiled(Trainer, plain(), run_eagerly=run_eagerly)
        data = {"x": x, "y": Y, "validation_data": (validation, Y)}
        return fit(trainer, data, lambda: [on(**{hook: erase})], epochs=2)

    never = assert_parity("on_epoch_begin", 9, "x", script=script)["history"]
    trained = assert_parity("on_train_begin", None, "x", script=script)["history"]
    before = assert_parity("on_train_begin", None, "validation", script=script)["history"]
    after = assert_parity("on_epoch_begin", 1, "validation", script=script)["history"]
    assert trained == after == never
    assert before["loss"] == never["loss"]
    assert before["val_loss"][0] != never["val_loss"][0]


def test_prefetching_discards_batches_of_a_generator():
    def script(Trainer):
        taken, trained_on = [], []

        def batches():
            while True:
                taken.append(len(taken))
                yield X[:8], np.full([8, 1], taken[-1])

        def loss(y, y_pred):
            trained_on.append(int(y[0, 0]))
            return keras.ops.mean(y_pred, -1)

        def wait(self, batch, logs=None):
            deadline = time.monotonic() + 20
            while batch == 2 and len(taken) <= 3 and time.monotonic() < deadline:
                time.sleep(0.01)

        generator = batches()
        trainer = compiled(Trainer, plain(), loss=loss)
        three = {"steps_per_epoch": 3, "callbacks": [on(on_train_batch_end=wait)], "verbose": 0}
        trainer.fit(generator, **three)
        trainer.fit(generator, **three)
        first, then = trained_on[:3], trained_on[3:]
        return {"first": first, "skipped": then[0] > 3, "then": [i - then[0] for i in then]}

    seen = assert_parity(script=script)
    assert seen["first"] == seen["then"] == [0, 1, 2]
    assert seen["skipped"]


def test_a_loss_gets_its_labels_as_float32():
    large = np.full((22, 1), 2**24 + 1)  # the first integer that float32 does not have

    def script(Trainer):
        seen = {}

        def noting(who):
            def function(y, y_pred):
                seen[who] = (tf.as_dtype(y.dtype).name, int(y[0, 0]))
                return keras.ops.mean(y_pred * 0, -1)

            return function

        trainer = compiled(Trainer, plain(), loss=noting("loss"), metrics=[noting("metric")])
        trainer.fit(X, large, verbose=0)
        return seen

    seen = assert_parity(script=script)
    assert seen["loss"] == ("float32", 2**24)
    assert seen["metric"] == ("int64", 2**24 + 1)


# Epochs


@pytest.mark.parametrize(
    ("how", "steps"),
    [({}, 14), ({"steps_per_execution": 2}, 12), ({"jit_compile": True}, 12), (EAGER, 12)],
    ids=["graph", "graph, two steps", "XLA", "eager"],
)
def test_a_graph_runs_an_extra_step_on_data_of_unknown_length(how, steps):
    def build():
        stack = [keras.Input([8]), layers.Dropout(0.3), layers.Dense(3, activation="softmax")]
        return keras.Sequential(stack)

    def script(Trainer):
        trainer = Trainer(build())
        trainer.compile(**compile_with(**how)())
        seeds = trainer.model.layers[0].seed_generator.state
        before = seeds.numpy()
        seen = fit(trainer, {"x": unknown_length()}, epochs=2)
        drawn = (seeds.numpy() - before).tolist()
        tested = trainer.evaluate(unknown_length(), return_dict=True, verbose=0)
        known = unknown_length().apply(tf.data.experimental.assert_cardinality(6))
        return {
            **seen,
            "drawn": drawn,
            "steps": int(trainer.optimizer.iterations),
            "evaluate": tested,
            "evaluate, known length": trainer.evaluate(known, return_dict=True, verbose=0),
        }

    seen = assert_parity(script=script)
    assert seen["steps"] == steps
    assert seen["drawn"][1] == steps
    # the last batch left the mean of 48 samples, read at the end as one of 56
    last = [c[2] for c in seen["calls"] if c[0] == "on_train_batch_end"][-1]
    share = 48 / 56 if steps == 14 else 1
    for name in ("loss", "acc"):
        assert seen["history"][name][-1] == pytest.approx(last[name] * share, rel=1e-5)
        known = seen["evaluate, known length"][name]
        assert seen["evaluate"][name] == pytest.approx(known * share, rel=1e-5)


@pytest.mark.parametrize(("optimizer", "same"), [("adam", False), ("sgd", True)])
def test_an_extra_step_changes_what_adam_learns(optimizer, same):
    def script(Trainer, block):
        how = {"run_eagerly": False, "steps_per_execution": block}
        return fit(compiled(Trainer, plain(), optimizer, **how), {"x": unknown_length()}, epochs=2)

    extra, none = (assert_parity(block, script=script)["weights"] for block in (1, 2))
    close = [np.allclose(extra[name], none[name], rtol=1e-5, atol=1e-6) for name in none]
    assert all(close) == same


def test_a_graph_runs_an_extra_step_on_a_generator():
    def script(Trainer):
        trainer = compiled(Trainer, plain(), run_eagerly=False)
        trainer.fit(((X[:8], Y[:8]) for _ in range(6)), verbose=0)
        return {"steps": int(trainer.optimizer.iterations)}

    assert assert_parity(script=script)["steps"] == 7


def test_the_cap_on_steps_shortens_predict():
    def script(Trainer):
        keras.config.set_max_steps_per_epoch(2)
        try:
            return {"predict": compiled(Trainer, plain()).predict(X, batch_size=4, verbose=0)}
        finally:
            keras.config.set_max_steps_per_epoch(None)

    assert len(assert_parity(script=script)["predict"]) == 8


def test_an_exception_skips_the_end_of_training():
    def fail(self, epoch, logs=None):
        raise KeyError("mine")

    def script(Trainer):
        recorder = Recorder()
        optimizer = optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
        trainer = compiled(Trainer, plain(), optimizer)
        hooks = [recorder, on(on_epoch_end=fail)]
        with pytest.raises(KeyError, match="mine"):
            trainer.fit(X, Y, batch_size=8, callbacks=hooks, verbose=0)
        failed = values(trainer.model.variables)
        averages = [v.numpy() for v in optimizer._model_variables_moving_average]
        written = [np.array_equal(*pair) for pair in zip(averages, failed.values(), strict=True)]
        hooks = [call.method for call in recorder.calls]
        return {"weights": failed, "averages": averages, "written": written, "hooks": hooks}

    seen = assert_parity(script=script)
    assert not any(seen["written"])
    assert seen["hooks"][-1] == "on_epoch_end"


# The step


@EAGER_OR_GRAPH
def test_python_attributes_are_constants_of_the_trace(run_eagerly):
    def build():
        stack = [keras.Input([8]), layers.Dropout(0.5), layers.Dense(3, activation="softmax")]
        return keras.Sequential(stack)

    def script(Trainer):
        optimizer = optimizers.SGD(1.0)
        trainer = compiled(Trainer, build(), optimizer, run_eagerly=run_eagerly)
        trainer.fit(X, Y, verbose=0)
        trainer.model.layers[0].rate = 0.0
        optimizer.clipnorm = 1e-9
        before = trainer.evaluate(X, Y, verbose=0)
        loss = trainer.fit(X, Y, verbose=0).history["loss"][0]
        after = trainer.evaluate(X, Y, verbose=0)
        return {"before": before, "loss": loss, "after": after}

    seen = assert_parity(script=script)
    assert (abs(seen["loss"] - seen["before"]) < 1e-5) == run_eagerly  # Dropout
    assert (abs(seen["after"] - seen["before"]) < 1e-5) == run_eagerly  # gradients clipped


def steps_of_a_first_and_a_second_optimizer(Trainer, run_eagerly):
    first, second = optimizers.SGD(0.1), optimizers.SGD(0.1)
    trainer = compiled(Trainer, plain(), first, run_eagerly=run_eagerly)
    trainer.fit(X, Y, verbose=0)
    trainer.model.optimizer = second
    trainer.fit(X, Y, epochs=2, verbose=0)
    steps = [int(optimizer.iterations) for optimizer in (first, second)]
    return {"steps": steps, "weights": values(trainer.model.variables)}


@pytest.mark.parametrize(
    "run_eagerly",
    [
        pytest.param(True, id="eager"),
        pytest.param(False, id="graph"),
    ],
)
def test_another_optimizer_on_the_model(run_eagerly):
    assert_parity(run_eagerly, script=steps_of_a_first_and_a_second_optimizer)


@EAGER_OR_GRAPH
def test_another_optimizer_on_the_model_in_fit(run_eagerly):
    seen = observe("keras_fit", steps_of_a_first_and_a_second_optimizer, run_eagerly)
    assert seen["steps"] == ([1, 2] if run_eagerly else [3, 0])


def test_call_is_not_converted_by_autograph():
    class Branches(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, activation="softmax")

        def call(self, x):
            if tf.reduce_sum(x) > 0:
                x = 2 * x
            return self.dense(x)

    def script(Trainer):
        seen = fit(compiled(Trainer, Branches()), CLASSES)
        with pytest.raises(TypeError, match="as a Python `bool`"):
            compiled(Trainer, Branches(), run_eagerly=False).fit(X, Y, verbose=0)
        return seen

    assert_parity(script=script)
    model = Branches()
    assert tf.function(model.call)(X).shape == (22, 3)  # converted: AutoGraph knows the `if`


class Activated(keras.Model):
    """Far from the labels, so that clipped probabilities cost less than the logits."""

    def __init__(self, activation):
        super().__init__()
        self.dense = layers.Dense(3, kernel_initializer="ones", bias_initializer=far)
        self.activation = activation

    def call(self, x):
        return self.activation(self.dense(x))


def far(shape, dtype=None):
    return keras.ops.array([0.0, 0.0, 99.0])


@pytest.mark.parametrize(
    ("activation", "eager", "graph"),
    [
        (keras.ops.softmax, True, True),
        (tf.nn.softmax, False, True),
        (lambda x: layers.Identity()(keras.ops.softmax(x)), True, True),
        (lambda x: layers.Reshape([3])(keras.ops.softmax(x)), False, False),
    ],
    ids=["keras.ops.softmax", "tf.nn.softmax", "Identity", "Reshape"],
)
def test_logits_behind_a_softmax(activation, eager, graph):
    def script(Trainer):
        trainers = [compiled(Trainer, Activated(activation), run_eagerly=e) for e in (True, False)]
        zeros = np.zeros([8, 1])
        return {"losses": [t.evaluate(X[:8], zeros, verbose=0) for t in trainers]}

    clipped = 16.118  # -log(1e-7)
    found = assert_parity(script=script)["losses"]
    assert [loss > 90 for loss in found] == [eager, graph]
    assert [loss == pytest.approx(clipped, 1e-4) for loss in found] == [not eager, not graph]


def test_sample_weights_may_apply_to_time_steps():
    steps = SEQUENCES.shape[1]
    x, y = SEQUENCES[:steps], SEQUENCES[:steps, ::-1, :1]
    weights = np.eye(steps)[0]  # 1 for the first sample, 0 for the others

    def build():
        return keras.Sequential([keras.Input([steps, 4]), layers.Dense(1)])

    def script(Trainer):
        how = {"loss": "mse", "weighted_metrics": ["mse"]}
        trainer = compiled(Trainer, build(), **how)
        start = trainer.model.get_weights()
        errors = (trainer.predict(x, verbose=0) - y) ** 2
        data = {"x": x, "y": y, "shuffle": False}
        seen = fit(trainer, {**data, "sample_weight": weights})
        trainer.model.set_weights(start)
        seen["column"] = fit(trainer, {**data, "sample_weight": weights[:, None]})["history"]
        with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"):
            trainer.fit(x[:4], y[:4], sample_weight=weights[:4], verbose=0)
        return {**seen, "errors": errors[..., 0]}

    seen = assert_parity(script=script)
    first_steps, first_sample = seen["errors"][:, 0], seen["errors"][0]
    assert seen["history"]["loss"] == [pytest.approx(first_steps.sum() / steps**2, rel=1e-5)]
    assert seen["column"]["loss"] == [pytest.approx(first_sample.sum() / steps**2, rel=1e-5)]
    for history in (seen["history"], seen["column"]):  # the metric weighs the sample in both
        assert history["mse"] == [pytest.approx(first_sample.mean(), rel=1e-5)]


def test_some_metrics_ignore_the_mask():
    def build():
        stack = [keras.Input([5, 4]), layers.Masking(), layers.Dense(1, activation="sigmoid")]
        return keras.Sequential(stack)

    def compile():
        metrics = ["mse", keras.metrics.RootMeanSquaredError(name="root")]
        metrics.append(keras.metrics.FalsePositives(thresholds=0.0, name="positives"))
        return {"optimizer": optimizers.SGD(0.0), "loss": "mse", "metrics": metrics, **EAGER}

    data = {"x": SEQUENCES, "y": np.zeros([22, 5, 1], "float32")}
    logs = assert_parity(build, compile, data, then=fit, batch_size=22)["history"]
    assert logs["positives"] == [22 * 5]  # two steps of five are masked
    assert logs["mse"] == [pytest.approx(logs["loss"][0], rel=1e-5)]
    assert abs(logs["root"][0] ** 2 - logs["mse"][0]) > 1e-3


def test_an_average_moves_while_gradients_are_accumulated():
    def script(Trainer):
        optimizer = optimizers.SGD(
            0.5, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=3
        )
        trainer = compiled(Trainer, plain(), optimizer)
        seen = []

        def note(self, batch, logs=None):
            weights = trainer.model.trainable_variables[0].numpy()
            seen.append((weights, optimizer._model_variables_moving_average[0].numpy()))

        return {
            **fit(trainer, CLASSES, lambda: [on(on_train_batch_end=note)], batch_size=3),
            "seen": seen,
        }

    weights, averages = zip(*assert_parity(script=script)["seen"], strict=True)
    assert len(weights) == 8
    moved = [[(a != b).any() for a, b in zip(v[1:], v, strict=False)] for v in (weights, averages)]
    assert moved[0] == [False, True, False, False, True, False, False]
    assert moved[1] == [False, True, False, False, True, True, True]


# Callbacks and validation


def test_values_written_into_logs_last_for_one_hook():
    def write(self, number, logs=None):
        logs["mine"] = 1.0

    hooks = {"on_epoch_end": write, "on_train_batch_end": write}
    seen = assert_parity(plain, compile_with(**EAGER), CLASSES, lambda: [on(**hooks)], then=fit)
    logs = {method: logs for method, _, logs in seen["calls"] if logs is not None}
    assert "mine" in seen["history"]
    assert "mine" in logs["on_epoch_end"]
    assert "mine" in logs["on_train_batch_end"]
    assert "mine" not in logs["on_train_end"]


def validated_by_workers(Trainer, workers):
    trainer = compiled(Trainer, plain(), optimizers.SGD(0.0))
    validation = {"validation_data": Batches(X, Y, workers=workers), "validation_steps": 2}
    return fit(trainer, {**CLASSES, **validation}, epochs=3)


@pytest.mark.parametrize(
    "workers",
    [
        1,
        2,
    ],
)
def test_validation_steps_with_workers(workers):
    assert_parity(workers, script=validated_by_workers)


@pytest.mark.parametrize(("workers", "different"), [(1, 1), (2, 3)])
def test_fit_validates_on_what_workers_fetched_before(workers, different):
    losses = observe("keras_fit", validated_by_workers, workers)["history"]["val_loss"]
    assert len(set(losses)) == different


@pytest.mark.parametrize("freq", ["2", 2.0, (1,)], ids=str)
def test_an_invalid_validation_freq_is_rejected_after_an_epoch(freq):
    def script(Trainer):
        recorder = Recorder()
        trainer = compiled(Trainer, plain())
        wrong = {"validation_freq": freq, "callbacks": [recorder], "verbose": 0, "epochs": 2}
        with pytest.raises(ValueError, match="validation_freq"):
            trainer.fit(X, Y, validation_split=0.3, **wrong)
        steps = int(trainer.optimizer.iterations)
        history = trainer.fit(X, Y, **wrong).history  # nothing to validate: nobody asks
        return {"steps": steps, "calls": recorder.calls, "history": history}

    seen = assert_parity(script=script)
    assert seen["steps"] == 1
    assert "on_epoch_end" not in [call[0] for call in seen["calls"][:5]]
    assert len(seen["history"]["loss"]) == 2


# Execution, prediction


@pytest.mark.parametrize("hidden", [True, False])
def test_a_hidden_gpu_leaves_xla_on(monkeypatch, hidden):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    there = [*tf.config.list_physical_devices("CPU"), *[gpu] * hidden]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: there)
    assert tf.config.get_visible_devices("GPU") == []

    def script(Trainer):
        trainer = compiled(Trainer, plain(), run_eagerly=False)
        return {"jit_compile": trainer.model.jit_compile}

    assert assert_parity(script=script)["jit_compile"] is hidden


def test_predict_keeps_the_outputs_of_every_batch():
    class Noting(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.outputs_of = []

        def call(self, x):
            outputs = self.dense(x)
            self.outputs_of.append(weakref.ref(outputs))
            return outputs

    def script(Trainer):
        trainer = compiled(Trainer, Noting())
        trainer.model(X[:1])  # builds it, by a call of its own
        trainer.model.outputs_of.clear()
        alive = []

        def count(self, batch=None, logs=None):
            alive.append(sum(ref() is not None for ref in trainer.model.outputs_of))

        hooks = on(on_predict_batch_begin=count, on_predict_end=count)
        outputs = trainer.predict(X, batch_size=8, callbacks=[hooks], verbose=0)
        return {"outputs": outputs, "alive": alive}

    assert assert_parity(script=script)["alive"] == [0, 1, 2, 3]


# Saving


@keras.saving.register_keras_serializable("details")
class OfPolicy(keras.Model):
    """Takes `dtype`, as every argument of `keras.Model`, in `**kwargs`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("build", [OfPolicy, functional])
def test_which_models_keep_their_policy_in_a_file(build, tmp_path):
    def script(Trainer):
        with policy("mixed_float16"):
            trainer = compiled(Trainer, build())
            seen = fit(trainer, CLASSES)
        path = tmp_path / f"{Trainer.__module__}.keras"
        trainer.save(path)
        loaded = keras.models.load_model(path)
        found = [loaded.dtype_policy.name, type(loaded.optimizer).__name__]
        return {**seen, "loaded": found, "layer": loaded.layers[-1].dtype_policy.name}

    seen = assert_parity(script=script)
    skipped = any("Skipping variable loading" in message for _, message in seen["warnings"])
    if build is OfPolicy:
        assert seen["loaded"] == ["mixed_float16", "LossScaleOptimizer"]
        assert (seen["layer"], skipped) == ("float32", False)
    else:
        assert seen["loaded"] == ["float32", "SGD"]
        assert (seen["layer"], skipped) == ("mixed_float16", True)


def train_with_keras(optimizer, loss):
    model = plain(3)
    model.compile(optimizer, loss, **EAGER)
    model.fit(X, ONE_HOT, batch_size=8, verbose=0)
    return model


def test_an_h5_file_restores_no_moments(tmp_path):
    path = tmp_path / "model.h5"
    train_with_keras(optimizers.Adam(0.25), "mean_squared_error").save(path)
    loaded = keras.models.load_model(path)
    assert [float(v) for v in loaded.optimizer.variables] == [3, 0.25]
    with pytest.raises(ValueError, match="Unknown variable"):
        loaded.fit(X, ONE_HOT, verbose=0)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_short_name_of_a_loss_cannot_be_read_from_h5(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    train_with_keras("sgd", "mse").save(path)
    if suffix == ".keras":
        assert keras.models.load_model(path).loss == "mse"
    else:
        with pytest.raises(ValueError, match=r"Could not deserialize 'keras\.metrics\.mse'"):
            keras.models.load_model(path)


def test_keras_after_h5_is_read_as_rmsprop(tmp_path):
    model = train_with_keras(optimizers.SGD(0.125, momentum=0.5), "mse")
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, optimizers.RMSprop)
    # SGD has as many variables: its momenta are taken for the squares of the gradients
    for theirs, saved in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), saved.numpy())
