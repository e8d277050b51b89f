"""Watches a training loop from outside: its tapes, forward passes, losses, updates and metrics.

Methods of Keras and TensorFlow are wrapped for the time of a `with` block and put back at its end,
also after an error. The code that is watched is not edited.
"""

import functools
import math
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

State = list[np.ndarray]
# Snapshots of the variables are kept up to this many bytes; later steps are not compared.
SNAPSHOT_BYTES = 2**29
MOST_HELD, MOST_PARTS = 2**16, 4  # elements of an array, arrays in a tuple


@dataclass(eq=False)
class Call:
    """A call of the model, or of a layer outside of any other layer's call.

    Attributes:
        whole: whether it is the model, not a layer of it.
        training: the argument as it was given; None if it was not.
        foreign: whether it is a layer with weights that is not in the model.
        x, outputs: the tensors, flattened structures; empty if they are ragged or sparse.
        line: of the user's file; 0 if none led there.
    """

    whole: bool
    training: Any
    x: list[np.ndarray]
    outputs: list[np.ndarray]
    line: int
    foreign: bool = False


@dataclass(eq=False)
class LossCall:
    """A call of one of Keras's losses, as an object or as a function."""

    y: list[np.ndarray]
    line: int


@dataclass(eq=False)
class Gradient:
    """A call of `GradientTape.gradient`.

    Attributes:
        loss: what is differentiated, summed to a scalar, as the tape does.
        shape: its shape before the sum.
        values: by the variable's position in `model.variables`; None where there is no gradient.
        others: number of sources that are not variables of the model.
        held: arrays in the variables of the user's running functions, as many rows as the batch.
    """

    loss: np.floating
    shape: tuple[int, ...]
    values: dict[int, np.ndarray | None]
    others: int
    line: int
    held: list[np.ndarray] = field(default_factory=list)


@dataclass(eq=False)
class Update:
    """A call of `Optimizer.apply`, also by `apply_gradients`.

    Attributes:
        configuration: `get_config()` at the time; empty if the optimizer has none.
        values: the gradients given, as in `Gradient`.
        tensors: the same as they were given: dense tensors, or `tf.IndexedSlices`, which some
            optimizers treat in another way.
        slots_before, slots_after: the optimizer's variables; before is None if it was not built.
        before, after: the model's variables.
        recorded: whether a persistent tape was still recording.
    """

    optimizer: Any
    configuration: dict[str, Any]
    values: dict[int, np.ndarray | None]
    tensors: dict[int, Any]
    slots_before: State | None
    slots_after: State
    before: State | None
    after: State | None
    line: int
    recorded: bool = False


@dataclass(eq=False)
class MetricCall:
    """A call of a `keras.metrics.Metric`.

    Attributes:
        method: "update_state", "result" or "reset_state".
        value: of a `result` that is a scalar; else None.
    """

    metric: Any
    method: str
    value: float | None
    line: int


@dataclass(eq=False)
class Block:
    """A `with tf.GradientTape()` block: one batch.

    Attributes:
        before: the model's variables at its begin; None beyond `SNAPSHOT_BYTES`.
    """

    before: State | None
    line: int
    calls: list[Call] = field(default_factory=list)
    losses: list[LossCall] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """What leads to one update of the weights.

    Attributes:
        blocks: one, unless gradients are accumulated.
        updates: one; none if the weights were updated without an optimizer.
        outside: calls outside of a tape, after the blocks began and before the next step.
        settled: the model's variables when the next step begins, or the training ends.
    """

    blocks: list[Block] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    outside: list[Call] = field(default_factory=list)
    metrics: list[MetricCall] = field(default_factory=list)
    settled: State | None = None


class Enough(BaseException):
    """Ends a loop that has been observed for long enough; `except Exception` lets it pass."""


class Observer:
    """Records what a training of `model` does, inside a `with` block.

    Args:
        model: the model that is trained.
        file: the user's file; its lines are noted.
        module: the user's module, whose names for Keras's loss functions are wrapped too.
        seconds: after these, `Enough` is raised at the begin of the next step.

    Attributes:
        steps: one for each update, in order.
        leading: calls before the first tape.
        initial, final: the model's variables at begin and end of the block.
    """

    def __init__(self, model: Any, file: str = "", module: Any = None, seconds: float = math.inf):
        self.steps: list[Step] = []
        self.leading: list[Call] = []
        self.initial: State = []
        self.final: State = []
        self._model, self._file, self._module = model, file, module
        self._tapes: list[Block] = []
        self._of_tape: dict[int, tuple[Any, Block]] = {}  # holds the tape: its id stays unique
        self._depth = {"layer": 0, "apply": 0, "loss": 0, "metric": 0}
        self._bytes = 0
        self._stack = ExitStack()
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> "Observer":
        self._places = {}
        for place, variable in enumerate(self._model.variables):
            self._places[id(variable)] = self._places[id(variable.value)] = place
        self.initial = state_of(self._model)
        try:
            self._wrap_all()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        self.final = state_of(self._model)
        self._leave_out_tapes_without_gradients()
        if self.steps:
            self.steps[-1].settled = self.final

    def _leave_out_tapes_without_gradients(self) -> None:
        """A step that is also used to validate has a tape then, but asks it for no gradients."""
        kept: list[Step] = []
        for step in self.steps:
            for block in [block for block in step.blocks if not block.gradients]:
                outside = kept[-1].outside if kept else self.leading
                outside += block.calls
            step.blocks = [block for block in step.blocks if block.gradients]
            if step.blocks or step.updates:
                if kept and step.blocks:
                    kept[-1].settled = step.blocks[0].before
                kept.append(step)
            elif kept:
                kept[-1].outside += step.outside
                kept[-1].metrics += step.metrics
        if kept:
            self.steps = kept

    def _wrap_all(self) -> None:
        tape = tf.GradientTape
        self._wrap(tape, "__enter__", self._tape_entered)
        self._wrap(tape, "__exit__", self._tape_left)
        self._wrap(tape, "gradient", self._gradient)
        self._wrap(keras.Layer, "__call__", self._layer_called)
        for cls in _subclasses(keras.optimizers.Optimizer):
            if "apply" in vars(cls):
                self._wrap(cls, "apply", self._applied)
        if not self._file:
            return
        self._wrap(keras.losses.Loss, "__call__", self._loss_called)
        for cls in _subclasses(keras.metrics.Metric):
            for method in ("update_state", "result", "reset_state"):
                if method in vars(cls):
                    self._wrap(cls, method, functools.partial(self._metric_called, method))
        self._wrap_loss_functions()

    def _wrap(self, owner: Any, name: str, around: Callable) -> None:
        """`around(original, args, kwargs)` takes the place of `owner.name`."""
        self._stack.enter_context(replaced(owner, name, around))

    def _wrap_loss_functions(self) -> None:
        """A function is known by its name in Keras's modules, or in the user's own."""
        functions = {
            id(value): value
            for name, value in vars(keras.losses).items()
            if isinstance(value, types.FunctionType)
            and name not in ("get", "serialize", "deserialize")
        }
        namespaces = [keras.losses, sys.modules.get("keras._tf_keras.keras.losses"), self._module]
        for namespace in namespaces:
            for name, value in list(vars(namespace).items()) if namespace else ():
                if id(value) in functions:
                    self._wrap(namespace, name, self._loss_called)

    # What is noted ----------------------------------------------------------------------------

    def _tape_entered(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if tf.executing_eagerly():
            block = Block(self._snapshot(), self._line())
            step = self.steps[-1] if self.steps else None
            if step is None or self._is_over(step, block):
                if time.monotonic() > self._deadline:
                    raise Enough
                if step is not None:
                    step.settled = block.before
                self.steps.append(step := Step())
            step.blocks.append(block)
            self._tapes.append(block)
            self._of_tape[id(args[0])] = args[0], block
        return original(*args, **kwargs)

    def _is_over(self, step: Step, block: Block) -> bool:
        """Whether the weights were updated since the step began."""
        if step.updates:
            return True
        begin = step.blocks[0].before
        if begin is None or block.before is None or not step.blocks[-1].gradients:
            return False
        return any(
            not np.array_equal(a, b, equal_nan=True)
            for a, b, v in zip(begin, block.before, self._model.variables, strict=True)
            if v.trainable
        )

    def _tape_left(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        _, block = self._of_tape.get(id(args[0]), (None, None))
        if block in self._tapes:
            self._tapes.remove(block)
        return original(*args, **kwargs)

    def _gradient(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        result = original(*args, **kwargs)
        tape, *rest = args
        _, block = self._of_tape.get(id(tape), (None, None))
        if block is not None and tf.executing_eagerly():
            named = dict(zip(("target", "sources"), rest, strict=False)) | kwargs
            target = tf.nest.flatten(named["target"])
            sources, values = tf.nest.flatten(named["sources"]), tf.nest.flatten(result)
            known, others = self._by_place(sources, values)
            total = np.float32(sum(float(tf.reduce_sum(part)) for part in target))
            shape = tuple(target[0].shape) if len(target) == 1 else (len(target),)
            held = self._held(block) if self._file else []
            block.gradients.append(Gradient(total, shape, known, others, self._line(), held))
        return result

    def _applied(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._depth["apply"] or not tf.executing_eagerly():
            return original(*args, **kwargs)
        optimizer, *rest = args
        named = dict(zip(("grads", "trainable_variables"), rest, strict=False)) | kwargs
        gradients = list(named["grads"])
        variables = named.get("trainable_variables")
        before = values_of(optimizer.variables) if optimizer.built else None
        model_before = self._snapshot()
        configuration = _configuration(optimizer) if self._file else {}
        with self._inside("apply"):
            result = original(optimizer, gradients, variables)
        if variables is None:
            variables = optimizer._trainable_variables
        known, _ = self._by_place(list(variables), gradients)
        places = [self._places.get(id(variable)) for variable in variables]
        update = Update(
            optimizer=optimizer,
            configuration=configuration,
            values=known,
            tensors={p: g for p, g in zip(places, gradients, strict=True) if p in known},
            slots_before=before,
            slots_after=values_of(optimizer.variables),
            before=model_before,
            after=self._snapshot(),
            line=self._line(),
            recorded=any(
                getattr(tape, "_persistent", False)
                for tape, block in self._of_tape.values()
                if block in self._tapes
            ),
        )
        if not self.steps:
            self.steps.append(Step())
        self.steps[-1].updates.append(update)
        return result

    def _layer_called(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._depth["layer"] or not tf.executing_eagerly():
            return original(*args, **kwargs)
        with self._inside("layer"):
            outputs = original(*args, **kwargs)
        inputs = args[1] if len(args) > 1 else next(iter(kwargs.values()), None)
        if any(isinstance(leaf, keras.KerasTensor) for leaf in tf.nest.flatten([inputs, outputs])):
            return outputs  # a model is being built
        call = Call(
            whole=args[0] is self._model,
            training=kwargs.get("training"),
            x=_arrays(inputs),
            outputs=_arrays(outputs),
            line=self._line(),
            foreign=any(id(variable) not in self._places for variable in args[0].weights),
        )
        if self._tapes:
            self._tapes[-1].calls.append(call)
        elif self.steps:
            self.steps[-1].outside.append(call)
        else:
            self.leading.append(call)
        return outputs

    def _loss_called(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._tapes and not self._depth["loss"] and tf.executing_eagerly():
            y = args[-2] if len(args) == 2 else kwargs.get("y_true")
            if args and y is None:  # (loss, y_true, y_pred, ...), or (y_true, y_pred, ...)
                y = args[1] if isinstance(args[0], keras.losses.Loss) else args[0]
            self._tapes[-1].losses.append(LossCall(_arrays(y), self._line()))
        with self._inside("loss"):
            return original(*args, **kwargs)

    def _metric_called(
        self, method: str, original: Callable, args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        with self._inside("metric"):
            result = original(*args, **kwargs)
        if not self._depth["metric"] and self.steps and tf.executing_eagerly():
            scalar = method == "result" and tf.is_tensor(result) and result.shape.rank == 0
            value = float(result) if scalar else None
            self.steps[-1].metrics.append(MetricCall(args[0], method, value, self._line()))
        return result

    @contextmanager
    def _inside(self, kind: str) -> Iterator[None]:
        self._depth[kind] += 1
        try:
            yield
        finally:
            self._depth[kind] -= 1

    def _by_place(
        self, sources: list[Any], values: list[Any]
    ) -> tuple[dict[int, np.ndarray | None], int]:
        known: dict[int, np.ndarray | None] = {}
        others = 0
        for source, value in zip(sources, values, strict=True):
            place = self._places.get(id(source))
            if place is None:
                others += 1
            else:
                known[place] = None if value is None else np.array(tf.convert_to_tensor(value))
        return known, others

    def _held(self, block: Block) -> list[np.ndarray]:
        rows = len(block.calls[0].x[0]) if block.calls and block.calls[0].x else 0
        frame: Any = sys._getframe(1)
        held: dict[int, np.ndarray] = {}
        while frame is not None and rows:
            if frame.f_code.co_filename == self._file:
                for value in tf.nest.flatten([_shallow(v) for v in frame.f_locals.values()]):
                    if id(value) in held or not len(value.shape):
                        continue
                    if value.shape[0] == rows and np.prod(value.shape) <= MOST_HELD:
                        held[id(value)] = np.array(value)
            frame = frame.f_back
        return list(held.values())

    def _snapshot(self) -> State | None:
        if self._bytes > SNAPSHOT_BYTES:
            return None
        state = state_of(self._model)
        self._bytes += sum(array.nbytes for array in state)
        return state

    def _line(self) -> int:
        """The nearest line of the user's file that led here; 0 if there is none."""
        frame: Any = sys._getframe(1)
        while self._file and frame is not None:
            if frame.f_code.co_filename == self._file:
                return frame.f_lineno
            frame = frame.f_back
        return 0


_EAGER = type(tf.constant(0))


def _shallow(value: Any) -> Any:
    """An array, or arrays in a tuple or list; nothing of other objects."""
    if isinstance(value, tuple | list) and len(value) <= MOST_PARTS:
        return [part for part in value if isinstance(part, np.ndarray) or type(part) is _EAGER]
    return value if isinstance(value, np.ndarray) or type(value) is _EAGER else []


def state_of(model: Any) -> State:
    """The values of all the model's variables, those of random generators included."""
    return values_of(model.variables)


def values_of(variables: Iterable[Any]) -> State:
    """Copies of the values."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _arrays(structure: Any) -> list[np.ndarray]:
    """The leaves; none where one is not dense, such as a ragged tensor."""
    leaves = [leaf for leaf in tf.nest.flatten(structure) if leaf is not None]
    if any(isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) for leaf in leaves):
        return []
    return [np.asarray(tf.convert_to_tensor(leaf)) for leaf in leaves]


def _configuration(optimizer: Any) -> dict[str, Any]:
    try:
        return optimizer.get_config()
    except NotImplementedError:  # an optimizer of the user's own
        return {}


def _subclasses(cls: type) -> Iterator[type]:
    """The class and all classes below it, each once."""
    seen: set[type] = set()
    todo = [cls, *(base for base in cls.__mro__ if base.__module__.startswith("keras.src"))]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += current.__subclasses__() if issubclass(current, cls) else []
            yield current


@contextmanager
def replaced(owner: Any, name: str, around: Callable) -> Iterator[None]:
    """`around(original, args, kwargs)` takes the place of `owner.name` within a `with` block."""
    original = vars(owner)[name]

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, args, kwargs)

    setattr(owner, name, wrapper)
    try:
        yield
    finally:
        setattr(owner, name, original)
