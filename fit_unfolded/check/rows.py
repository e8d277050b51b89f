"""The data that fit would train on, and which of their rows a batch holds."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.common.errors import InputError
from manual_loop.data.arrays import split, to_array
from manual_loop.data.sample_weights import weigh_classes

tree = keras.tree
MOST_BATCHES = 100_000  # of a tf.data.Dataset that is read into memory


@dataclass
class Rows:
    """Arrays of fit, and where each row is.

    Attributes:
        x, y, sample_weight: NumPy arrays `[samples, ...]`, or structures of them, as fit casts
            them; y and sample_weight may be None. Rows of a dataset that have different shapes, as
            of padded batches, are in arrays of objects.
        samples: number of rows.
    """

    x: Any
    y: Any
    sample_weight: Any
    samples: int
    _places: dict[tuple[str, ...], dict[bytes, list[int]]] = field(default_factory=dict)
    _used: Counter[int] = field(default_factory=Counter)

    def find(
        self,
        x: list[np.ndarray],
        y: list[np.ndarray] | None = None,
        held: Sequence[np.ndarray] = (),
    ) -> list[int] | None:
        """The row numbers of a batch of model inputs; None if a row is not among these.

        Of equal rows, one whose label and weight are also equal and which was used least is meant.

        Args:
            x: what the model was called with, flattened.
            y: the labels that the batch came with, flattened; None if unknown.
            held: further arrays that may be its labels or weights.
        """
        if not x:
            return None
        dtypes = tuple(array.dtype.str for array in x)
        if dtypes not in self._places:
            self._places[dtypes] = self._index(x)
        places, found = self._places[dtypes], []
        if any(array.ndim == 0 or len(array) != len(x[0]) for array in x):
            return None
        further = [a for part in (self.y, self.sample_weight) for a in _leaves(part)]
        given = [*(y or []), *held]
        for number in range(len(x[0])):
            candidates = places.get(_key(x, number))
            if candidates is None:
                return None
            if len(candidates) > 1:
                candidates = _narrowed(candidates, number, given, further)
            place = min(candidates, key=lambda place: (self._used[place], place))
            self._used[place] += 1
            found.append(place)
        return found

    def holds(self, x: list[np.ndarray]) -> bool:
        """Whether every row of a batch is among these."""
        used = self._used.copy()
        found = self.find(x) is not None
        self._used = used
        return found

    def has_labels(self, y: list[np.ndarray], rows: list[int], in_order: bool = True) -> bool:
        """Whether labels are those of the rows; True where their form is another, as one-hot.

        Args:
            y: labels, flattened.
            in_order: False if each label may be that of any of the rows.
        """
        labels = [taken(part, rows) for part in tree.flatten(self.y)]
        if len(labels) != len(y) or any(
            np.size(a) != np.size(b) for a, b in zip(y, labels, strict=True)
        ):
            return True
        for mine, theirs in zip(y, labels, strict=True):
            a, b = np.ravel(mine).astype(theirs.dtype), np.ravel(theirs)
            if not in_order:
                a, b = np.sort(a), np.sort(b)
            if not np.array_equal(a, b):
                return False
        return True

    def batch(self, rows: list[int]) -> tuple[Any, ...]:
        """`x`, `(x, y)` or `(x, y, sample_weight)` of these rows, as tensors."""
        data = keras.utils.pack_x_y_sample_weight(self.x, self.y, self.sample_weight)
        data = tree.lists_to_tuples(data)
        return tree.map_structure(
            lambda a: None if a is None else tf.convert_to_tensor(taken(a, rows)), data
        )

    def batches(self, size: int) -> Iterator[tuple[Any, ...]]:
        """All rows in their order."""
        for at in range(0, self.samples, size):
            yield self.batch(list(range(at, min(at + size, self.samples))))

    @property
    def uneven(self) -> bool:
        """Whether rows have different shapes."""
        return any(np.asarray(a).dtype == object for a in tree.flatten((self.x, self.y)))

    def joined(self, other: "Rows") -> "Rows":
        """These rows, and those of `other` behind them."""
        parts: list[Any] = []
        for mine, theirs in ((self.x, other.x), (self.y, other.y)):
            both = mine is not None and theirs is not None
            parts.append(tree.map_structure(_concatenated, mine, theirs) if both else mine)
        weight = self.sample_weight
        if weight is not None:

            def filled(array: np.ndarray) -> np.ndarray:
                return _concatenated(array, np.ones([other.samples, *array.shape[1:]], array.dtype))

            weight = tree.map_structure(filled, weight)
        return Rows(parts[0], parts[1], weight, self.samples + other.samples)

    def _index(self, x: list[np.ndarray]) -> dict[bytes, list[int]]:
        arrays = [np.asarray(a) for a in tree.flatten(self.x)]
        places: dict[bytes, list[int]] = {}
        if len(arrays) != len(x):
            return places
        arrays = [_cast(a, b.dtype) for a, b in zip(arrays, x, strict=True)]
        for number in range(self.samples):
            places.setdefault(_key(arrays, number), []).append(number)
        return places


@dataclass
class Problem:
    """The data of a training, as fit divides them.

    Attributes:
        train: the rows to train on, class weights among their sample weights.
        held_out: the rows that `validation_split` keeps; None without it.
        validation: what fit validates on; None without.
        batch_size, steps: samples in a batch, batches in an epoch.
        shuffles: whether fit shuffles the rows.
        ordered: whether the data are a `tf.data.Dataset`, which has an order of its own.
        unknown_length: whether the dataset does not tell how many batches it has.
        class_weight: of fit, by class; None without. It is in the sample weights of `train` too.
    """

    train: Rows
    validation: Rows | None
    held_out: bool
    batch_size: int
    steps: int
    shuffles: bool
    ordered: bool
    unknown_length: bool
    class_weight: dict[int, float] | None


def problem_of(data: dict[str, Any], fit: dict[str, Any]) -> Problem:
    """The problem that the data and the arguments of fit pose.

    Raises:
        InputError: data of unlimited length, or none that can be read.
    """
    x, y, weight = data["x"], data.get("y"), data.get("sample_weight")
    validation, ordered = data.get("validation_data"), isinstance(data["x"], tf.data.Dataset)
    batch_size = fit.get("batch_size")
    fraction = fit.get("validation_split") or 0.0
    held_out = bool(fraction) and validation is None
    if ordered:
        x, y, weight, batch_size = _read(x)
    elif held_out:
        (x, y, weight), validation = split(x, y, weight, fraction)
    class_weight = data.get("class_weight")
    if class_weight is not None:
        weight = weigh_classes(y, class_weight)
    train = _rows(x, y, weight)
    steps = fit.get("steps_per_epoch")
    if not batch_size:
        batch_size = math.ceil(train.samples / steps) if steps else 32
    return Problem(
        train=train,
        validation=_validation(validation),
        held_out=held_out,
        batch_size=batch_size,
        steps=steps or math.ceil(train.samples / batch_size),
        shuffles=bool(fit.get("shuffle", True)) and not ordered,
        ordered=ordered,
        unknown_length=ordered and int(data["x"].cardinality()) == tf.data.UNKNOWN_CARDINALITY,
        class_weight=class_weight,
    )


def _validation(data: Any) -> Rows | None:
    if data is None:
        return None
    if isinstance(data, tf.data.Dataset):
        return _rows(*_read(data)[:3])
    return _rows(*keras.utils.unpack_x_y_sample_weight(data))


def _rows(x: Any, y: Any, weight: Any) -> Rows:
    x, y, weight = (
        tree.map_structure(lambda a: None if a is None else _copied(a), part)
        for part in (x, y, weight)
    )
    return Rows(x, y, weight, len(tree.flatten(x)[0]))


def _copied(array: Any) -> np.ndarray:
    """As fit casts it."""
    return np.array(array if getattr(array, "dtype", None) is np.dtype(object) else to_array(array))


def _read(dataset: tf.data.Dataset) -> tuple[Any, Any, Any, int]:
    """All rows of one pass, and the size of the first batch."""
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError(
            "data(): x is an infinite tf.data.Dataset; `check` needs one that ends: leave out "
            "repeat()."
        )
    batches = [
        keras.utils.unpack_x_y_sample_weight(batch)
        for batch in dataset.take(MOST_BATCHES).as_numpy_iterator()
    ]
    if not batches:
        raise InputError("data(): x is a tf.data.Dataset without batches.")
    columns: list[Any] = []
    for column in zip(*batches, strict=True):
        if column[0] is None:
            columns.append(None)
        else:
            columns.append(tree.map_structure(_concatenated, *column))
    return columns[0], columns[1], columns[2], len(tree.flatten(batches[0][0])[0])


def _concatenated(*parts: Any) -> np.ndarray:
    arrays = [np.asarray(part) for part in parts]
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    rows = [row for array in arrays for row in array]
    found = np.empty(len(rows), object)
    for place, row in enumerate(rows):
        found[place] = row
    return found


def taken(array: Any, rows: list[int]) -> np.ndarray:
    """Those rows of an array."""
    array = np.asarray(array)
    return np.stack(list(array[rows])) if array.dtype == object else array[rows]


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    if array.dtype != object:
        return array.astype(dtype)
    found = np.empty(len(array), object)
    for place, row in enumerate(array):
        found[place] = row.astype(dtype)
    return found


def _key(arrays: list[np.ndarray], number: int) -> bytes:
    return b"|".join(np.ascontiguousarray(array[number]).tobytes() for array in arrays)


def _leaves(structure: Any) -> list[np.ndarray]:
    return [] if structure is None else [np.asarray(a) for a in tree.flatten(structure)]


def _narrowed(
    candidates: list[int], number: int, given: list[np.ndarray], further: list[np.ndarray]
) -> list[int]:
    """Those places whose labels and weights are the row `number` of one of the given arrays."""
    for array in further:
        for mine in given:
            if _row_size(mine) == _row_size(array):
                equal = [place for place in candidates if _equal(mine, number, array, place)]
                if equal:
                    candidates = equal
                    break
    return candidates


def _row_size(array: np.ndarray) -> int:
    return int(np.prod(np.shape(array)[1:], dtype=int))


def _equal(a: np.ndarray, row: int, b: np.ndarray, place: int) -> bool:
    return bool(np.array_equal(np.ravel(a[row]), np.ravel(b[place])))
