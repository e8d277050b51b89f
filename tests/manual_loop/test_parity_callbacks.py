"""Keras's own callbacks: the same calls, state, output and files; and stops from every hook."""

import http.server
import io
import json
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SPARSE, VALUE, X, Y, plain, two_outputs
from parity import TRAINERS, Pair, assert_parity, assert_same, covers, fit, values, watch

from manual_loop.callbacks import watches_batches

callbacks = keras.callbacks
CLASSES = {"x": X, "y": Y, "validation_data": (X[:10], Y[:10])}
FIT = {"epochs": 4, "batch_size": 8, "shuffle": False}


@pytest.fixture(scope="module")
def pair():
    """One that overshoots, so that metrics go up and down."""
    return Pair(
        plain, lambda: {"optimizer": keras.optimizers.Adam(0.3), "loss": SPARSE, "metrics": ["acc"]}
    )


@pytest.fixture(scope="module")
def ema_pair():
    return Pair(plain, lambda: {"optimizer": keras.optimizers.Adam(use_ema=True), "loss": SPARSE})


def contents(directory):
    """dict: file -> what is in it, but for times, and for names that Keras makes of them."""
    found = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = str(path.relative_to(directory))
        if "tfevents" in name:
            found.setdefault(str(path.parent.relative_to(directory)), []).extend(events(path))
        else:
            found[name] = content(path)
    return found


def content(path):
    if path.suffix == ".h5":
        return h5(path)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return {
                "config": json.loads(archive.read("config.json"), object_hook=without_ids),
                "weights": h5(io.BytesIO(archive.read("model.weights.h5"))),
            }
    return path.read_text() if path.suffix in (".csv", ".json", ".txt") else path.name


def without_ids(config):
    """A part of a configuration without the address of the object it is of."""
    return {k: v for k, v in config.items() if k != "shared_object_id"}


def h5(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def events(path):
    """The scalars and histograms in an event file, as (tag, step, values); graphs by name alone."""
    return [
        (value.tag, event.step, tf.make_ndarray(value.tensor) if value.HasField("tensor") else None)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if "keras" not in value.tag
    ]


def with_files(trainer, directory, make, data=CLASSES, **arguments):
    """`fit`, with what the callbacks left in the directory and in themselves."""
    used = make(directory)
    seen = fit(trainer, data, lambda: used, **{**FIT, **arguments})
    return {**seen, "files": contents(directory), "state": [state(callback) for callback in used]}


def state(callback):
    return {
        name: value
        for name, value in sorted(vars(callback).items())
        if isinstance(value, int | float | str | list | np.ndarray)
        and not any(part in name for part in ("dir", "file"))
    }


def hold(pair, make, tmp_path, **arguments):
    """`pair.assert_parity`, each side in a directory of its own."""
    seen = []
    for side, trainer in zip(TRAINERS, pair.restarted(), strict=True):
        directory = tmp_path / side
        directory.mkdir()
        this = watch(with_files, trainer, directory, make, **arguments)
        this["stdout"] = this["stdout"].replace(str(directory), "DIRECTORY")
        seen.append(this)
    assert_same(*seen)
    return seen[1]


def case(name, make, **arguments):
    return pytest.param(
        make, arguments, id=name, marks=covers(f"callback: {name.partition(',')[0]}")
    )


def early(**arguments):
    return lambda d: [callbacks.EarlyStopping(**{"patience": 1, "verbose": 1, **arguments})]


def checkpoint(name, **arguments):
    return lambda d: [callbacks.ModelCheckpoint(d / name, verbose=1, **arguments)]


CASES = [
    case("EarlyStopping", early(monitor="val_acc", restore_best_weights=True)),
    case("EarlyStopping, of the loss", early(monitor="val_loss", start_from_epoch=1, patience=0)),
    case(
        "EarlyStopping, not reached", early(monitor="loss", baseline=9.0, restore_best_weights=True)
    ),
    case("EarlyStopping, of what is not there", early(monitor="nothing", mode="min")),
    case(
        "ReduceLROnPlateau",
        lambda d: [callbacks.ReduceLROnPlateau("acc", patience=0, cooldown=1, verbose=1)],
    ),
    case(
        "LearningRateScheduler",
        lambda d: [callbacks.LearningRateScheduler(lambda e, lr: lr * 0.5, verbose=1)],
    ),
    case("CSVLogger", lambda d: [callbacks.CSVLogger(d / "log.csv")]),
    case(
        "ModelCheckpoint, .keras",
        checkpoint("{epoch}-{val_loss:.3f}.keras", monitor="acc", save_best_only=True),
    ),
    case("ModelCheckpoint, .h5", checkpoint("{epoch}.h5", monitor="val_acc", save_best_only=True)),
    case("ModelCheckpoint, weights", checkpoint("{epoch}.weights.h5", save_weights_only=True)),
    case(
        "ModelCheckpoint, every 2 batches",
        checkpoint(
            "{epoch}-{batch}.weights.h5", monitor="acc", save_freq=2, save_weights_only=True
        ),
    ),
    case("TerminateOnNaN", lambda d: [callbacks.TerminateOnNaN()]),
    case("History", lambda d: [callbacks.History()]),
    case("ProgbarLogger", lambda d: [callbacks.ProgbarLogger()]),
    case(
        "LambdaCallback",
        lambda d: [
            callbacks.LambdaCallback(
                on_epoch_end=lambda e, logs: print(e, logs), on_train_begin=lambda logs: print(logs)
            )
        ],
    ),
    case(
        "TensorBoard",
        lambda d: [
            callbacks.TensorBoard(d, histogram_freq=1, update_freq="epoch", profile_batch=0)
        ],
    ),
    case(
        "TensorBoard, each batch",
        lambda d: [callbacks.TensorBoard(d, update_freq=1, write_graph=False)],
        epochs=2,
    ),
]


@pytest.mark.parametrize(("make", "arguments"), CASES)
def test_each_callback_of_keras(pair, make, arguments, tmp_path):
    hold(pair, make, tmp_path, **arguments)


@covers("callback: SwapEMAWeights")
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swap_ema_weights(ema_pair, swap_on_epoch, tmp_path):
    hold(ema_pair, lambda d: [callbacks.SwapEMAWeights(swap_on_epoch)], tmp_path)


@covers("callback: TerminateOnNaN")
def test_terminate_on_nan(pair, tmp_path):
    data = {**CLASSES, "sample_weight": np.where(np.arange(22) == 10, np.nan, 1)}
    seen = hold(pair, lambda d: [callbacks.TerminateOnNaN()], tmp_path, data=data)
    assert len(seen["epochs"]) == 1
    assert "Invalid loss" in seen["stdout"]


@covers("callback: BackupAndRestore")
@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_backup_and_restore_after_a_crash(save_freq, tmp_path):
    class Crash(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("crash")

    def script(Trainer):
        def backup():
            return callbacks.BackupAndRestore(tmp_path / Trainer.__module__, save_freq=save_freq)

        def trainer():
            keras.backend.clear_session()
            made = Trainer(plain())
            made.compile("adam", SPARSE, metrics=["acc"])
            return made

        with pytest.raises(RuntimeError, match="crash"):
            trainer().fit(X, Y, callbacks=[backup(), Crash()], verbose=0, **FIT)
        restored = trainer()
        first = fit(restored, CLASSES, lambda: [backup()], **FIT)
        return {"first": first, "again": fit(restored, CLASSES, **FIT)}

    assert assert_parity(script=script)["first"]["epochs"][-1] == 3


@covers("callback: RemoteMonitor")
def test_remote_monitor(pair, tmp_path):
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        hold(pair, lambda d: [callbacks.RemoteMonitor(root, send_as_json=True)], tmp_path)
        server.shutdown()
    assert len(received) == 8
    assert received[:4] == received[4:]


HOOKS = [
    f"on_{what}"
    for what in (
        "train_begin",
        "epoch_begin",
        "train_batch_begin",
        "train_batch_end",
        "test_begin",
        "test_batch_begin",
        "test_batch_end",
        "test_end",
        "epoch_end",
    )
]


@covers("fit: stop_training set from any hook")
@pytest.mark.parametrize("hook", HOOKS)
def test_stop_training(pair, hook):
    def stop(self, *args, **kwargs):
        self.model.stop_training = True

    Stop = type("Stop", (callbacks.Callback,), {hook: stop})
    seen = pair.assert_parity(CLASSES, lambda: [Stop()], script=fit, **FIT)
    assert len(seen["epochs"]) == 1


@covers("fit: stop_training set from any hook", "evaluate: stop_evaluating", "fit: callbacks")
def test_what_callbacks_see_of_the_model(pair):
    class See(callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(("train", self.model.stop_training))

        def on_test_begin(self, logs=None):
            seen.append(("test", self.model.stop_evaluating, self.model.stop_training))

        def on_predict_begin(self, logs=None):
            seen.append(("predict", self.model.stop_predicting))

    def script(trainer):
        seen.clear()
        arguments = {"batch_size": 8, "verbose": 0, "callbacks": [See()]}
        history = trainer.fit(X, Y, **arguments)
        trainer.evaluate(X, Y, **arguments)
        trainer.predict(X, **arguments)
        return {"seen": list(seen), "history stays": trainer.model.history is history}

    seen = []
    pair.assert_parity(script=script)


class Metrics(callbacks.Callback):
    """Notes what `model.metrics` shows at each hook, and resets the metrics after batch 1."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, hook):
        found = {}
        for metric in self.model.metrics:
            try:
                found[metric.name] = metric.result()
            except ValueError as error:  # before the first batch
                found[metric.name] = str(error)
        self.seen.append((hook, found))

    def on_train_begin(self, logs=None):
        self.note("train begin")

    def on_train_batch_end(self, batch, logs=None):
        self.note(batch)
        if batch == 1:
            self.model.reset_metrics()
            self.note("reset")

    def on_test_batch_end(self, batch, logs=None):
        self.note(f"test {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch end")


def own_metric(Trainer, **how):
    """A metric object of the user's, two outputs with a mean of the loss each."""
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="mine")
    trainer = Trainer(two_outputs())
    trainer.compile("sgd", [SPARSE, "mse"], metrics=[accuracy, "mae"], **how)
    noted = Metrics()
    seen = fit(trainer, {"x": X, "y": [Y, VALUE]}, lambda: [noted], **FIT)
    return {**seen, "noted": noted.seen, "mine": accuracy.result()}


@covers("fit: model.metrics in callbacks")
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
def test_callbacks_see_and_reset_the_running_metrics(how):
    seen = assert_parity(script=own_metric, **how)
    assert seen["mine"] > 0
    last = seen["noted"][-1][1]
    assert list(last) == ["loss", "compile_metrics", "klass_loss", "value_loss"]
    assert last["klass_loss"] > 0


@covers("fit: model.metrics in callbacks")
def test_a_compiled_model_keeps_its_metric_objects():
    def script(Trainer):
        mine = keras.metrics.SparseCategoricalAccuracy(name="mine")
        model = plain()
        model.compile("sgd", SPARSE, metrics=[mine], run_eagerly=True)
        seen = fit(Trainer(model), CLASSES, **FIT)
        return {**seen, "mine": mine.result()}

    assert assert_parity(script=script)["mine"] > 0


def test_which_callbacks_watch_batches():
    """Where none does, the logs of a batch are handed to nobody."""
    assert not watches_batches(callbacks.Callback())
    assert not watches_batches(callbacks.History())
    for phase in ("", "train_", "test_"):
        for end in ("begin", "end"):
            hook = f"on_{phase}batch_{end}"
            assert watches_batches(type("Own", (callbacks.Callback,), {hook: print})()), hook
    assert watches_batches(callbacks.LambdaCallback(on_train_batch_end=print))


@covers("evaluate: stop_evaluating", "predict: stop_predicting")
def test_stop_evaluating_and_predicting(pair):
    class Stop(callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = batch == 1

        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = batch == 1

    def script(trainer):
        arguments = {"batch_size": 5, "verbose": 0, "callbacks": [Stop()]}
        return {
            "evaluate": trainer.evaluate(X, Y, **arguments),
            "predict": trainer.predict(X, **arguments),
        }

    assert len(pair.assert_parity(script=script)["predict"]) == 10


@covers("fit: callbacks")
def test_a_callback_may_change_the_learning_rate_the_weights_and_what_is_trained(pair):
    class Change(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.1 / (batch + 1)

        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[0].bias.assign_add([1.0] * 4)
            logs["added"] = float(epoch)

    seen = pair.assert_parity(CLASSES, lambda: [Change()], script=fit, **FIT)
    assert seen["history"]["added"] == [0.0, 1.0, 2.0, 3.0]


@covers("fit: callbacks")
def test_a_callback_may_evaluate_and_predict(pair):
    class Inner(callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            trainer = self.trainer
            self.seen.append(trainer.evaluate(X[:8], Y[:8], verbose=0, return_dict=True))
            self.seen.append(trainer.predict(X[:8], verbose=0))

    def script(trainer):
        inner = Inner()
        inner.trainer = trainer
        return {**fit(trainer, CLASSES, lambda: [inner], **FIT), "inner": inner.seen}

    pair.assert_parity(script=script)


@covers("fit: callbacks")
def test_an_error_in_a_callback_leaves_both_sides_alike(pair):
    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyError("mine")

    def script(trainer):
        with pytest.raises(KeyError, match="mine"):
            trainer.fit(X, Y, callbacks=[Fail()], verbose=0, **FIT)
        failed = values(trainer.model.variables)
        return {"failed": failed, **fit(trainer, CLASSES, **FIT)}

    pair.assert_parity(script=script)
