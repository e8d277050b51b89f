"""Which line of a side a call comes from.

A recording object is called through many frames: `Layer.__call__`, the filter of tracebacks, the
list of callbacks. They hand a call on and decide nothing. The nearest line is that of the nearest
frame of the side's package which is not among them, so that `dense.call` points at
`y_pred = self(x, training=True)` and not at the inside of `Layer.__call__`. What a model overrides,
such as `train_step`, counts as a part of both packages.
"""

import copy
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import keras

import manual_loop
from fit_unfolded.explain.events import Line

# Files of Keras 3.15 that hand a call on, below keras/src.
KERAS_HANDS_ON = (
    "backend/tensorflow/layer.py",
    "backend/tensorflow/optimizer.py",
    "callbacks/callback_list.py",
    "layers/layer.py",
    "losses/loss.py",
    "losses/losses.py",
    "metrics/metric.py",
    "models/functional.py",
    "models/model.py",
    "models/sequential.py",
    "ops/function.py",
    "ops/operation.py",
    "optimizers/base_optimizer.py",
    "optimizers/optimizer.py",
    "saving/object_registration.py",
    "saving/serialization_lib.py",
    "utils/traceback_utils.py",
    "utils/tracking.py",
)
# Functions that hand on too, in files that also hold what we look for.
KERAS_FUNCTIONS_HAND_ON = (
    "MetricsList.update_state",
    "MetricsList.reset_state",
    "deserialize",
    "get",
)
# A function that decides, in a file that otherwise hands on: it updates one variable.
KERAS_UPDATES = "TFOptimizer._distributed_tf_update_step.apply_grad_to_update_var"
LOOP_HANDS_ON = ("manual_loop/compiled/lookup.py", "manual_loop/compiled/overrides.py")


class Package:
    """The source of one side, as it is found on the stack.

    Args:
        root: directory of the package.
        inside: which files count, by their beginning relative to the package's parent.
        hands_on: whether a file and function only hand a call on.
    """

    def __init__(self, root: Path, inside: str, hands_on: Callable[[str, str], bool]):
        self._parent = root.parent
        self._inside = f"{self._parent / inside}{os.sep}"
        self._hands_on = hands_on
        self._own: frozenset[CodeType] = frozenset()

    def with_methods(self, codes: Iterable[CodeType]) -> "Package":
        """The same, and these functions of a model's own, wherever their source is."""
        package = copy.copy(self)
        package._own = frozenset(codes)
        return package

    def stack(self, frame: FrameType | None) -> tuple[Line, ...]:
        """The lines that do more than hand a call on, from `frame` outwards."""
        lines = (line for line, _ in self._frames(frame))
        return tuple(line for line in lines if not self._hands_on(line.file, line.function))

    def outermost(self, frame: FrameType | None) -> Line | None:
        """The line that is farthest from `frame`; None if there is none."""
        lines = [line for line, _ in self._frames(frame)]
        return lines[-1] if lines else None

    def nearest(self, frame: FrameType | None) -> tuple[Line, FrameType]:
        """The nearest line that does more than hand a call on, and its frame.

        Raises:
            LookupError: no frame of the package is on the stack.
        """
        found = list(self._frames(frame))
        if not found:
            raise LookupError(f"No frame of {self._inside} is on the stack.")
        deciding = (
            (line, at) for line, at in found if not self._hands_on(line.file, line.function)
        )
        return next(deciding, found[0])

    def _frames(self, frame: FrameType | None):
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(self._inside) or code in self._own:
                yield self._line(code, frame.f_lineno), frame
            frame = frame.f_back

    def _line(self, code: CodeType, number: int) -> Line:
        path = Path(code.co_filename)
        inside = code not in self._own
        return Line(
            file=path.relative_to(self._parent).as_posix() if inside else path.name,
            number=number,
            function=qualified_name(code),
            path=str(path),
        )


def _keras_hands_on(file: str, function: str) -> bool:
    if function == KERAS_UPDATES:
        return False
    return file.removeprefix("keras/src/") in KERAS_HANDS_ON or function in KERAS_FUNCTIONS_HAND_ON


KERAS = Package(Path(keras.__file__).parent, "keras/src", _keras_hands_on)
LOOP = Package(
    Path(manual_loop.__file__).parent, "manual_loop", lambda file, _: file in LOOP_HANDS_ON
)
PACKAGES = {"keras_fit": KERAS, "manual_loop": LOOP}

# What a model may override, as fit and the loop call it.
OVERRIDABLE = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "reset_metrics",
    "get_metrics_result",
)


def overrides(model: Any) -> Iterator[CodeType]:
    """The code of what a model overrides: in its class, and in those above that are not Keras's."""
    for cls in type(model).__mro__:
        if cls.__module__.partition(".")[0] != "keras":
            for name in OVERRIDABLE:
                if inspect.isfunction(method := vars(cls).get(name)):
                    yield inspect.unwrap(method).__code__


def qualified_name(code: CodeType) -> str:
    """A function's qualified name, as a reader of the source would write it."""
    return re.sub(r"\.<(locals|\w+comp|genexpr)>", "", code.co_qualname)


def caller() -> FrameType | None:
    """The frame that called the function which calls this one."""
    return sys._getframe(2)
