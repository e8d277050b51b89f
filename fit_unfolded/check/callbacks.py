"""The callbacks of fit on the loop's own weights: learning rates, early stopping, best weights."""

import copy
from dataclasses import dataclass
from typing import Any

import keras

from fit_unfolded.check.observe import State, state_of
from fit_unfolded.check.reference import Reference

# These write and show; they change nothing in a training.
WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


@dataclass(frozen=True)
class Ends:
    """How fit's callbacks end the training.

    Attributes:
        stopped: the epoch, counted from 0, after which a callback stops it; None if none does.
        final: the model's variables after `on_train_end`.
    """

    stopped: int | None
    final: State


class Callbacks:
    """Fit's callbacks, called on a copy of the model with the weights that the loop had.

    The values of the learning rate that they leave are those of `Reference.rates`.

    Args:
        epochs, steps: of fit.
    """

    def __init__(self, reference: Reference, fit: dict[str, Any], epochs: int, steps: int):
        own = fit.get("callbacks") or []
        own = own if isinstance(own, list | tuple) else [own]
        kept = [copy.deepcopy(c) for c in own if not isinstance(c, WRITERS)]
        self.any = bool(kept)
        self.stopped: int | None = None
        self._reference = reference
        reference.model.stop_training = False
        self._list = keras.callbacks.CallbackList(
            kept, model=reference.model, epochs=epochs, steps=steps, verbose=0
        )

    def call(self, method: str, *arguments: Any) -> None:
        """Calls a method of all callbacks."""
        if self.any:
            self._reference.put_rates()
            getattr(self._list, method)(*arguments)
            self._reference.take_rates()

    def end_epoch(self, epoch: int, state: State, slots: State | None, logs: Any) -> None:
        """`on_epoch_end`, with the weights and the optimizer's variables of that time."""
        if self.any:
            self._reference.restore(state, slots)
            self.call("on_epoch_end", epoch, logs)
            if self._reference.model.stop_training and self.stopped is None:
                self.stopped = epoch

    def end(self, state: State) -> Ends:
        """`on_train_end`."""
        self._reference.restore(state, None)
        self.call("on_train_end")
        return Ends(self.stopped, state_of(self._reference.model))
