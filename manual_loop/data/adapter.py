"""What every kind of data becomes: a `DataAdapter`."""

import dataclasses
from collections.abc import Callable, Iterable


@dataclasses.dataclass
class DataAdapter:
    """Batches from one kind of data (`keras/src/trainers/data_adapters/data_adapter.py`).

    Attributes:
        dataset: iterable of `x`, `(x, y)` or `(x, y, sample_weight)`, one epoch: a
            `tf.data.Dataset` or a `resident.ResidentDataset`.
        num_batches: how many there are, or None if unknown.
        batch_size: samples in the first batch, or None if unknown.
        restarts: whether a new iterator starts from the first batch again.
        on_epoch_begin, on_epoch_end: called around each epoch.
    """

    dataset: Iterable
    num_batches: int | None
    batch_size: int | None
    restarts: bool = True
    on_epoch_begin: Callable = lambda: None
    on_epoch_end: Callable = lambda: None
