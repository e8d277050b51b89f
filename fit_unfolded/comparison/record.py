"""`Recorder`: a callback that records every call that it receives, in order, with exact values."""

from typing import Any, NamedTuple

import keras
import numpy as np


class Call(NamedTuple):
    """One callback call: the method's name, its argument and its logs.

    `argument` is the epoch, the batch, the dict of `set_params`, or None for methods without one.
    """

    method: str
    argument: Any
    logs: dict[str, Any] | None


class Recorder(keras.callbacks.Callback):
    """Records every callback call of fit, evaluate and predict in `calls`."""

    def __init__(self):
        super().__init__()
        self.calls: list[Call] = []

    def _note(self, method, argument=None, logs=None):
        if logs is not None:
            logs = {name: keras.tree.map_structure(_exact, value) for name, value in logs.items()}
        self.calls.append(Call(method, argument, logs))

    def set_params(self, params):
        super().set_params(params)
        self._note("set_params", dict(params))

    def on_train_begin(self, logs=None):
        self._note("on_train_begin", logs=logs)

    def on_train_end(self, logs=None):
        self._note("on_train_end", logs=logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._note("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._note("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._note("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._note("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs=None):
        self._note("on_test_begin", logs=logs)

    def on_test_end(self, logs=None):
        self._note("on_test_end", logs=logs)

    def on_test_batch_begin(self, batch, logs=None):
        self._note("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self._note("on_test_batch_end", batch, logs)

    def on_predict_begin(self, logs=None):
        self._note("on_predict_begin", logs=logs)

    def on_predict_end(self, logs=None):
        self._note("on_predict_end", logs=logs)

    def on_predict_batch_begin(self, batch, logs=None):
        self._note("on_predict_batch_begin", batch, logs)

    def on_predict_batch_end(self, batch, logs=None):
        self._note("on_predict_batch_end", batch, logs)


def _exact(value):
    """Python floats unchanged; tensors and arrays copied, since the next batch may reuse them."""
    return value if isinstance(value, float) else np.array(value)
