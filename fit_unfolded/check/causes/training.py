"""Causes of departures in the first weights, the data and the end of the training."""

from collections.abc import Iterator

from fit_unfolded import pitfalls
from fit_unfolded.check.causes.cause import ARRAYS, Cause
from fit_unfolded.check.history import outside_calls
from fit_unfolded.check.mistakes import TRAINER
from fit_unfolded.check.stages import Comparison, Stage
from fit_unfolded.pitfalls.source import Place

BUILT = Place(f"{TRAINER}.fit", "self._maybe_symbolic_build(iterator")


def of_initial_weights(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """New or other weights before the first step."""
    yield Cause(
        "unequal-first-weights",
        "The training does not begin with the model's own weights",
        stage.says,
        BUILT,
        "train the model as it is given; leave its weights alone",
        exact=True,
    )


ROWS = Place(f"{ARRAYS}.get_tf_dataset", "indices = tf.range(num_samples")
PERMUTED = Place(f"{ARRAYS}.get_tf_dataset", "indices = tf.random.shuffle(indices)")
REMAINDER = Place(f"{ARRAYS}.get_tf_dataset", "flat_dataset = flat_dataset.concatenate(")
SIZE = Place(f"{ARRAYS}.__init__", "self._size = int(math.ceil(")
SPLIT = Place(
    "keras.src.trainers.data_adapters.array_slicing:train_validation_split", "val_arrays = tree"
)
# By kind of departure: name, title, Keras's line, the line to write. The rows themselves show it.
OF_ROWS = {
    "partial batch dropped": (
        "partial-batch-dropped",
        "The last, smaller batch is dropped",
        REMAINDER,
        "dataset.batch(batch_size), without drop_remainder; range(0, n, batch_size)",
    ),
    "labels apart": (
        "x-shuffled-without-y",
        "x and y are shuffled apart",
        PERMUTED,
        "order = rng.permutation(n); x, y = x[order], y[order]",
    ),
    "batch size": ("other-batch-size", "Another batch size", SIZE, "take batch_size from FIT"),
    "shuffled": (
        "shuffled",
        "The rows are shuffled, though FIT has shuffle=False",
        ROWS,
        "leave out the shuffling",
    ),
    "not shuffled": (
        "not-shuffled",
        "The rows are not shuffled",
        PERMUTED,
        "order = rng.permutation(n) in each epoch; dataset.shuffle(n)",
    ),
    "one permutation": (
        "one-permutation",
        "One permutation of the rows for all epochs",
        PERMUTED,
        "draw a new one in each epoch; dataset.shuffle(n) without reshuffle_each_iteration=False",
    ),
    "small buffer": (
        "small-shuffle-buffer",
        "A shuffle buffer smaller than the data",
        PERMUTED,
        "dataset.shuffle(n), with the number of samples",
    ),
}


def of_data(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Other rows, or rows in another order: what was recorded is the cause itself."""
    if stage.kind == "validation rows":
        name = "shuffled-split" if _is_split(found) else "validation-rows-leak"
        title = "Validation rows among the training data"
        write = "at = int(n * (1 - validation_split)); train on x[:at], before any shuffling"
        yield Cause(name, title, stage.says, SPLIT, write, exact=True)
    elif stage.kind in OF_ROWS:
        name, title, place, write = OF_ROWS[stage.kind]
        yield Cause(name, title, stage.says, place, write, exact=True)


def _is_split(found: Comparison) -> bool:
    """Whether the rows are divided otherwise than by fit, but kept apart.

    A row that is trained on in one epoch and validated on in another is a leak.
    """
    if not found.problem.held_out or found.problem.validation is None:
        return False
    everything = found.problem.train.joined(found.problem.validation)
    trained = {
        row
        for step in found.seen.steps
        for block in step.blocks
        for row in everything.find(block.calls[0].x if block.calls else []) or ()
    }
    validated = {row for call in outside_calls(found) for row in everything.find(call.x) or ()}
    return not trained & validated


EPOCHS = Place(f"{TRAINER}.fit", "for epoch in range(initial_epoch, epochs):")
STOPPED = Place(f"{TRAINER}.fit", "if self.stop_training:")
RESTORED = Place("keras.src.callbacks.early_stopping:EarlyStopping.on_train_end", "if self.restore")


def of_epoch(found: Comparison, stage: Stage) -> Iterator[Cause]:
    """Another number of epochs, or other weights at the end."""
    if stage.kind == "number":
        stops = found.ends is not None and found.ends.stopped is not None
        title = "Training does not stop where fit does" if stops else "Another number of epochs"
        write = "stop where the callbacks in FIT do" if stops else "for epoch in range(epochs):"
        place = STOPPED if stops else EPOCHS
        yield Cause("other-epochs", title, stage.says, place, write, exact=True)
    if stage.kind == "not restored":
        yield Cause(
            "best-weights-not-restored",
            "The best weights are not put back at the end",
            stage.says,
            RESTORED,
            "model.set_weights(best_weights) after the last epoch",
            exact=True,
        )
    if stage.kind == "end" and getattr(found.reference.optimizer, "use_ema", False):
        mistake = pitfalls.get("averages-not-written")
        write = "optimizer.finalize_variable_values(model.trainable_weights)"
        yield Cause(mistake.name, mistake.title, stage.says, mistake.keras, write, exact=True)
