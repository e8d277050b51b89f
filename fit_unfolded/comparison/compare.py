"""Trains both implementations from one seed, and compares every observable value."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_fit
import manual_loop
from fit_unfolded.comparison.record import Call, Recorder
from fit_unfolded.comparison.ulp import distance, log_distance
from fit_unfolded.workloads import Data, Workload

TRAINERS: dict[str, Any] = {"keras_fit": keras_fit.Trainer, "manual_loop": manual_loop.Trainer}
IMPLEMENTATIONS = tuple(TRAINERS)


@dataclass
class Run:
    """The training of one implementation, with everything that is compared.

    Attributes:
        side: name of the implementation.
        trainer: the trainer, which can train on.
        calls: every callback call of fit, evaluate and predict, in order.
        history: `History.history`, lists of floats, one per epoch.
        weights: path and values of each model variable, seed generators included, after fit.
        optimizer: path and values of each optimizer variable after fit.
        evaluate: loss and metrics on the test set.
        predict: the model's outputs on the test set, `[samples, ...]`.
    """

    side: str
    trainer: Any
    calls: list[Call]
    history: dict[str, list[float]]
    weights: list[tuple[str, np.ndarray]]
    optimizer: list[tuple[str, np.ndarray]]
    evaluate: dict[str, float]
    predict: Any

    def figures(self) -> dict[str, Any]:
        """History and evaluation, for the record."""
        return {"history": self.history, "evaluate": self.evaluate}


def train(
    side: str,
    workload: Workload,
    data: Data,
    seed: int,
    fit_arguments: dict[str, Any] | None = None,
    compile_arguments: dict[str, Any] | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    strategy: Any = None,
    make_trainer: Callable[[keras.Model], Any] | None = None,
) -> Run:
    """Trains `workload` from `seed`, then evaluates and predicts the test set.

    Args:
        side: the implementation, "keras_fit" or "manual_loop"; any name with `make_trainer`.
        data: the result of `workload.load`; pass the same arrays to both implementations.
        seed: set before the model is built and again before fit.
        fit_arguments, compile_arguments: override those of the workload.
        callbacks: in addition to the recorder; pass equal ones to both implementations.
        strategy: a `tf.distribute.Strategy` to train under; None for one device.
        make_trainer: `model -> trainer`; None for that of `side`.
    """
    keras.utils.set_random_seed(seed)
    with strategy.scope() if strategy else nullcontext():
        trainer = (make_trainer or TRAINERS[side])(workload.build())
        trainer.compile(**workload.compile() | (compile_arguments or {}))
    model = trainer.model

    recorder = Recorder()
    keras.utils.set_random_seed(seed)
    fit = workload.fit | (fit_arguments or {}) | {"verbose": 0}
    own = copy.deepcopy(fit.pop("callbacks", None) or [])  # as they were before any training
    own = own if isinstance(own, list | tuple) else [own]
    history = trainer.fit(
        data.x, data.y, callbacks=[recorder, *own, *callbacks], **data.extra, **fit
    )
    weights = _values(model.variables)
    optimizer = _values(trainer.optimizer.variables)

    test = {"batch_size": fit.get("batch_size"), "verbose": 0, "callbacks": [recorder]}
    return Run(
        side=side,
        trainer=trainer,
        calls=recorder.calls,
        history=history.history,
        weights=weights,
        optimizer=optimizer,
        evaluate=trainer.evaluate(data.x_test, data.y_test, return_dict=True, **test),
        predict=trainer.predict(data.x_test, **test),
    )


class FirstReplica(keras.callbacks.Callback):
    """After training, copies the first replica's variables to all replicas, as workers do."""

    def on_train_end(self, logs=None):
        for variable in self.model.variables:
            variable.assign(variable.value)


def apart(a: Run, b: Run) -> float:
    """The largest absolute difference of two runs: of history, variables and evaluation."""
    pairs = [
        *_nested_pairs("history", a.history, b.history),
        *_variable_pairs(a.weights, b.weights),
        *_variable_pairs(a.optimizer, b.optimizer),
        *_nested_pairs("evaluate", a.evaluate, b.evaluate),
        *_nested_pairs("predict", a.predict, b.predict),
    ]
    return max(float(np.max(np.abs(np.subtract(pair.a, pair.b)), initial=0)) for pair in pairs)


def _values(variables) -> list[tuple[str, np.ndarray]]:
    return [(v.path, np.array(keras.ops.convert_to_numpy(v))) for v in variables]


class Pair(NamedTuple):
    """The same value in both implementations, and its name; None where one lacks it."""

    where: str
    a: Any
    b: Any


class Check(NamedTuple):
    """One kind of value: how many were compared, their largest distance, the first difference."""

    name: str
    values: int
    ulp: float
    first: str | None


@dataclass(frozen=True)
class Comparison:
    """All checks of two runs; they match when every distance is 0 ULP."""

    sides: tuple[str, str]
    checks: list[Check]

    @property
    def match(self) -> bool:
        """Whether nothing differs."""
        return all(check.first is None for check in self.checks)

    @property
    def verdict(self) -> str:
        """The result in words; of a mismatch, the first difference."""
        for check in self.checks:
            if check.first is not None:
                return f"MISMATCH: first in {check.name}, {check.first}."
        values = sum(check.values for check in self.checks)
        return f"MATCH: 0 ULP apart in all {values:,} values compared."

    def _repr_html_(self) -> str:
        """The tables of the terminal report and the verdict, in the cell of a notebook."""
        from fit_unfolded.common.notebook import printed
        from fit_unfolded.comparison.report import print_checks, print_verdict

        return printed(print_checks, self) + printed(print_verdict, self)

    def figures(self) -> dict[str, Any]:
        """The verdict and each check, for the record."""
        return {
            "match": self.match,
            "verdict": self.verdict,
            "checks": [check._asdict() for check in self.checks],
        }


def compare(a: Run, b: Run) -> Comparison:
    """Compares all observable values of two runs; distances in ULP, see `ulp.log_distance`.

    Variables are paired by position, since two models in one process have different names.
    Logs are paired up to the first callback call that differs.
    """
    sides = (a.side, b.side)
    log_pairs = list(_log_pairs(a.calls, b.calls))
    pairs = {
        "callback calls": _call_pairs(a.calls, b.calls),
        "batch logs": [pair for pair in log_pairs if "_batch_" in pair.where],
        "epoch logs": [pair for pair in log_pairs if "_batch_" not in pair.where],
        "history": _nested_pairs("history", a.history, b.history),
        "weights": _variable_pairs(a.weights, b.weights),
        "optimizer variables": _variable_pairs(a.optimizer, b.optimizer),
        "evaluate": _nested_pairs("evaluate", a.evaluate, b.evaluate),
        "predict": _nested_pairs("predict", a.predict, b.predict),
    }
    return Comparison(sides, [_check(name, pairs[name], sides) for name in pairs])


def _check(name: str, pairs: list[Pair], sides: tuple[str, str]) -> Check:
    distances = [log_distance(pair.a, pair.b) for pair in pairs]
    differing = (pair for pair, ulp in zip(pairs, distances, strict=True) if ulp)
    first = next(differing, None)
    return Check(
        name=name,
        values=sum(np.size(pair.a) for pair in pairs),
        ulp=max(distances, default=0.0),
        first=None if first is None else _describe(first, sides),
    )


def _describe(pair: Pair, sides: tuple[str, str]) -> str:
    where, a, b = pair
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape == b.shape and a.dtype == b.dtype:
            index = next(i for i in np.ndindex(a.shape) if distance(a[i], b[i]))
            where, a, b = f"{where}{list(index) or ''}", a[index], b[index]
        else:
            a, b = (f"{array.dtype} {list(array.shape)}" for array in (a, b))
    ulp = log_distance(a, b)
    apart = f", {ulp:.0f} ULP apart" if np.isfinite(ulp) else ""
    return f"{where}: {a} in {sides[0]}, {b} in {sides[1]}{apart}"


def _signature(call: Call) -> str:
    parts = [] if call.argument is None else [repr(call.argument)]
    parts += [] if call.logs is None else [f"logs={list(call.logs)}"]
    return f"{call.method}({', '.join(parts)})"


def _call_pairs(a: list[Call], b: list[Call]) -> list[Pair]:
    lines = zip_longest(map(_signature, a), map(_signature, b), fillvalue="no call")
    return [Pair(f"call {number}", *pair) for number, pair in enumerate(lines, start=1)]


def _log_pairs(a: list[Call], b: list[Call]) -> Iterator[Pair]:
    place = ""
    for call_a, call_b in zip(a, b, strict=False):
        if _signature(call_a) != _signature(call_b):
            return
        if call_a.method == "on_epoch_begin":
            place = f"epoch {call_a.argument}, "
        elif call_a.method == "set_params":  # a new fit, evaluate or predict
            place = ""
        argument = "" if call_a.argument is None else call_a.argument
        where = f"{place}{call_a.method}({argument}), logs"
        yield from _nested_pairs(where, call_a.logs or {}, call_b.logs or {})


def _variable_pairs(a: list[tuple[str, np.ndarray]], b: list[tuple[str, np.ndarray]]) -> list[Pair]:
    if len(a) != len(b):
        return [Pair("number of variables", len(a), len(b))]
    return [Pair(path, left, right) for (path, left), (_, right) in zip(a, b, strict=True)]


def _nested_pairs(where: str, a: Any, b: Any) -> list[Pair]:
    """Pairs of the leaves of two nested structures; one pair of their contents if those differ."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) != list(b):
        return [Pair(f"names in {where}", str(list(a)), str(list(b)))]
    leaves_a, leaves_b = (
        {where + "".join(f"[{key!r}]" for key in path): leaf for path, leaf in flat}
        for flat in map(keras.tree.flatten_with_path, (a, b))
    )
    if list(leaves_a) != list(leaves_b):
        return [Pair(f"contents of {where}", str(list(leaves_a)), str(list(leaves_b)))]
    return [Pair(path, leaves_a[path], leaves_b[path]) for path in leaves_a]
