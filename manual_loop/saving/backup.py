"""Backup: an interrupted training goes on where it was, and ends as an undisturbed one.

As `keras.callbacks.BackupAndRestore` (`keras/src/callbacks/backup_and_restore.py`, Keras 3.15), but

1. all that a training depends on is in it, see `training_state.py`: BackupAndRestore keeps weights,
   optimizer and the epoch, so Dropout's masks, EarlyStopping's patience and History start anew;
2. the loop goes on from any batch: BackupAndRestore begins the epoch again, from the weights in the
   middle of it, and so trains on its first batches twice;
3. a process that dies while it writes leaves a complete backup, see `backup_file.py`.
"""

import contextlib
import copy
import datetime
import pathlib
import warnings

import keras

from manual_loop.callbacks import to_floats
from manual_loop.saving import backup_file, training_state

EPOCH = "epoch"


class Backup(keras.callbacks.Callback):
    """Writes the state of a training as it goes on; `fit` starts from the last one.

    With `manual_loop.Trainer` it may be anywhere among the callbacks, and a resumed training equals
    an undisturbed one to the last bit from the backup on. `fit` hears `on_train_begin` again, and
    `on_epoch_begin` if it goes on within an epoch; then all is set as it was.

    With Keras's own `fit`:

    - Backups are written at the ends of epochs, since fit cannot begin within one. The epoch that
      was interrupted is trained again as a whole, with the same result.
    - It must be the last callback, so that it sees what the others have done. Only
      `keras_fit.Trainer` tells it which they are; else their states are not kept.
    - A `tf.data.Dataset` that shuffles anew in each epoch starts with its first order again.

    Not in it: random numbers that a step draws by TensorFlow's stateful ops (`tf.random.normal`;
    Keras's layers do not), and Keras's seed generator of calls without a seed.

    Args:
        path: of the file; must end in `.npz`. The backup before is kept too, in
            `NAME.previous.npz`, and taken if the newest is damaged. Both are removed when `fit`
            ends.
        every: `"epoch"`, or after how many batches as an int, or after what time as a
            `datetime.timedelta`. With `steps_per_execution`, and under a strategy, at the next end
            of a call or of an epoch.
        generator: needed only if `x` is a generator or a `DataLoader`. `"restarts"`: it yields its
            first batch first again, and those before the backup are skipped; `"continues"`: it
            yields the one after the backup first.

    Attributes:
        resumed: None, or in words where the loop went on, and how it found the place in the data.

    Raises:
        ValueError: another ending or value; from `fit`, a model that is not built, or a backup of
            another model, of other callbacks, or damaged.
    """

    writes = True  # see `multi_worker.writes`

    def __init__(self, path, every=EPOCH, generator=None):
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".npz":
            raise ValueError(f"`path` must end in .npz. Received: {path}")
        is_count = isinstance(every, int) and not isinstance(every, bool) and every > 0
        is_time = isinstance(every, datetime.timedelta) and every > datetime.timedelta()
        if not (is_count or is_time or every == EPOCH):
            raise ValueError(
                "`every` must be 'epoch', a positive number of batches, or a positive "
                f"datetime.timedelta. Received: {every!r}"
            )
        if generator not in (None, "restarts", "continues"):
            raise ValueError(
                f"`generator` must be 'restarts' or 'continues'. Received: {generator!r}"
            )
        self.every = every
        self.generator = generator
        self.in_loop = False  # the loop calls by itself what fit calls by the hooks below
        self.resumed = None
        self._callbacks = []
        self._epochs = []  # of the history, until `History.on_train_begin` has been called

    def set_callbacks(self, callbacks):
        """For Keras's `fit`: the callbacks of this training, whose states are kept too.

        Raises:
            ValueError: this is not the last of those that have a state.
        """
        later = callbacks[callbacks.index(self) + 1 :]
        if any(map(training_state.has_state, later)):
            raise ValueError(
                "`Backup` must be the last of the callbacks of Keras's `fit`, so that it sees what "
                "the others have done."
            )
        self._callbacks = [callback for callback in callbacks if callback is not self]

    def on_train_begin(self, logs=None):
        """Go on from the last backup, if there is one."""
        if self.in_loop:
            return
        if self.every != EPOCH:
            warnings.warn(
                "Keras's `fit` cannot begin within an epoch, so `Backup` writes at the ends of "
                f"epochs, not at `every={self.every!r}`. `manual_loop.Trainer` goes on from any "
                "batch.",
                stacklevel=2,
            )
        self.prepare()
        state = backup_file.read(self.path)
        if state is None:
            return
        if state["step"]:
            raise ValueError(
                f"{self.path} is a backup within an epoch, where Keras's `fit` cannot begin: go on "
                "with `manual_loop.Trainer`."
            )
        history = self.model.history
        self.restore(state, [*self._callbacks, history])
        self._epochs = history.epoch
        self.model._initial_epoch = self.params["epochs"] if state["stopped"] else state["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        """Restore what `History.on_train_begin` has forgotten."""
        if self._epochs:
            self.model.history.epoch, self._epochs = self._epochs, []

    def on_epoch_end(self, epoch, logs=None):
        """Write a backup."""
        if self.in_loop:
            return
        history = keras.callbacks.History()  # as it will be: its turn comes after this callback
        history.epoch = [*self.model.history.epoch, epoch]
        history.history = {k: list(v) for k, v in self.model.history.history.items()}
        for name, value in (logs or {}).items():
            history.history.setdefault(name, []).append(value)
        self.write(self.state([*self._callbacks, history], epoch=epoch + 1, logs=logs))

    def on_train_end(self, logs=None):
        """Remove the backups: the training is complete."""
        if not self.in_loop:
            self.on_epoch_begin(0)
            self.model._initial_epoch = None
            backup_file.remove(self.path)

    def prepare(self):
        """Build the optimizer, whose variables are in the backup.

        Raises:
            ValueError: the model is not built.
        """
        if not self.model.built:
            raise ValueError("`Backup` needs a built model: call it on one batch before `fit`.")
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)

    def state(self, callbacks, *, epoch, step=0, logs=None, data=None):
        """What a backup holds.

        Args:
            callbacks: all of the training.
            epoch, step: where the training stands: the epoch, and the batches trained on in it.
            logs: of the last epoch, or of the last step.
            data: `EpochIterator.get_state`.
        """
        return {
            "epoch": epoch,
            "step": step,
            "logs": to_floats(logs or {}),
            "stopped": self.model.stop_training,
            "data": data,
            "callbacks": training_state.get_callback_states(callbacks),
            "random": training_state.get_random_states(),
            "variables": training_state.get_variables(variables_of(self.model, step)),
        }

    def restore(self, state, callbacks):
        """Set the callbacks, random generators and variables as they were.

        The variables are checked first and set last: nothing is set in half of a model.

        Raises:
            ValueError: the state is of another model, or of other callbacks, or of no training.
        """
        saved = state["variables"]
        # None on a worker that gets them from the chief: there, the backup belongs to no model
        variables = [] if saved is None else variables_of(self.model, state["step"])
        with self.errors_named():
            if saved is not None:
                training_state.check_variables(variables, saved)
            training_state.set_callback_states(callbacks, state["callbacks"])
            training_state.set_random_states(state["random"])
        if saved is not None:
            training_state.set_variables(variables, saved)

    @contextlib.contextmanager
    def errors_named(self):
        """In this block a state is read: what is wrong with it is a `ValueError` with the file."""
        try:
            yield
        except Exception as error:
            words = str(error)
            if not isinstance(error, ValueError):
                words = f"cannot be used ({type(error).__name__}: {words})"
            message = f"{self.path} {words}. Remove it, or name another `path`."
            raise ValueError(message) from error

    def write(self, state):
        """Make this the newest backup, in the background."""
        snapshots = {name: state.pop(name) for name in ("variables", "random")}
        # the rest may change meanwhile
        backup_file.write_soon(self.path, copy.deepcopy(state) | snapshots)


def variables_of(model, step):
    """Those of the model and of its optimizer, and within an epoch those of its metrics."""
    variables = [*model.variables, *model.optimizer.variables]
    if not step:
        return variables
    own = {id(variable) for variable in variables}
    return variables + [v for v in model.metrics_variables if id(v) not in own]
