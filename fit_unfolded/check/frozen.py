"""Runs a loop's `tf.function`s eagerly, but with the Python values that their graphs have."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fit_unfolded.check.meter import FUNCTION, Meter, code_of
from fit_unfolded.check.observe import replaced
from fit_unfolded.check.python_values import PythonValue, values_read


@contextmanager
def values_frozen(meter: Meter, model: Any) -> Iterator[None]:
    """Each function that was traced sees, at every call, the values of its last trace.

    Args:
        meter: measured the same loop as graphs.
        model: the model that is trained now.
    """
    calls: Counter[tuple[str, int]] = Counter()
    kept: dict[tuple[str, int], list[PythonValue]] = {}

    def call(original: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        code = code_of(args[0].python_function)
        key = (code.co_filename, code.co_firstlineno) if code else ("", 0)
        traced = meter.functions.get(key)
        if traced is None or not traced.frozen:
            return original(*args, **kwargs)
        number = calls[key]
        calls[key] += 1
        if number in traced.traces:
            kept[key] = values_read(args[0].python_function, model)
            return original(*args, **kwargs)
        now = [(value, value.read()) for value in kept[key] if value.name in traced.frozen]
        for value, _ in now:
            value.write(value.value)
        try:
            return original(*args, **kwargs)
        finally:
            for value, current in now:
                value.write(current)

    with replaced(FUNCTION, "__call__", call):
        yield
