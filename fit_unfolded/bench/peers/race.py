"""fit, the loop and the peers, once their losses have been compared: throughput and time to 97 %.

Imported only where PyTorch and JAX are installed.
"""

import functools
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from fit_unfolded.bench.cases import (
    MODES,
    SEED,
    TRAINERS,
    Case,
    Variant,
    batch_losses,
    on_gpu,
    settle,
)
from fit_unfolded.bench.measure import LossesDiffer, Turn, in_turns, turns_of
from fit_unfolded.bench.models import MODELS, Model, compile_arguments
from fit_unfolded.workloads import digits

TOLERANCE = 1e-5  # relative, of each batch's loss over the first epoch
FAMILIES = ("fit", "loop", "PyTorch", "JAX")
RACED = ("lesson", "mlp", "cnn")

ACCURACY, MOST_EPOCHS = 0.97, 40
# Without BatchNormalization, Dropout and L2, so that all compute the same.
PLAIN_DIGITS = replace(
    MODELS["digits"],
    samples=1408,  # 44 whole batches
    build=lambda: keras.Sequential(
        [
            keras.layers.Input([8, 8, 1]),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    ),
)

Make = Callable[[list[np.ndarray]], Any]


def makers(convolutions: bool) -> dict[str, Make]:
    """`weights -> peer` for each variant of PyTorch and of JAX, by name; imports them at the call.

    A framework is imported when it is first used: its threads must not disturb another's.
    """
    pages = {"pytorch": "PyTorch", "jax_optax": "Jax"}
    found: dict[str, Make] = {}
    for page, name in pages.items():
        module = importlib.import_module(f"fit_unfolded.bench.peers.{page}")
        for variant, settings in module.variants(convolutions).items():
            found[variant] = functools.partial(getattr(module, name), **settings)
    return found


def convolutions(model: Model) -> bool:
    """Whether the model's samples are images."""
    return len(model.shape) == 3


def keras_variants(model: Model) -> list[Variant]:
    """The ways to run fit and the loop that could be the fastest."""
    # XLA on a CPU is slow at convolutions: it is no candidate there
    blocks = ["block"] if convolutions(model) and not on_gpu() else ["block", "block XLA"]
    return [Variant(side, mode) for mode in ("default", *blocks) for side in TRAINERS]


def fit_order(samples: int, batch_size: int) -> np.ndarray:
    """The samples of each batch of an epoch of fit, int64 `[steps, batch_size]`, seen in fit.

    Under a global seed, fit has the same order in every epoch.
    """
    seen: list[np.ndarray] = []

    def note(y, y_pred):
        seen.append(y.numpy().ravel().astype(np.int64))
        return keras.ops.mean(y_pred)

    numbers = np.arange(samples, dtype="float32")[:, None]
    model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", note, run_eagerly=True)
    keras.utils.set_random_seed(SEED)
    model.fit(numbers, numbers, batch_size=batch_size, verbose=0)
    return np.stack(seen)


def check_first_epoch(expected: np.ndarray, losses: np.ndarray) -> float:
    """Refuses a peer that computes something else.

    Args:
        expected, losses: the loss of each batch, float32 `[steps]`, by Keras and by the peer.

    Returns:
        The largest relative difference.

    Raises:
        LossesDiffer: names the first batch that is more than `TOLERANCE` apart.
    """
    apart = float(np.max(np.abs(losses - expected) / np.abs(expected)))
    bad = ~np.isclose(losses, expected, rtol=TOLERANCE, atol=0.0)
    if bad.any():
        batch = int(np.argmax(bad))
        raise LossesDiffer(
            f"epoch 0, batch {batch}: loss {expected[batch]} in Keras, {losses[batch]} here; "
            f"up to {apart:.1e} apart, {TOLERANCE:.0e} allowed"
        )
    return apart


@dataclass(frozen=True)
class Race:
    """What one process measured of one model.

    Attributes:
        turns: of fit, the loop and the peers, by name.
        apart: the largest relative difference of a batch's loss from fit's in the first epoch.
        refused: why a peer has no times.
    """

    turns: dict[str, list[Turn]]
    apart: dict[str, float]
    refused: dict[str, str]


def race(model: Model, seconds: float, turns: int = 15, at_least: int = 3) -> Race:
    """Times fit, the loop and all peers in turns; the loss is the only metric.

    Args:
        seconds: no turn begins later, once there are `at_least` turns.
    """
    case = Case(model, tuple(MODES))
    x, y = model.data()
    expected = batch_losses(case, Variant("fit", "default"), x, y)
    runners: dict[str, Callable[[int], Turn]] = {}
    apart, refused = {}, {}
    for variant in keras_variants(model):
        apart[str(variant)] = check_first_epoch(expected, batch_losses(case, variant, x, y))
        trainer = case.trainer(variant, metrics=None)  # the peers compute the loss alone
        mode = MODES[variant.mode]
        if variant == Variant("loop", "default"):
            settle(trainer, x, y, model)
        runners[str(variant)] = turns_of(
            trainer, {"x": x, "y": y}, model.batch_size, case.epochs_per_turn, 0, mode.callback
        )
    weights = [np.array(weight) for weight in case.build().get_weights()]
    labels = y.astype(np.int64)
    order = fit_order(model.samples, model.batch_size)
    for name, make in makers(convolutions(model)).items():
        try:
            peer = make(weights)
            apart[name] = check_first_epoch(expected, peer.train(x, labels, order))
        except Exception as refusal:  # torch.compile needs a compiler, and raises what it likes
            refused[name] = f"{type(refusal).__name__}: {refusal}".partition("\n")[0]
            continue
        runners[name] = _peer_turns(peer, x, labels, order, case.epochs_per_turn)
    return Race(in_turns(runners, SEED, turns, at_least, seconds), apart, refused)


def _peer_turns(
    peer: Any, x: np.ndarray, y: np.ndarray, order: np.ndarray, epochs: int
) -> Callable[[int], Turn]:
    """As a trainer's turn: its first epoch is not counted."""

    def turn(seed: int) -> Turn:
        seconds, losses = [], []
        for _ in range(epochs):
            begin = time.perf_counter()
            losses.append(peer.train(x, y, order).tolist())
            seconds.append(time.perf_counter() - begin)
        return Turn(seconds[1:], losses)

    return turn


# Time to 97 % ---------------------------------------------------------------------------------

RUNNERS = (
    "fit", "loop", "loop block", "PyTorch eager",
    "JAX jitted step", "JAX jitted step, matrix products", "JAX lax.scan, matrix products",
)  # fmt: skip


class _Until(keras.callbacks.Callback):
    """Ends the training at the accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracies: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        self.accuracies.append(logs["val_acc"])
        self.model.stop_training = logs["val_acc"] >= ACCURACY


def time_to_accuracy(name: str) -> dict[str, Any]:
    """Trains the plain digits until 97 % of the 360 test images are right, in a fresh process.

    The clock begins when the model has its weights and the packages are imported; tracing,
    compiling and testing after each epoch are in the time.

    Args:
        name: one of `RUNNERS`.

    Returns:
        `seconds`; `accuracies` after each epoch, of which the last reaches 97 %.
    """
    model = PLAIN_DIGITS
    x, y = model.data()
    data = digits.make_data(0)
    test, truth = data.x_test, data.y_test
    case = Case(model, tuple(MODES))
    network = case.build()
    if name in ("fit", "loop", "loop block"):
        side, _, compiled = name.partition(" ")
        return _keras_to_accuracy(TRAINERS[side](network), case.how(compiled or "default"), x, y)
    weights = [np.array(weight) for weight in network.get_weights()]
    order = fit_order(model.samples, model.batch_size)
    make, labels = makers(convolutions=True)[name], y.astype(np.int64)
    accuracies: list[float] = []
    begin = time.perf_counter()
    peer = make(weights)
    for _ in range(MOST_EPOCHS):
        peer.train(x, labels, order)
        accuracies.append(float(np.mean(peer.predict(test) == truth)))
        if accuracies[-1] >= ACCURACY:
            break
    return {"seconds": time.perf_counter() - begin, "accuracies": accuracies}


def _keras_to_accuracy(
    trainer: Any, how: dict[str, Any], x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    data = digits.make_data(0)
    until = _Until()
    settings = {"batch_size": PLAIN_DIGITS.batch_size, "epochs": MOST_EPOCHS, "verbose": 0}
    validation = (data.x_test, data.y_test)
    begin = time.perf_counter()
    trainer.compile(**compile_arguments() | how)
    keras.utils.set_random_seed(SEED)
    trainer.fit(x, y, validation_data=validation, callbacks=[until], **settings)
    return {"seconds": time.perf_counter() - begin, "accuracies": until.accuracies}
