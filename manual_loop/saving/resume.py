"""What the loop does for a `Backup`: it writes one when it is due, and goes on from the last.

The loop does this itself, since a callback that hears every batch would make it run single steps
(`execution/steps_tuner.py`). Calls of several steps end where a backup is due.
"""

import datetime
import functools
import time
from typing import Any

import keras

from manual_loop.execution.graph import graph, on_plain_tensors
from manual_loop.saving import backup_file
from manual_loop.saving.backup import EPOCH, Backup


def backup_among(given, callbacks, configuration, distribution, batches):
    """What to call while training: a `Resumption` if there is a `Backup`, else a `NoBackup`.

    Args:
        given: the callbacks, as `fit` was given them: on a worker that writes no files, a `Backup`
            is not among those that run.
        callbacks: the `keras.callbacks.CallbackList` of those that run.
        configuration: `compiled.configuration.Configuration`.
        distribution: see `distribution/single_device.py`.
        batches: `EpochIterator`.

    Raises:
        ValueError: several, or data whose place cannot be found again.
    """
    given = getattr(given, "callbacks", given)
    found = [c for c in keras.tree.flatten(given or []) if isinstance(c, Backup)]
    if not found:
        return NoBackup()
    if len(found) > 1:
        raise ValueError(f"`callbacks` must hold one `Backup` at most. Received: {len(found)}")
    return Resumption(found[0], callbacks, configuration, distribution, batches)


class NoBackup:
    """Nothing is written, and training starts from the start."""

    def restore(self, epochs):
        """After `on_train_begin`: the logs of the epoch before, if training goes on after one."""

    def begin_epoch(self, epoch, logs):
        """After `on_epoch_begin`: the logs of the step before, or those that are given."""
        return logs

    def limited(self, choose_steps):
        """`choose_steps` that ends a call where a backup is due."""
        return choose_steps

    def after_steps(self, steps, logs):
        """After a call: this many batches of the epoch are done."""

    def after_epoch(self, logs):
        """After `on_epoch_end`."""

    def end(self):
        """After `on_train_end`."""


class Resumption(NoBackup):
    """Writes and restores the backups of one call of `fit`.

    Args: as `backup_among`; `backup` is the `Backup`.
    """

    def __init__(self, backup, callbacks, configuration, distribution, batches):
        batches.check_resumable(backup.generator)
        self._backup = backup
        self._callbacks = callbacks.callbacks
        self._model = callbacks.model
        self._configuration = configuration
        self._distribution = distribution
        self._batches = batches
        self._is_writer = backup in self._callbacks
        self._within_epochs = backup.every != EPOCH and distribution.resumes_within_epochs
        self._state: Any = None  # to be restored
        self._epoch = self._step = self._since = 0
        self._written = time.monotonic()
        backup.in_loop = True

    def restore(self, epochs):
        """See `NoBackup`.

        Raises:
            ValueError: the backups are damaged, or of another model, data or callbacks.
        """
        backup = self._backup
        if self._is_writer:
            backup.prepare()
        state: Any = backup_file.read(backup.path) if self._is_writer else None
        # to other workers without the variables: `distribution.synchronize` sends these
        message = None if state is None else backup_file.to_bytes(state | {"variables": None})
        message = self._distribution.from_chief(message)
        if not message:
            return None
        if not self._is_writer:
            state = backup_file.from_bytes(message)
            here = {type(callback).__name__ for callback in self._callbacks}
            state["callbacks"] = [saved for saved in state["callbacks"] if saved[0] in here]
        self._state = state
        if state["step"]:
            self._make_metrics()
        if state["data"] is not None:  # first: it may fail, and draw random numbers
            with backup.errors_named():
                way = self._batches.set_state(state["data"], backup.generator)
            backup.resumed = f"epoch {state['epoch']}, batch {state['step']}: {way}"
        backup.restore(state, self._callbacks)
        self._model._initial_epoch = epochs if state["stopped"] else state["epoch"]
        return None if state["step"] else state["logs"]

    def _make_metrics(self):
        """Make the variables of the metrics, which the first step would make, without a step."""
        from manual_loop.distribution.replicas import resolve

        model, spec = self._model, self._batches.element_spec
        step = on_plain_tensors(functools.partial(resolve, model, self._configuration))
        with keras.StatelessScope([(v, v) for v in model.variables]):
            graph(step).get_concrete_function(spec)

    def begin_epoch(self, epoch, logs):
        """See `NoBackup`."""
        self._epoch, self._step, state = epoch, 0, self._state
        self._model._initial_epoch = None
        if state is None:
            return logs
        self._state = None
        if not state["step"]:
            return logs
        self._step = state["step"]
        self._backup.restore(state, self._callbacks)  # again: `on_epoch_begin` changes some
        return state["logs"]

    def limited(self, choose_steps):
        """See `NoBackup`."""
        if not self._within_epochs or not isinstance(self._backup.every, int):
            return choose_steps
        every = self._backup.every
        return lambda iterator, left: choose_steps(iterator, min(left, max(1, every - self._since)))

    def after_steps(self, steps, logs):
        """See `NoBackup`. After the last step of an epoch it is written when the epoch ends."""
        self._since += steps - self._step
        self._step = steps
        if not (self._within_epochs and self._is_due()) or self._model.stop_training:
            return
        length = self._batches.num_batches
        if length is None or steps < length:
            self._write(self._epoch, steps, logs)

    def after_epoch(self, logs):
        """See `NoBackup`."""
        if not self._within_epochs or self._is_due():
            self._write(self._epoch + 1, 0, logs)

    def end(self):
        """See `NoBackup`."""
        self._model._initial_epoch = None
        if self._is_writer:
            backup_file.remove(self._backup.path)
        self._backup.in_loop = False

    def _is_due(self):
        every = self._backup.every
        if isinstance(every, datetime.timedelta):
            return time.monotonic() - self._written >= every.total_seconds()
        return self._since >= every

    def _write(self, epoch, step, logs):
        self._distribution.from_chief(None)  # the other workers have come as far
        if self._is_writer:
            data = self._batches.get_state(step)
            state = self._backup.state(
                self._callbacks, epoch=epoch, step=step, logs=logs, data=data
            )
            self._backup.write(state)
        self._since, self._written = 0, time.monotonic()
