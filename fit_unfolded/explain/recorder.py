"""Recording objects: callback, layers, losses, metrics, optimizer and data note each call they get.

Nothing in Keras is patched. An object that the trainer really uses becomes an instance of a
subclass of its own class, made for it alone, in which some methods note the call and then do what
they always do. Only the tape has to be watched in TensorFlow's class: a step makes a new one.
"""

import contextlib
import functools
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.explain.events import Event, Line
from fit_unfolded.explain.lines import Package, caller

Describe = Callable[[tuple, dict[str, Any], Any], str]


@dataclass
class Note:
    """An event as it is being taken down; the place is that of the moment."""

    source: str
    call: str
    detail: str
    phase: str
    epoch: int | None
    batch: int | None
    line: Line
    stack: tuple[Line, ...]
    taped: bool


class Recording:
    """What the recording objects of one side noted.

    Calls are noted between `on_train_begin` and `on_train_end`, and only those that compute: what
    Keras calls with symbolic tensors, to learn their shapes, is not part of the training.

    Args:
        package: the source to point at.
    """

    def __init__(self, package: Package):
        self.callback = RecordingCallback(self)
        self._package = package
        self._notes: list[Note] = []
        self._recorded: dict[int, Any] = {}  # keeps the objects, so that no id is used twice
        self.on = False
        self.phase = ""
        self.epoch: int | None = None
        self.batch: int | None = None
        self._tapes = 0  # entered and not left
        self._layers: list[tuple[Any, str]] = []
        self._weights: dict[int, str] = {}  # id of a tf.Variable -> its layer's name and its own

    @property
    def events(self) -> list[Event]:
        """The events in order."""
        return [Event(**vars(note)) for note in self._notes]

    def note(self, source: str, call: str, detail: str = "") -> Note | None:
        """Takes down one call of the function that calls this one."""
        if not (self.on and tf.executing_eagerly()):
            return None
        frame = caller()
        line, _ = self._package.nearest(frame)
        stack = self._package.stack(frame)
        place = self.phase, self.epoch, self.batch
        note = Note(source, call, detail, *place, line, stack, self._tapes > 0)
        self._notes.append(note)
        return note

    def between_epochs(self, epoch: int) -> None:
        """What was noted since the last epoch ended belongs to the epoch that begins now."""
        for note in reversed(self._notes):
            if note.source == "callback":
                break
            note.phase, note.epoch = "train", epoch

    def layers(self, layers: Iterable[Any], names: Iterable[str]) -> None:
        """Records `call` of each layer, under a name."""
        self._layers = list(zip(layers, names, strict=True))
        for layer, name in self._layers:
            self._record(layer, "layer", name, call=_layer_call)

    def losses(self, losses: Iterable[Any]) -> None:
        """Records each call of a `keras.losses.Loss`, with its value."""
        for loss in losses:
            self._record(loss, "loss", loss.name, __call__=_loss_call)

    def metrics(self, metrics: Iterable[Any]) -> None:
        """Records updates, results and resets of each `keras.metrics.Metric`."""
        for metric in metrics:
            self._record(
                metric,
                "metric",
                metric.name,
                update_state=_update_state,
                result=_result,
                reset_state=_nothing,
            )

    def optimizer(self, optimizer: Any) -> None:
        """Records what a trainer asks of an optimizer, and of the one inside."""
        self._record(
            optimizer,
            "optimizer",
            re.sub(r"_\d+$", "", optimizer.name),
            scale_loss=_scale_loss,
            apply=_apply,
            update_step=self._update,
            finalize_variable_values=_finalize,
        )
        inner = getattr(optimizer, "inner_optimizer", None)
        if inner is not None:
            self.optimizer(inner)

    @contextlib.contextmanager
    def tapes(self) -> Iterator[None]:
        """Records, within this block, each `tf.GradientTape` that is entered, left or asked."""
        cls = tf.GradientTape
        enter, leave, gradient = cls.__enter__, cls.__exit__, cls.gradient

        @functools.wraps(enter)
        def entered(tape):
            entered_tape = enter(tape)
            if self.note("tape", "tape.enter") is not None:
                self._tapes += 1
            return entered_tape

        @functools.wraps(leave)
        def left(tape, *raised):
            self._tapes = max(0, self._tapes - 1)
            self.note("tape", "tape.exit")
            return leave(tape, *raised)

        @functools.wraps(gradient)
        def asked(tape, target, *args, **kwargs):
            note = self.note("tape", "tape.gradient")
            gradients = gradient(tape, target, *args, **kwargs)
            if note is not None:
                note.detail = f"{brief(target)} -> {len(keras.tree.flatten(gradients))} gradients"
            return gradients

        try:
            cls.__enter__, cls.__exit__, cls.gradient = entered, left, asked
            yield
        finally:
            cls.__enter__, cls.__exit__, cls.gradient = enter, leave, gradient

    def _update(self, args: tuple, kwargs: dict[str, Any], _: Any) -> str:
        """Name and shape of the variable that `update_step(gradient, variable, ...)` is given."""
        variable = args[1] if len(args) > 1 else kwargs["variable"]
        if id(variable) not in self._weights:
            # models first, what is in them after: the last name is that of the owner
            self._weights = {
                id(weight.value): f"{name}.{weight.name}"
                for layer, name in self._layers
                for weight in layer.weights
            }
        return " ".join(filter(None, [self._weights.get(id(variable)), brief(variable)]))

    def data(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Records each pass over `dataset` and each batch taken."""

        original = type(dataset).__iter__

        def iterate(self_):
            note = self.note("data", "iter", "new pass over the data")
            iterator = original(self_)
            if note is not None:
                self._iterator(iterator)
            return iterator

        become(dataset, {"__iter__": iterate})
        return dataset

    def _iterator(self, iterator: Any) -> None:
        cls = type(iterator)

        def taking(name):
            original = getattr(cls, name)

            @functools.wraps(original)
            def take(self_):
                note = self.note("data", "batch", "none left")
                batch = original(self_)
                if note is not None and (name != "get_next_as_optional" or batch.has_value()):
                    value = batch.get_value() if name == "get_next_as_optional" else batch
                    note.detail = _batch(value)
                return batch

            return take

        names = ("get_next", "__next__", "get_next_as_optional")
        become(iterator, {name: taking(name) for name in names})

    def _record(self, thing: Any, source: str, name: str, **methods: Describe) -> None:
        if id(thing) in self._recorded:
            return
        self._recorded[id(thing)] = thing
        become(
            thing,
            {
                method: self._recorded_method(getattr(type(thing), method), source, name, describe)
                for method, describe in methods.items()
            },
        )

    def _recorded_method(self, original, source: str, name: str, describe: Describe):
        call = f"{name}.{original.__name__.strip('_')}"

        @functools.wraps(original)  # Keras reads the signature of `call`
        def recorded(self_, *args, **kwargs):
            note = self.note(source, call)
            result = original(self_, *args, **kwargs)
            if note is not None:
                note.detail = describe(args, kwargs, result)
            return result

        return recorded


def become(thing: Any, methods: dict[str, Callable]) -> None:
    """Makes `thing` an instance of a subclass of its class, with `methods` of its own."""
    cls = type(thing)
    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, **methods}
    subclass = types.new_class(cls.__name__, (cls,), exec_body=lambda names: names.update(body))
    # past the __setattr__ of Keras and TensorFlow, which would track the class as a value
    object.__setattr__(thing, "__class__", subclass)


class RecordingCallback(keras.callbacks.Callback):
    """Notes each call of a callback, and knows where in epoch and batch the training is."""

    def __init__(self, recording: Recording):
        super().__init__()
        self._recording = recording

    def on_train_begin(self, logs=None):
        self._recording.on = True
        self._recording.note("callback", "on_train_begin")

    def on_train_end(self, logs=None):
        self._recording.note("callback", "on_train_end", _logs(logs))
        self._recording.on = False

    def on_epoch_begin(self, epoch, logs=None):
        recording = self._recording
        recording.between_epochs(epoch)
        recording.epoch, recording.phase = epoch, "train"
        recording.note("callback", "on_epoch_begin", f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        recording = self._recording
        recording.note("callback", "on_epoch_end", _join(f"epoch {epoch}", _logs(logs)))
        recording.epoch, recording.phase = None, ""

    def on_train_batch_begin(self, batch, logs=None):
        self._recording.batch = batch
        self._recording.note("callback", "on_train_batch_begin", f"batch {batch}")

    def on_train_batch_end(self, batch, logs=None):
        detail = _join(f"batch {batch}", _logs(logs))
        self._recording.note("callback", "on_train_batch_end", detail)
        self._recording.batch = None

    def on_test_begin(self, logs=None):
        self._recording.phase = "validation"
        self._recording.note("callback", "on_test_begin")

    def on_test_end(self, logs=None):
        self._recording.note("callback", "on_test_end", _logs(logs))
        self._recording.phase = "train"

    def on_test_batch_begin(self, batch, logs=None):
        self._recording.batch = batch
        self._recording.note("callback", "on_test_batch_begin", f"batch {batch}")

    def on_test_batch_end(self, batch, logs=None):
        detail = _join(f"batch {batch}", _logs(logs))
        self._recording.note("callback", "on_test_batch_end", detail)
        self._recording.batch = None


def all_layers(model: Any) -> Iterator[Any]:
    """The model and the layers in it, models in it included, in order; each once."""
    seen: set[int] = set()

    def walk(layer):
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            return
        seen.add(id(layer))
        yield layer
        for inner in getattr(layer, "layers", ()):
            yield from walk(inner)

    return walk(model)


def brief(value: Any) -> str:
    """A scalar by its value, everything else by its shape."""
    if keras.tree.is_nested(value):
        return "(" + ", ".join(brief(part) for part in keras.tree.flatten(value)) + ")"
    if isinstance(value, float):
        value = np.float32(value)
    if not hasattr(value, "shape"):
        return str(value)
    if len(value.shape):
        return str([int(size) if size is not None else None for size in value.shape])
    value = np.asarray(value)
    return str(np.float32(value)) if value.dtype.kind == "f" else str(value)


def _named(**values: Any) -> str:
    return _join(*(f"{name} {brief(value)}" for name, value in values.items() if value is not None))


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _logs(logs: dict[str, Any] | None) -> str:
    return _named(**(logs or {}))


def _batch(batch: Any) -> str:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return _named(x=x, y=y, sample_weight=sample_weight)


def _layer_call(args: tuple, kwargs: dict[str, Any], outputs: Any) -> str:
    training = kwargs.get("training")
    inputs = args[0] if args else next(iter(kwargs.values()))
    told = "" if training is None else f"training={training}"
    return _join(_named(x=inputs), told)


def _loss_call(args: tuple, kwargs: dict[str, Any], value: Any) -> str:
    y, y_pred, *rest = args
    weight = rest[0] if rest else kwargs.get("sample_weight")
    return f"{_named(y=y, y_pred=y_pred, sample_weight=weight)} -> {brief(value)}"


def _update_state(args: tuple, kwargs: dict[str, Any], _: Any) -> str:
    names = ("y", "y_pred", "sample_weight")
    given = dict(zip(names, args, strict=False))
    given |= {"sample_weight": kwargs.get("sample_weight", given.get("sample_weight"))}
    if "y_pred" in given:
        return _named(**given)
    weight = given["sample_weight"]
    return _join(brief(given["y"]), "" if weight is None else f"weight {brief(weight)}")


def _result(args: tuple, kwargs: dict[str, Any], value: Any) -> str:
    return f"-> {_named(**value) if isinstance(value, dict) else brief(value)}"


def _scale_loss(args: tuple, kwargs: dict[str, Any], scaled: Any) -> str:
    return f"{brief(args[0])} -> {brief(scaled)}"


def _apply(args: tuple, kwargs: dict[str, Any], _: Any) -> str:
    gradients = args[0] if args else kwargs["grads"]
    return f"{len(list(gradients))} gradients"


def _finalize(args: tuple, kwargs: dict[str, Any], _: Any) -> str:
    return f"{len(args[0])} weights"


def _nothing(args: tuple, kwargs: dict[str, Any], _: Any) -> str:
    return ""
