"""`Snapshots`: a callback that keeps what the replays of an epoch start from."""

from typing import Any, NamedTuple

import keras
import numpy as np

Values = list[np.ndarray]


class State(NamedTuple):
    """The values of `model.variables`, seed generators included, and of `optimizer.variables`."""

    model: Values
    optimizer: Values


class Snapshots(keras.callbacks.Callback):
    """Keeps the state before and after an epoch, and the epoch's losses in the log of fit.

    It must be the last callback: others may change the state in `on_epoch_begin`, as a learning
    rate schedule does, or in `on_test_begin`, as `SwapEMAWeights` does.

    Args:
        wanted: the epoch, counted from 1, after which the training is stopped; None for the last.

    Attributes:
        epoch: the epoch that the others belong to, counted from 1; 0 before the first has ended.
        begin: `State` before its first batch.
        end: `State` that the validation measured; without a validation, the one after the epoch.
        loss, val_loss: from the log; `val_loss` is None without a validation.
    """

    def __init__(self, wanted: int | None = None):
        super().__init__()
        self.wanted = wanted
        self.epoch = 0
        self.begin: State
        self.end: State
        self.loss: float
        self.val_loss: float | None
        self._current = 0
        self._begin: State
        self._validated: State | None

    def on_train_begin(self, logs: Any = None) -> None:
        """Creates the optimizer's variables, which fit does in its first step."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before the first batch."""
        self._current = epoch + 1
        if self.wanted in (None, self._current):
            self._begin, self._validated = state_of(self.model), None

    def on_test_begin(self, logs: Any = None) -> None:
        """The validation of an epoch."""
        if self.wanted in (None, self._current):
            self._validated = state_of(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After the validation, if there is one."""
        if self.wanted not in (None, epoch + 1):
            return
        self.epoch, self.begin = epoch + 1, self._begin
        self.end = self._validated or state_of(self.model)
        self.loss, self.val_loss = logs["loss"], logs.get("val_loss")
        if self.wanted is not None:
            self.model.stop_training = True


def state_of(model: Any) -> State:
    """Copies of all values."""
    both = model.variables, model.optimizer.variables
    return State(*([np.array(keras.ops.convert_to_numpy(v)) for v in some] for some in both))


def restore(model: Any, state: State) -> None:
    """Puts the values back."""
    for variables, values in zip((model.variables, model.optimizer.variables), state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
