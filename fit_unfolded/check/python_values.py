"""The Python values that a function reads from outside: what `tf.function` freezes at tracing."""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

PLAIN = (bool, int, float, str)
MOST_ELEMENTS = 8  # of a list whose numbers are read one by one
PACKAGES = ("keras", "tensorflow", "numpy")
DEEPEST = 3  # calls of the user's functions by his functions


@dataclass(frozen=True)
class PythonValue:
    """A number, flag or string outside of a function: in a variable, an attribute or a list.

    Attributes:
        name: as a reader of the source would write it: `self.rate`.
        value: as it was when this was made.
        read, write: it may change.
    """

    name: str
    value: Any
    read: Callable[[], Any]
    write: Callable[[Any], None]


def values_read(function: Callable, model: Any) -> list[PythonValue]:
    """What a function can read: closure, globals, attributes, and those of the model's layers."""
    found = {value.name: value for value in _of_function(function, DEEPEST)}
    for layer in model._flatten_layers():
        for value in _of_attributes(layer.name, layer, set(vars(layer)) | {"trainable"}):
            found.setdefault(value.name, value)
    return list(found.values())


def _of_function(function: Any, deep: int) -> Iterator[PythonValue]:
    function = inspect.unwrap(function)
    owner = getattr(function, "__self__", None)
    target = getattr(owner, "target", owner)  # a bound method under tf.function
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    names, constants = _names(code)
    if target is not None:
        yield from _of_attributes("self", target, names | set(getattr(target, "__dict__", {})))
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    for name, cell in cells.items():
        try:
            value = cell.cell_contents
        except ValueError:  # empty
            continue

        def read(cell: Any = cell) -> Any:
            return cell.cell_contents

        def write(new: Any, cell: Any = cell) -> None:
            cell.cell_contents = new

        yield from _of_value(name, value, read, write, names, constants, deep)
    scope = function.__globals__
    for name in names & scope.keys():
        yield from _of_value(
            name,
            scope[name],
            functools.partial(scope.__getitem__, name),
            functools.partial(scope.__setitem__, name),
            names,
            constants,
            deep,
        )


def _names(code: types.CodeType) -> tuple[set[str], set[Any]]:
    """Names and constants of a function and of those inside it."""
    names, constants = {*code.co_names}, set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, more = _names(constant)
            names |= inner
            constants |= more
        elif isinstance(constant, PLAIN):
            constants.add(constant)
    return names, constants


def _of_value(
    name: str,
    value: Any,
    read: Callable[[], Any],
    write: Callable[[Any], None],
    names: set[str],
    constants: set[Any],
    deep: int,
) -> Iterator[PythonValue]:
    if isinstance(value, PLAIN):
        yield PythonValue(name, value, read, write)
    elif isinstance(value, dict):
        for key in [key for key in value if key in constants]:
            yield from _of_item(f"{name}[{key!r}]", value, key)
    elif isinstance(value, list) and len(value) <= MOST_ELEMENTS:
        for place in range(len(value)):
            yield from _of_item(f"{name}[{place}]", value, place)
    elif isinstance(value, types.FunctionType | types.MethodType):
        module = getattr(value, "__module__", "") or ""
        if deep and not module.startswith(PACKAGES):
            yield from _of_function(value, deep - 1)
    elif isinstance(value, keras.optimizers.Optimizer):
        yield from _of_attributes(name, value, set(vars(value)))
    elif hasattr(value, "__dict__") and not isinstance(value, types.ModuleType | type):
        own = not type(value).__module__.startswith(PACKAGES)
        yield from _of_attributes(name, value, set(vars(value)) if own else names)


def _of_item(name: str, container: Any, key: Any) -> Iterator[PythonValue]:
    if isinstance(container[key], PLAIN):
        yield PythonValue(
            name,
            container[key],
            lambda: container[key],
            lambda new: container.__setitem__(key, new),
        )


def _of_attributes(owner_name: str, owner: Any, names: set[str]) -> Iterator[PythonValue]:
    held = {"trainable", *getattr(owner, "__dict__", {})}
    for name in sorted(name for name in names & held if not name.startswith("_")):
        value = getattr(owner, name, None)
        if isinstance(value, PLAIN):
            yield PythonValue(
                f"{owner_name}.{name}",
                value,
                functools.partial(getattr, owner, name),
                functools.partial(setattr, owner, name),
            )
