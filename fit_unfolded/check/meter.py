"""What a training loop costs: graphs, host reads, time for each batch, what grows in memory.

The loop runs unchanged, its `tf.function`s too. A few methods are wrapped for the time of a `with`
block, as in `observe`.
"""

import collections
import gc
import inspect
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import keras
import tensorflow as tf

from fit_unfolded.check import observe
from fit_unfolded.check.observe import replaced
from fit_unfolded.check.python_values import PythonValue, values_read

FUNCTION = type(tf.function(lambda: None))
EAGER_TENSOR = type(tf.constant(0))
READING = next(cls for cls in EAGER_TENSOR.__mro__ if "_numpy" in vars(cls))
VARIABLE = type(tf.Variable(0.0))
PACKAGES = tuple(f"{Path(str(p.__file__)).parent}{os.sep}" for p in (tf, keras))
# Where a tensor or a variable is made into a number; elsewhere it is not the user who asks.
CONVERSIONS = tuple(
    file.replace("/", os.sep)
    for file in (
        "keras/src/backend/common/variables.py",
        "keras/src/backend/tensorflow/core.py",
        "tensorflow/python/framework/ops.py",
        "tensorflow/python/framework/tensor.py",
        "tensorflow/python/ops/resource_variable_ops.py",
        "tensorflow/python/util/traceback_utils.py",
    )
)
SAMPLES = 4  # times at which the objects alive are counted
ASKED = ("predict", "predict_on_batch", "evaluate", "test_on_batch")


@dataclass
class Traced:
    """One Python function under `tf.function`, also if it was wrapped many times.

    Attributes:
        line: of its definition.
        objects: how many `tf.function`s were made of it.
        calls: at the top level.
        traces: numbers of the calls that traced a graph, from 0.
        signatures: the arguments of these calls.
        tapes: the most tapes in one graph, or graphs with tapes that it calls.
        jit: whether XLA compiles it.
        frozen: Python values that it reads and that changed since its first trace.
    """

    name: str
    line: int
    objects: int = 0
    calls: int = 0
    traces: list[int] = field(default_factory=list)
    signatures: list[tuple[str, ...]] = field(default_factory=list)
    tapes: int = 0
    jit: bool = False
    values: list[PythonValue] = field(default_factory=list)
    frozen: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Objects alive after some batches."""

    batches: int
    tensors: int
    tensor_bytes: int
    tapes: int
    variables: int


class Meter:
    """Measures a training loop inside a `with` block.

    Args:
        model: the model that is trained.
        file: the user's file, absolute.
        batches: how many fit would have.
        jit: False takes XLA from the loop's functions.

    Attributes:
        functions: by file and line.
        eager: batches whose tape was not in a graph.
        times: at which a batch began, or its graph was done.
        reads: host reads of tensors, by line of the user's file.
        read_seconds: the time they took.
        asked: calls of `predict` and its like in the user's file, by name and line.
        asked_seconds: the time they took.
        holders: at each sample, containers in the user's code, and how many tensors they hold.
    """

    def __init__(self, model: Any, file: str, batches: int, jit: bool = True):
        self.functions: dict[tuple[str, int], Traced] = {}
        self.eager = 0
        self.times: list[float] = []
        self.reads: Counter[int] = Counter()
        self.read_seconds = 0.0
        self.asked: Counter[tuple[str, int]] = Counter()
        self.asked_seconds = 0.0
        self.samples: list[Sample] = []
        self.holders: list[dict[str, int]] = []
        self._model, self._file, self._jit = model, file, jit
        self._places = {max(1, batches * part // SAMPLES) for part in range(1, SAMPLES + 1)}
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._depth = self._asking = 0
        self._tapes: list[int] = []  # the graphs that they are in
        self._lost = 0.0  # seconds that the samples took
        self._stack = ExitStack()

    def __enter__(self) -> "Meter":
        gc.freeze()  # what is there already is not counted again and again
        try:
            self._wrap(FUNCTION, "__call__", self._called)
            self._wrap(tf.GradientTape, "__enter__", self._tape_entered)
            self._wrap(READING, "_numpy", self._read)
            for method in ASKED:
                owner = next(cls for cls in keras.Model.__mro__ if method in vars(cls))
                self._wrap(owner, method, self._ask)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        gc.unfreeze()

    def _wrap(self, owner: Any, name: str, around: Callable) -> None:
        self._stack.enter_context(replaced(owner, name, around))

    def _called(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        function, *given = args
        found = self._traced(function)
        if found is None:
            return original(*args, **kwargs)
        before, tapes = function.experimental_get_tracing_count(), len(self._tapes)
        top = not self._depth and tf.executing_eagerly()
        self._depth += 1
        try:
            result = original(*args, **kwargs)
        finally:
            self._depth -= 1
        if function.experimental_get_tracing_count() > before:
            found.traces.append(found.calls)
            found.signatures.append(tuple(map(_described, tf.nest.flatten([given, kwargs]))))
            graphs = Counter(self._tapes[tapes:])
            found.tapes = max(found.tapes, *graphs.values(), 0)
            found.values = values_read(function.python_function, self._model)
        else:
            for value in found.values:
                if value.read() != value.value:
                    found.frozen[value.name] = (value.value, value.read())
        found.calls += 1
        if top and found.tapes:
            self._batch()
        elif found.tapes and not tf.executing_eagerly():  # a step of the graph around it
            self._tapes.append(id(tf.compat.v1.get_default_graph()))
        return result

    def _traced(self, function: Any) -> Traced | None:
        """The record of a `tf.function`; None for one of Keras or TensorFlow."""
        code = code_of(function.python_function)
        if code is None or code.co_filename.startswith(PACKAGES):
            return None
        key = code.co_filename, code.co_firstlineno
        line = code.co_firstlineno if code.co_filename == self._file else 0
        found = self.functions.setdefault(key, Traced(code.co_name, line))
        if function not in self._known:
            self._known.add(function)
            found.objects += 1
            found.jit = bool(getattr(function, "_jit_compile", False))
            if not self._jit:
                function._jit_compile = None
        return found

    def _tape_entered(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        if tf.executing_eagerly():
            self.eager += 1
            self._batch()
        else:
            self._tapes.append(id(tf.compat.v1.get_default_graph()))
        return original(*args, **kwargs)

    def _read(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        line = 0 if self._asking or not self.times else self._reading_line()
        if not line:
            return original(*args, **kwargs)
        begin = time.perf_counter()
        result = original(*args, **kwargs)
        self.read_seconds += time.perf_counter() - begin
        self.reads[line] += 1
        return result

    def _reading_line(self) -> int:
        """The line of the user's file that asks for a number itself."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self._file:
                return frame.f_lineno
            ours = name in (__file__, observe.__file__)
            if not (ours or name.endswith(CONVERSIONS)):
                return 0
            frame = frame.f_back
        return 0

    def _ask(self, original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != self._file:
            frame = frame.f_back
        line = 0 if frame is None or self._asking else frame.f_lineno
        begin = time.perf_counter()
        self._asking += 1
        try:
            return original(*args, **kwargs)
        finally:
            self._asking -= 1
            if line:
                self.asked[original.__name__, line] += 1
                self.asked_seconds += time.perf_counter() - begin

    def _batch(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self._lost)
        if len(self.times) in self._places:
            self.samples.append(self._sample())
            self._lost += time.perf_counter() - now

    def _sample(self) -> Sample:
        gc.collect()
        kinds: dict[type, list[Any]] = {EAGER_TENSOR: [], tf.GradientTape: [], VARIABLE: []}
        for thing in gc.get_objects():
            if (kind := type(thing)) in kinds:
                kinds[kind].append(thing)
        tensors, tapes, variables = kinds.values()
        size = sum(_bytes(tensor) for tensor in tensors)
        self.holders.append(self._held())
        return Sample(len(self.times), len(tensors), size, len(tapes), len(variables))

    def _held(self) -> dict[str, int]:
        """Containers in the variables of the user's running functions, with their tensors."""
        held: dict[str, int] = {}
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == self._file:
                for name, value in frame.f_locals.items():
                    _count(name, value, held)
                    if name == "self":
                        for attribute, part in getattr(value, "__dict__", {}).items():
                            _count(f"self.{attribute}", part, held)
            frame = frame.f_back
        return held


def code_of(function: Any) -> CodeType | None:
    """The code of a Python function, below decorators and bound methods."""
    return getattr(inspect.unwrap(function), "__code__", None)


def _count(name: str, value: Any, held: dict[str, int]) -> None:
    if isinstance(value, list | dict | set | collections.deque):
        parts = value.values() if isinstance(value, dict) else value
        tensors = sum(
            1
            for part in parts
            for leaf in (part if isinstance(part, list | tuple) else [part])
            if isinstance(leaf, tf.Tensor | tf.GradientTape)
        )
        if tensors:
            held[name] = max(tensors, held.get(name, 0))


def _bytes(tensor: Any) -> int:
    elements = tensor.shape.num_elements() or 0
    return elements * tensor.dtype.size if tensor.dtype.size else 0


def _described(value: Any) -> str:
    """An argument as a trace distinguishes it."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = getattr(value.dtype, "name", str(value.dtype))
        return f"{dtype}{list(value.shape)}"
    return type(value).__name__
