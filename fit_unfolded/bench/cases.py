"""What is timed: a model in one execution mode, by fit and by the loop, with XLA and without."""

import functools
import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_fit
import manual_loop
from fit_unfolded.bench import models
from fit_unfolded.bench.measure import LossesDiffer, Measurement, Ratio, measure
from fit_unfolded.bench.models import MODELS, Model, compile_arguments

TRAINERS: dict[str, Any] = {"fit": keras_fit.Trainer, "loop": manual_loop.Trainer}
SEED = 0

# It advises against many traces of one function; here each is a new model's, and wanted.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
FIRST_STEPS = 5
XLA_TOLERANCE = 1e-5  # relative, of each batch's loss in the first epoch; XLA rounds differently


class Variant(NamedTuple):
    """One implementation, with XLA or without."""

    side: str
    xla: bool

    def __str__(self) -> str:
        return f"{self.side} XLA" if self.xla else self.side


@dataclass(frozen=True)
class Case:
    """A model in one mode and precision: all its variants are timed in turns with each other.

    Attributes:
        mode: "eager"; "step", one step per call; "block", a multi-step call of a whole epoch.
        policy: Keras's dtype policy, such as "mixed_bfloat16".
        xla: the kinds of variants: without XLA, with it.
    """

    model: Model
    mode: str
    policy: str = "float32"
    xla: tuple[bool, ...] = (False, True)

    def __str__(self) -> str:
        precision = "" if self.policy == "float32" else f" {self.policy}"
        return f"{self.model.name} {self.mode}{precision}"

    @property
    def variants(self) -> list[Variant]:
        """fit, loop, fit XLA, loop XLA, as far as they apply."""
        return [Variant(side, xla) for xla in self.xla for side in TRAINERS]

    @property
    def pairs(self) -> list[tuple[Variant, Variant]]:
        """The variants that must be equal to the last bit."""
        return [(Variant("fit", xla), Variant("loop", xla)) for xla in self.xla]

    @property
    def epochs_per_turn(self) -> int:
        """One that is not counted, and one that is; or five if an epoch takes milliseconds."""
        return 6 if self.model.name == "lesson" and self.mode != "eager" else 2

    def build(self) -> Any:
        """A new model with the same weights each time."""
        keras.utils.set_random_seed(SEED)
        return self.model.build()

    def how(self, variant: Variant) -> dict[str, Any]:
        """Arguments of compile that select the execution mode."""
        return {
            "run_eagerly": self.mode == "eager",
            "jit_compile": variant.xla,
            "steps_per_execution": self.model.steps if self.mode == "block" else 1,
        }

    def trainer(self, variant: Variant, **arguments: Any) -> Any:
        """A new compiled trainer; `arguments` override those of compile."""
        trainer = TRAINERS[variant.side](self.build())
        trainer.compile(**compile_arguments() | self.how(variant) | arguments)
        return trainer


def on_gpu() -> bool:
    """Whether TensorFlow trains on one."""
    return bool(tf.config.list_logical_devices("GPU"))


def all_cases() -> list[Case]:
    """The whole suite. float16 is left out on a CPU, which has no arithmetic for it."""
    cases = []
    for model in MODELS.values():
        # eager needs no more batches to be measured, and is slow
        eager = model.cut(16 * model.batch_size)
        cases += [Case(eager, "eager", xla=(False,)), Case(model, "step"), Case(model, "block")]
    mixed = "mixed_float16" if on_gpu() else "mixed_bfloat16"
    for name in ("mlp", "transformer"):
        cases.append(Case(MODELS[name], "step", mixed, xla=(False,)))
        cases.append(Case(MODELS[name], "block", mixed, xla=(False,)))
    return cases


def sweeps() -> dict[str, list[tuple[int, Case]]]:
    """The mlp over batch size, width and number of samples: by name, `(value, case)`."""
    mlp = MODELS["mlp"]

    def cases(values: list[int], change: Callable[[int], Model], modes: tuple[str, ...]):
        return [(v, Case(change(v), mode, xla=(False,))) for v in values for mode in modes]

    return {
        "batch size": cases(
            [8, 16, 32, 64, 128, 256, 512, 1024],
            lambda size: replace(mlp, batch_size=size, samples=min(32 * size, 8192)),
            ("step", "block"),
        ),
        "width": cases(
            [16, 64, 256, 1024, 2048],
            lambda width: replace(mlp, build=functools.partial(models.mlp, width), samples=2048),
            ("step",),
        ),
        "samples": cases(
            [1024, 4096, 16384, 60000], lambda samples: replace(mlp, samples=samples), ("step",)
        ),
    }


def quick_cases() -> list[Case]:
    """One step per call without XLA, and multi-step calls with and without it."""
    return [
        Case(model, mode, xla=(False,) if mode == "step" or model.name == "cnn" else (False, True))
        for model in MODELS.values()
        for mode in ("step", "block")
    ]


@dataclass(frozen=True)
class Result:
    """What was measured of one case.

    Attributes:
        measurement: times of all variants, by `str(variant)`.
        first_step: seconds from compile to the end of the first batch, a list for each variant.
        ratios: speedup of the loop over fit: "", "XLA", and "best", each with XLA or without,
            whichever is faster.
    """

    case: Case
    measurement: Measurement
    first_step: dict[str, list[float]]
    ratios: dict[str, Ratio] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", _ratios(self.case, self.measurement))


def run(
    case: Case,
    seconds: float,
    turns: int = 15,
    at_least: int = 5,
    first_steps: int = FIRST_STEPS,
    each_turn: Callable[[], None] = lambda: None,
) -> Result:
    """Measures all variants of a case, once they have been found to compute the same.

    Args:
        seconds: no turn begins later, once there are `at_least` turns (and at most `turns`).
        first_steps: at most so many fresh models of each variant are timed to their first step;
            no round of them begins after three times `seconds`.

    Raises:
        LossesDiffer: two variants that should be equal are not, see `batch_losses` and `measure`.
    """
    with precision(case.policy):
        x, y = case.model.data()
        check_batch_losses(case, {v: batch_losses(case, v, x, y) for v in case.variants})
        starts: dict[str, list[float]] = {str(variant): [] for variant in case.variants}
        begin = time.perf_counter()
        for number in range(first_steps):
            if number and time.perf_counter() - begin > 3 * seconds:
                break
            for variant in case.variants:
                starts[str(variant)].append(_first_step(case, variant, x, y))
        measurement = measure(
            {str(variant): case.trainer(variant) for variant in case.variants},
            x,
            y,
            case.model.batch_size,
            SEED,
            turns=turns,
            at_least=at_least,
            seconds=seconds,
            epochs_per_turn=case.epochs_per_turn,
            batches=None,
            pairs=[(str(a), str(b)) for a, b in case.pairs],
            each_turn=each_turn,
        )
    return Result(case, measurement, starts)


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Keras's dtype policy for a while; what was built meanwhile is dropped afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
        keras.backend.clear_session()
        gc.collect()


class Recorder(keras.losses.Loss):
    """A loss that records its value for each batch, also within a multi-step call.

    Attributes:
        values: variable `[steps]`, the loss of each batch of one epoch.
        traces: how often Python ran these lines: once for each graph, or batch if eager.
    """

    def __init__(self, loss: Any, steps: int):
        super().__init__()
        self.loss = loss
        self.values = tf.Variable(tf.zeros([steps]), trainable=False)
        self.next = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.traces = 0

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.traces += 1
        loss = self.loss(y_true, y_pred, sample_weight=sample_weight)
        self.values.scatter_nd_update([[self.next]], [tf.stop_gradient(loss)])
        self.next.assign_add(1)
        return loss


def batch_losses(case: Case, variant: Variant, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of each batch of the first epoch, float32 `[steps]`, by a trainer of its own."""
    recorder = Recorder(keras.losses.SparseCategoricalCrossentropy(), case.model.steps)
    trainer = case.trainer(variant, loss=recorder)
    keras.utils.set_random_seed(SEED)
    trainer.fit(x, y, batch_size=case.model.batch_size, verbose=0)
    return recorder.values.numpy()


def check_batch_losses(case: Case, losses: dict[Variant, np.ndarray]) -> None:
    """Refuses variants that differ: not at all with XLA or without, and by rounding across.

    Raises:
        LossesDiffer: names the first batch.
    """
    for a, b in case.pairs:
        _check_close(losses, a, b, 0.0)
    for a, _ in case.pairs[1:]:
        _check_close(losses, case.pairs[0][0], a, XLA_TOLERANCE)


def _check_close(losses: dict[Variant, np.ndarray], a: Variant, b: Variant, relative: float):
    bad = ~np.isclose(losses[a], losses[b], rtol=relative, atol=0.0, equal_nan=True)
    if bad.any():
        batch = int(np.argmax(bad))
        raise LossesDiffer(
            f"epoch 0, batch {batch}: loss {losses[a][batch]} in {a}, {losses[b][batch]} in {b}"
        )


def _first_step(case: Case, variant: Variant, x: np.ndarray, y: np.ndarray) -> float:
    """Seconds from compile to the end of the first batch: tracing, compiling, starting."""
    trainer = TRAINERS[variant.side](case.build())
    arguments = compile_arguments()
    size = case.model.batch_size
    begin = time.perf_counter()
    trainer.compile(**arguments | case.how(variant))
    trainer.fit(x[:size], y[:size], batch_size=size, verbose=0)
    tf.test.experimental.sync_devices()
    return time.perf_counter() - begin


def _ratios(case: Case, measurement: Measurement) -> dict[str, Ratio]:
    ratios = {"XLA" if xla else "": measurement.faster(*_names(xla)) for xla in case.xla}
    if len(case.xla) > 1:
        timings = measurement.timings
        best = {
            side: min(
                (str(variant) for variant in case.variants if variant.side == side),
                key=lambda name: timings[name].median,
            )
            for side in TRAINERS
        }
        ratios["best"] = measurement.faster(best["loop"], best["fit"])
    return ratios


def _names(xla: bool) -> tuple[str, str]:
    return str(Variant("loop", xla)), str(Variant("fit", xla))
