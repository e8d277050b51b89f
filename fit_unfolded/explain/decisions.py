"""What `compile` makes of its arguments, and which line decides it.

Three kinds of evidence, all from the run itself. Of each loss, metric and optimizer that is made
while `Births` watches, the line that made it is known; of one that was given ready-made, the line
that looked it up. Numbers, flags and `"auto"` are given as values that note who looks at them.
`Resolution` watches the return of Keras's function that decides about XLA.

The loop leaves some decisions to Keras: it calls `Model.compile`, which keeps the arguments. Then
the line shown for the loop is the one that calls Keras or reads the result, and the line of Keras
that decided is named too.
"""

import ast
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from fit_unfolded.common.statements import parsed
from fit_unfolded.explain.events import Decision, Line
from fit_unfolded.explain.lines import KERAS, Package

KINDS = (keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer)
BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
DEFAULTS = {
    "run_eagerly": False,
    "steps_per_execution": 1,
    "jit_compile": "auto",
    "auto_scale_loss": True,
}
# Where an argument is only taken in, not used.
TAKEN_IN = ("Trainer.compile",)


@dataclass(frozen=True)
class Birth:
    """Where an object was made or looked up, and the shapes of `y` and `y_pred` there.

    Attributes:
        line: the nearest of the package.
        left: the line of Keras between it and the object; None if there is none.
    """

    line: Line
    shapes: tuple[str, str] | None
    left: Line | None


class Births:
    """Watches, within its `with` block, where losses, metrics and optimizers come from."""

    def __init__(self, package: Package):
        self._package = package
        self._made: dict[int, tuple[Any, Birth]] = {}  # with the object, so that its id stays its
        self._looked_up: dict[int, tuple[Any, Birth]] = {}
        self._asked: dict[FrameType, Line] = {}  # frame of Keras -> where it resolved a name

    def __enter__(self):
        self._watching = profiled(self._see)
        self._watching.__enter__()
        return self

    def __exit__(self, *_):
        self._watching.__exit__(None, None, None)
        self._asked.clear()

    def of(self, thing: Any) -> Birth:
        """Where `thing` was made or, if it was made before, looked up.

        Raises:
            KeyError: neither was seen.
        """
        found = self._made.get(id(thing)) or self._looked_up[id(thing)]
        return found[1]

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_name
        if event != "call" or name not in ("__init__", "get", "is_binary_or_sparse_categorical"):
            return
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        if name == "__init__":
            thing, seen = frame.f_locals.get(names[0]) if names else None, self._made
        else:  # keras.losses.get(identifier) and its siblings
            thing, seen = frame.f_locals.get("identifier"), self._looked_up
        if isinstance(thing, KINDS) and id(thing) not in seen:
            line, at = self._package.nearest(frame.f_back)
            left = decided_in_keras(frame.f_back if name == "__init__" else frame)
            if isinstance(thing, keras.losses.Loss):  # wrapped after the name was resolved
                with contextlib.suppress(LookupError):
                    left = self._asked.get(KERAS.nearest(frame.f_back)[1], left)
            if self._package is KERAS:
                line, left = left or line, None
            seen[id(thing)] = thing, Birth(line, _shapes(at), left)
        elif name != "__init__" and frame.f_back is not None:
            with contextlib.suppress(LookupError):
                line, at = KERAS.nearest(frame.f_back)
                if at is frame.f_back:
                    self._asked[at] = line


@contextlib.contextmanager
def profiled(see: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Within this block, `see` gets each call and return of a function of Python."""
    before = sys.getprofile()
    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(before)


class Resolution:
    """Watches what Keras makes of `jit_compile`, and who reads it.

    Attributes:
        decided: the line at which Keras's function, or else its property, was left; None if Keras
            used neither, as for a value that the property has already.
        read: the line of the package that read the result; None if none did.
    """

    def __init__(self, package: Package):
        self._package = package
        self._lines: dict[str, Line] = {}
        self.read: Line | None = None

    @property
    def decided(self) -> Line | None:
        """See the class."""
        return self._lines.get("_resolve_auto_jit_compile") or self._lines.get("jit_compile")

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        """A hook for `profiled`."""
        name, arguments = frame.f_code.co_name, frame.f_code.co_argcount
        if name == "_resolve_auto_jit_compile":
            # the property resolves too, if it is read before compile
            by_compile = frame.f_back is not None and frame.f_back.f_code.co_name == "compile"
            if event == "return" and by_compile:
                self._lines[name] = KERAS.nearest(frame)[0]
        elif name == "jit_compile" and arguments == 2:
            if event == "return":
                self._lines[name] = KERAS.nearest(frame)[0]
        elif name == "jit_compile" and event == "call" and self.read is None:
            with contextlib.suppress(LookupError):
                line, at = self._package.nearest(frame.f_back)
                if at is frame.f_back:  # Keras reads it too
                    self.read = line


def _shapes(frame: FrameType) -> tuple[str, str] | None:
    """The shapes of labels and predictions, where the function of `frame` has them."""
    held = frame.f_locals
    y, y_pred = held.get("y_true", held.get("y")), held.get("y_pred")
    if not (hasattr(y, "shape") and hasattr(y_pred, "shape")):
        return None
    return _open(y), _open(y_pred)


def _open(array: Any) -> str:
    return f"[{', '.join(['batch', *map(str, array.shape[1:])])}]"


class Looks:
    """Arguments that note which lines compare them.

    Args:
        package: the source to point at.
        arguments: name -> number, flag or string.

    Attributes:
        values: the same, to be given to `compile`.
    """

    def __init__(self, package: Package, arguments: dict[str, Any]):
        self._package = package
        self._lines: dict[str, list[tuple[Line, Line | None]]] = {name: [] for name in arguments}
        self.values = {name: self._watched(name, value) for name, value in arguments.items()}

    def line(self, argument: str) -> tuple[Line, Line | None]:
        """The first line that compared the argument in order to use it.

        Returns:
            tuple: the package's line, and that of Keras behind it; None if there is none.
        """
        lines = self._lines[argument]
        line, left = next((found for found in lines if found[0].function not in TAKEN_IN), lines[0])
        return (line, None) if left is None else (argument_line(line, argument), left)

    def _watched(self, name: str, value: Any) -> Any:
        kind = int if isinstance(value, bool) else type(value)
        methods = {
            method: self._noted(name, getattr(kind, method))
            for method in ("__bool__", "__eq__", "__hash__", "__sub__")
            if hasattr(kind, method)
        }
        return type(kind.__name__, (kind,), methods)(value)

    def _noted(self, name: str, original: Callable) -> Callable:
        @functools.wraps(original)
        def noted(*args):
            with contextlib.suppress(LookupError):  # not the trainer
                line, _ = self._package.nearest(sys._getframe(1))
                left = None if self._package is KERAS else decided_in_keras(sys._getframe(1))
                self._lines[name].append((line, left))
            return original(*args)

        return noted


def decided_in_keras(frame: FrameType | None) -> Line | None:
    """The line of Keras that a decision comes from; None if no frame of Keras is on the stack.

    Of lines that only hand a call on, the outermost: the function of Keras that was called.
    """
    lines = KERAS.stack(frame)
    return lines[0] if lines else KERAS.outermost(frame)


def argument_line(line: Line, argument: str) -> Line:
    """Of a call over several lines, the one that passes `argument`."""
    for node in ast.walk(parsed(line.path)):
        if isinstance(node, ast.Call) and node.lineno == line.number:
            for keyword in node.keywords:
                if keyword.arg == argument:
                    return replace(line, number=keyword.lineno)
    return line


@dataclass(frozen=True)
class Half:
    """A `Decision` on one side."""

    argument: str
    became: str
    because: str
    line: Line
    left: Line | None = None


def halves(
    given: dict[str, Any],
    optimizer: Any,
    losses: list[Any],
    metrics: list[Any],
    births: Births,
    model: Any,
    looks: Looks,
    resolution: Resolution,
) -> list[Half]:
    """What one side made of the arguments of `compile`.

    Args:
        given: the arguments.
        optimizer, losses, metrics: what they became.
        births: watched them being made.
        model: compiled with `looks.values`.
        resolution: watched that.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    found = [_of_optimizer(given.get("optimizer", "rmsprop"), inner, births)]
    for identifier, loss in _with_identifiers(given.get("loss"), losses):
        found.append(_of_loss(identifier, loss, births))
    both = [
        (name, identifier)
        for name in ("metrics", "weighted_metrics")
        for identifier in _flat(given.get(name))
    ]
    for (name, identifier), metric in zip(both, metrics, strict=True):
        found.append(_of_metric(name, identifier, metric, births))
    arguments = DEFAULTS | {name: given[name] for name in DEFAULTS if name in given}
    for name, value in arguments.items():
        became, because = _of_flag(name, value, model, optimizer)
        line, left = looks.line(name)
        if name == "jit_compile":
            if left is None:
                line = resolution.decided or line
            else:
                line, left = resolution.read or line, resolution.decided or left
        found.append(Half(_argument(name, value), became, because, line, left))
    return found


def join(fit: list[Half], loop: list[Half]) -> list[Decision]:
    """The decisions of both sides; where they came to different ends, it is said."""
    return [
        Decision(
            argument=a.argument,
            became=a.became if a.became == b.became else f"{a.became}; in the loop {b.became}",
            because=a.because,
            fit=a.line,
            loop=b.line,
            left=b.left,
        )
        for a, b in zip(fit, loop, strict=True)
    ]


def _of_optimizer(identifier: Any, optimizer: Any, births: Births) -> Half:
    became = type(optimizer).__name__
    if isinstance(identifier, str):
        because = "the name of the class, made with its defaults"
    else:
        because = "it is an optimizer already"
    birth = births.of(optimizer)
    return Half(_argument("optimizer", identifier), became, because, birth.line, birth.left)


def _of_loss(identifier: Any, loss: Any, births: Births) -> Half:
    birth = births.of(loss)
    function = getattr(loss, "fn", getattr(loss, "function", None))
    if isinstance(identifier, keras.losses.Loss):
        became, because = type(loss).__name__, "it is a Loss already"
    elif function is None:
        became, because = type(loss).__name__, "the name of the class"
    else:
        same = function.__name__ == getattr(identifier, "__name__", identifier)
        became = f"a Loss around {'that function' if same else function.__name__}"
        because = "the function gives a loss a sample; a Loss adds mask, weights and mean"
        if str(identifier).lower() in BY_SHAPE and birth.shapes:
            because = _by_shape(birth.shapes)
    return Half(_argument("loss", identifier), became, because, birth.line, birth.left)


def _of_metric(name: str, identifier: Any, metric: Any, births: Births) -> Half:
    birth = births.of(metric)
    if isinstance(identifier, keras.metrics.Metric):
        because = "it is a Metric already"
    elif str(identifier).lower() in BY_SHAPE and birth.shapes:
        because = _by_shape(birth.shapes)
    elif isinstance(metric, keras.metrics.MeanMetricWrapper):
        because = "a function gives a value a sample; the Metric keeps their mean"
    else:
        because = "the name of the class"
    became = type(metric).__name__
    return Half(_argument(name, identifier), became, because, birth.line, birth.left)


def _of_flag(name: str, value: Any, model: Any, optimizer: Any) -> tuple[str, str]:
    """What a number or flag became, and why."""
    if name == "run_eagerly":
        if value:
            return "Python, op by op", "it was asked for"
        return "tf.function", "a step is traced once; only run_eagerly=True keeps it in Python"
    if name == "steps_per_execution":
        return (
            f"{value} step{'s' if value > 1 else ''} per call",
            "one call of the train function runs that many",
        )
    if name == "jit_compile":
        return ("XLA" if model.jit_compile else "no XLA"), _why_xla(value, model)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return "a LossScaleOptimizer", "small gradients would vanish in mixed_float16"
    policy = model.dtype_policy.name
    return "no loss scaling", f"mixed_float16 would need more, but this model is {policy}"


def _why_xla(value: Any, model: Any) -> str:
    if model.run_eagerly:
        return "run_eagerly comes first: without a graph there is nothing to compile"
    if value != "auto":
        return "it was asked for" if bool(model.jit_compile) == value else "the model objects"
    if all(device.device_type == "CPU" for device in tf.config.list_physical_devices()):
        return '"auto" means XLA where there is a GPU; there is none'
    return "there is a GPU" if model.jit_compile else "a layer, a strategy or determinism objects"


def _by_shape(shapes: tuple[str, str]) -> str:
    return f"the labels have shape {shapes[0]} and the predictions {shapes[1]}"


def _argument(name: str, identifier: Any) -> str:
    if isinstance(identifier, str):
        return f'{name}="{identifier}"'
    if isinstance(identifier, KINDS):
        return f"{name}={type(identifier).__name__}(...)"
    return f"{name}={getattr(identifier, '__name__', identifier)}"


def _flat(argument: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(argument) if leaf is not None]


def _with_identifiers(argument: Any, resolved: list[Any]) -> list[tuple[Any, Any]]:
    """Each resolved object with what was given for it: one for all outputs, or one each."""
    identifiers = _flat(argument)
    if len(identifiers) == 1:
        identifiers *= len(resolved)
    return list(zip(identifiers, resolved, strict=True))
