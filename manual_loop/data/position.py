"""The place in the data that a training goes on from, and how it is found again.

arrays, PyDataset    the order of the epoch is kept, and the number of the next batch
tf.data              the iterator's own checkpoint, where TensorFlow can write one: not with
                     Python, or random ops without a seed in the kernel, in the pipeline
others               a new iterator, and the batches before the place are read and skipped
generators           cannot be started again: only the user knows what they yield next
"""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

BY_INDEX = "the order of the batches was kept"
CHECKPOINT = "tf.data restored its iterator"
SKIPPED = "the batches before were read again and skipped"
CONTINUED = "the generator was taken to yield the next batch first"

ONCE = ("generator", "torch DataLoader")
PLACES = ("restarts", "continues")


def check(adapter, steps_per_epoch, generator):
    """Whether there is a way to find a place in this data again.

    Args:
        adapter: a `DataAdapter`.
        steps_per_epoch: as in `fit`.
        generator: see `Backup`.

    Raises:
        ValueError: there is none, and why.
    """
    if adapter.kind in ONCE and generator is None:
        raise ValueError(
            f"A {adapter.kind} cannot be put back to the place of a backup: only you know which "
            "batch it yields first when training is started again. Say so: `Backup(..., generator="
            "'restarts')` if the first of all, so that those before the place are skipped, or "
            "`generator='continues'` if the first after the backup."
        )
    if adapter.order is not None and not adapter.order.can_resume(steps_per_epoch):
        raise ValueError(
            "A PyDataset with workers and `steps_per_epoch`, or without a length, fetches batches "
            "beyond the end of an epoch and cannot be resumed. Set `workers=1` or leave out "
            "`steps_per_epoch`."
        )


def get_iterator(adapter, iterator):
    """An iterator's checkpoint, as `{file name: bytes}`; None where there is none."""
    if adapter.order is not None or not isinstance(iterator, tf.data.Iterator):
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iterator).write(f"{folder}/iterator")
        except tf.errors.OpError:  # something in the pipeline is stateful
            return None
        files = sorted(Path(folder).iterdir())
        return {file.name: np.frombuffer(file.read_bytes(), "uint8") for file in files}


def way_of(adapter, state, generator):
    """How the place of `EpochIterator.get_state` is found, in words."""
    if adapter.order is not None:
        return BY_INDEX
    if adapter.kind in ONCE and generator == "continues":
        return CONTINUED
    if state["iterator"] is None:
        return SKIPPED
    # see `iterators_before`: of the first iterator, only an endless one is sure to be right
    is_endless = adapter.dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    return CHECKPOINT if is_endless or state["iterators"] > 1 else SKIPPED


def iterators_before(state, way):
    """How many iterators to make until `set_iterator`, at least, so that the next draws the order
    that it draws in an undisturbed training.

    The checkpoint of an iterator holds how many orders a shuffle has drawn, unless a prefetch has
    read all that comes before it: TensorFlow leaves out what is at its end
    (`BatchDatasetOp::Dataset::Iterator::SaveInternal`, `kInputImplEmpty`). So the number must be
    right without it, and to restore an iterator draws once more.
    """
    return {SKIPPED: state["iterators"], CHECKPOINT: state["iterators"] - 1}.get(way, 1)


def set_iterator(iterator, state, way):
    """Bring a new iterator of a stream to the place."""
    if way == SKIPPED:
        for _ in range(state["at"]):
            next(iterator)
    elif way == CHECKPOINT:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in state["iterator"].items():
                Path(folder, Path(name).name).write_bytes(content.tobytes())
            tf.train.Checkpoint(iterator=iterator).read(f"{folder}/iterator").assert_consumed()
