"""What is timed: a model in each execution mode, by fit and by the loop."""

import functools
import gc
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_fit
import manual_loop
from fit_unfolded.bench import models
from fit_unfolded.bench.measure import (
    Stopwatch,
    Turn,
    Watch,
    check_turns,
    check_variables,
    in_turns,
    turns_of,
    variables_of,
)
from fit_unfolded.bench.models import LARGE_MODELS, MODELS, Model, compile_arguments
from manual_loop.execution.bound_step import JoinedSteps
from manual_loop.execution.dispatch import CALLS
from manual_loop.execution.steps_tuner import SECONDS

TRAINERS: dict[str, Any] = {"fit": keras_fit.Trainer, "loop": manual_loop.Trainer}
SEED = 0

# It advises against many traces of one function; here each is a new model's, and wanted.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


class Mode(NamedTuple):
    """How a trainer is compiled and called.

    Attributes:
        compile: "default", no argument about execution, so that fit runs one step in a call, and
            the loop as many as take some 50 ms where nobody can tell (`StepsTuner`); "block",
            `steps_per_execution` of a whole epoch; "block XLA".
        callback: of the timed calls. `Watch` reads the loss after each call of the step, so the
            loop, too, runs one step in a call unless it was compiled otherwise.
        rows: of a `fit` of two epochs that is timed as a whole; None to time epochs.
    """

    compile: str
    callback: Callable[[], Stopwatch] = Stopwatch
    verbose: int = 0
    rows: int | None = None


MODES = {
    "default": Mode("default"),
    "default, verbose=1": Mode("default", verbose=1),
    "step": Mode("default", Watch),
    "block": Mode("block", Watch),
    "block XLA": Mode("block XLA", Watch),
    "short fit": Mode("default", rows=100),
}
TURNS = 8  # at most; the loop of "short fit" then still runs single steps, as after the first fit
EXPLICIT = ("step", "block", "block XLA")  # among which the best of each implementation is sought


class Variant(NamedTuple):
    """One implementation in one mode, a key of `MODES`."""

    side: str
    mode: str

    def __str__(self) -> str:
        return f"{self.side} {self.mode}"


@dataclass(frozen=True)
class Case:
    """A model and its modes: all variants are timed in turns with each other, in one process."""

    model: Model
    modes: tuple[str, ...]
    policy: str = "float32"

    @property
    def variants(self) -> list[Variant]:
        """fit and loop in each mode."""
        return [Variant(side, mode) for mode in self.modes for side in TRAINERS]

    @property
    def pairs(self) -> list[tuple[Variant, Variant]]:
        """The variants that must be equal to the last bit."""
        return [(Variant("fit", mode), Variant("loop", mode)) for mode in self.modes]

    @property
    def epochs_per_turn(self) -> int:
        """One that is not counted, and three that are; or one if an epoch takes seconds."""
        return 2 if self.model.name in LARGE_MODELS else 4

    def build(self) -> Any:
        """A new model with the same weights each time."""
        keras.utils.set_random_seed(SEED)
        return self.model.build()

    def trainer(self, variant: Variant, **arguments: Any) -> Any:
        """A new compiled trainer; `arguments` override those of compile."""
        trainer = TRAINERS[variant.side](self.build())
        trainer.compile(**compile_arguments() | self.how(MODES[variant.mode].compile) | arguments)
        return trainer

    def how(self, compiled: str) -> dict[str, Any]:
        """Arguments of compile about execution."""
        if compiled == "default":
            return {}
        return {
            "jit_compile": compiled == "block XLA",
            "steps_per_execution": self.model.steps,
        }


def on_gpu() -> bool:
    """Whether TensorFlow trains on one."""
    return bool(tf.config.list_logical_devices("GPU"))


def suite_cases() -> dict[str, Case]:
    """The whole suite, by the names of the models."""
    modes = tuple(mode for mode in MODES if mode != "short fit")
    cases = {name: Case(model, modes) for name, model in MODELS.items()}
    cases["lesson"] = replace(cases["lesson"], modes=tuple(MODES))
    return cases | {name: Case(model, ("default",)) for name, model in LARGE_MODELS.items()}


def sweeps() -> dict[str, list[tuple[int, Model]]]:
    """The mlp over batch size and width: by name, `(value, model)`."""
    mlp = MODELS["mlp"]
    sizes = (8, 32, 128, 512)
    widths = (16, 64, 256, 1024)
    return {
        "batch size": [(n, replace(mlp, batch_size=n, samples=min(32 * n, 8192))) for n in sizes],
        "width": [
            (n, replace(mlp, build=functools.partial(models.mlp, n), samples=2048)) for n in widths
        ],
    }


def quick_cases() -> list[Case]:
    """fit's default and the loop's, and multi-step calls; with XLA where a CPU gains from it."""
    slow_with_xla = () if on_gpu() else ("cnn", "digits")
    modes = ("default", "block", "block XLA")
    return [
        Case(model, modes[:2] if model.name in slow_with_xla else modes)
        for model in MODELS.values()
    ]


@dataclass(frozen=True)
class Result:
    """What one process measured of one case.

    Attributes:
        turns: of each variant.
        first_step: seconds from compile to the end of the first batch; modes that are compiled
            alike share a trainer, and stand here once, as that of `Mode.compile`.
    """

    case: Case
    turns: dict[Variant, list[Turn]]
    first_step: dict[Variant, float]

    def seconds(self, variant: Variant) -> np.ndarray:
        """Seconds `[turns, epochs]` of the counted epochs."""
        return np.array([turn.seconds for turn in self.turns[variant]])


class _Terminal(io.StringIO):
    """Takes what a progress bar writes, as a terminal would, and drops it."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def run(
    case: Case,
    seconds: float,
    number: int = 0,
    turns: int = TURNS,
    at_least: int = 3,
) -> Result:
    """Measures all variants of a case in this process.

    Args:
        seconds: no turn begins later, once there are `at_least` turns (and at most `turns`).
        number: of the process; in odd ones the loop comes first.

    Raises:
        LossesDiffer: fit and loop are not equal in a mode, see `check_turns` and `check_variables`.
    """
    order = case.variants[::-1] if number % 2 else case.variants
    with precision(case.policy):
        x, y = case.model.data()
        trainers: dict[tuple[str, str], Any] = {}
        first_step = {}
        for variant in order:
            key = (variant.side, MODES[variant.mode].compile)
            if key in trainers:
                continue
            trainers[key], first_step[Variant(*key)] = _start(case, variant, x, y)
            if key == ("loop", "default"):
                settle(trainers[key], x, y, case.model)
        runners = {
            str(v): _runner(case, v, trainers[v.side, MODES[v.mode].compile], x, y) for v in order
        }
        pairs = [(str(a), str(b)) for a, b in case.pairs]
        check = functools.partial(check_turns, pairs)
        with redirect_stdout(_Terminal()):
            found = in_turns(runners, SEED, turns, at_least, seconds, check)
        for compiled in dict.fromkeys(MODES[mode].compile for mode in case.modes):
            check_variables(*((side, trainers[side, compiled]) for side in TRAINERS))
    return Result(case, {v: found[str(v)] for v in case.variants}, first_step)


def _runner(
    case: Case, variant: Variant, trainer: Any, x: np.ndarray, y: np.ndarray
) -> Callable[[int], Turn]:
    mode = MODES[variant.mode]
    size, epochs = case.model.batch_size, case.epochs_per_turn
    if mode.rows is None:
        return turns_of(trainer, {"x": x, "y": y}, size, epochs, mode.verbose, mode.callback)
    x, y = x[: mode.rows], y[: mode.rows]

    def fits(seed: int) -> Turn:
        """As many calls of fit as a turn of another mode has epochs; the first is not counted."""
        seconds, losses = [], []
        keras.utils.set_random_seed(seed)
        for _ in range(epochs):
            begin = time.perf_counter()
            history = trainer.fit(x, y, batch_size=size, epochs=2, verbose=mode.verbose)
            tf.test.experimental.sync_devices()
            seconds.append(time.perf_counter() - begin)
            losses.append(history.history["loss"])
        return Turn(seconds[1:], losses)

    return fits


def _start(case: Case, variant: Variant, x: np.ndarray, y: np.ndarray) -> tuple[Any, float]:
    """A trainer, and seconds from compile to the end of the first batch."""
    trainer = TRAINERS[variant.side](case.build())
    arguments = compile_arguments() | case.how(MODES[variant.mode].compile)
    size = case.model.batch_size
    keras.utils.set_random_seed(SEED)
    begin = time.perf_counter()
    trainer.compile(**arguments)
    trainer.fit(x[:size], y[:size], batch_size=size, verbose=0)
    tf.test.experimental.sync_devices()
    return trainer, time.perf_counter() - begin


def settle(loop: Any, x: np.ndarray, y: np.ndarray, model: Model) -> None:
    """Trains the loop's default until it runs as it will go on, and restores its variables.

    After `CALLS` single steps it joins several in a call, or calls the step by an op. It does
    neither where steps are so long that two do not fit into a call, nor in large steps with
    convolutions.
    """

    def train(epochs: int) -> float:
        begin = time.perf_counter()
        loop.fit(x, y, batch_size=model.batch_size, epochs=epochs, verbose=0)
        return time.perf_counter() - begin

    loop.optimizer.build(loop.model.trainable_variables)
    before = [keras.ops.convert_to_numpy(variable) for variable in variables_of(loop)]
    train(1)
    steps = loop._function("train")._on_arrays.values()
    changes = any(
        isinstance(step, JoinedSteps) or getattr(step, "_is_small", False) for step in steps
    )
    if changes and train(1) / model.steps < SECONDS / 2:
        train(math.ceil(1.1 * CALLS / model.steps))
    for variable, value in zip(variables_of(loop), before, strict=True):
        variable.assign(value)


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
