"""The same training in PyTorch and JAX: same first weights, same batches, the fastest plain loop.

A peer is made by `peer(model, weights, x, y, order)`: `weights` are those of a fresh Keras model,
`order` the samples of an epoch, int64 `[steps, batch_size]`. It gives `epoch() -> losses`, float32
`[steps]`: it trains one epoch, and each batch's loss is in the result. The data are on the device.

Keras's Adam differs from the peers' in two points that show after a few steps: it adds epsilon to
the root of the second moment before the correction of its bias, not after it; and it takes the
powers of beta in float32, as optax does and PyTorch does not. `epsilon` and `learning_rate` give
the peers, for each step, the settings that come to the same.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from fit_unfolded.bench.cases import SEED, Case, Variant, batch_losses, on_gpu
from fit_unfolded.bench.environment import cores
from fit_unfolded.bench.measure import (
    LossesDiffer,
    Measurement,
    Turn,
    in_turns,
    summarize,
    turns_of,
)
from fit_unfolded.bench.models import Model

LEARNING_RATE = 1e-3
BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-7
TOLERANCE = 1e-5  # relative, of each batch's loss over the first epoch

Epoch = Callable[[], np.ndarray]


def epsilon(step: Any) -> Any:
    """Adam's epsilon behind the bias correction, at a step counted from 1."""
    return EPSILON / (1 - BETA_2**step) ** 0.5


def learning_rate(step: int) -> float:
    """Adam's learning rate for one that takes the powers of beta in float64, step from 1."""
    rounded = [float(np.power(np.float32(beta), np.float32(step))) for beta in (BETA_1, BETA_2)]
    exact = [beta**step for beta in (BETA_1, BETA_2)]
    factors = [((1 - second) ** 0.5) / (1 - first) for first, second in (rounded, exact)]
    return LEARNING_RATE * factors[0] / factors[1]


def torch_module(name: str, weights: list[np.ndarray]) -> Any:
    """The model as a `torch.nn.Module` that takes the data as Keras lays them out.

    Args:
        name: "lesson", "mlp" or "cnn".
        weights: of the Keras model, in its order: kernels `[in, out]` or `[h, w, in, out]`.
    """
    import torch
    from torch import nn

    if name == "cnn":
        # Keras flattens [height, width, channels]; so the channels go last before Flatten
        module = nn.Sequential(
            _Permute(0, 3, 1, 2),
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            _Permute(0, 2, 3, 1),
            nn.Flatten(),
            nn.Linear(1600, 10),
        )
    else:
        (inputs, width), (_, classes) = weights[0].shape, weights[2].shape
        module = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))
    with torch.no_grad():
        for parameter, values in zip(module.parameters(), weights, strict=True):
            axes = (3, 2, 0, 1) if values.ndim == 4 else tuple(range(values.ndim))[::-1]
            parameter.copy_(torch.from_numpy(np.transpose(values, axes).copy()))
    return module


def _Permute(*axes: int) -> Any:
    from torch import nn

    class Permute(nn.Module):
        def forward(self, x):
            return x.permute(*axes)

    return Permute()


def torch_peer(
    compiled: bool = False,
    channels_last: bool = False,
    fused: bool = True,
    threads: int | None = None,
) -> Callable[..., Epoch]:
    """A plain PyTorch loop, eager or with model and loss under `torch.compile`.

    Args:
        fused: Adam in one kernel.
        threads: of one operation; None for one on each core.
    """

    def make(
        name: str, weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, order: np.ndarray
    ) -> Epoch:
        import torch
        from torch.nn import functional

        device = "cuda" if torch.cuda.is_available() else "cpu"
        module = torch_module(name, weights).to(device)
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, fused=fused)
        (settings,) = optimizer.param_groups
        steps = itertools.count(1)
        features, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).long().to(device)
        batches = torch.from_numpy(order).to(device)

        def objective(features, labels):
            return functional.cross_entropy(module(features), labels)

        if compiled:
            objective = torch.compile(objective, dynamic=False)

        count = threads or cores()

        def epoch():
            torch.set_num_threads(count)
            losses = []
            for indices in batches:
                optimizer.zero_grad(set_to_none=True)
                loss = objective(features[indices], labels[indices])
                loss.backward()
                step = next(steps)
                if step <= len(batches):  # the first epoch is compared; after it nothing is added
                    settings["lr"], settings["eps"] = learning_rate(step), epsilon(step)
                optimizer.step()
                losses.append(loss.detach())
            return torch.stack(losses).cpu().numpy()

        return epoch

    return make


def jax_forward(name: str) -> Callable[..., Any]:
    """`(weights, x) -> logits` with Keras's own weights, in their order."""
    import jax
    from jax import lax, nn

    def dense(weights, x):
        w1, b1, w2, b2 = weights
        return nn.relu(x @ w1 + b1) @ w2 + b2

    def convolve(x, kernel, bias):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)
        window = (1, 2, 2, 1)
        return lax.reduce_window(
            nn.relu(y + bias), -jax.numpy.inf, lax.max, window, window, "VALID"
        )

    def cnn(weights, x):
        k1, b1, k2, b2, w, b = weights
        features = convolve(convolve(x, k1, b1), k2, b2)
        return features.reshape(len(x), -1) @ w + b

    return cnn if name == "cnn" else dense


def jax_peer(scan: bool) -> Callable[..., Epoch]:
    """A jitted step called for each batch, or an epoch in one `lax.scan`; Adam by optax."""

    def make(
        name: str, weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, order: np.ndarray
    ) -> Epoch:
        import jax
        import optax
        from jax import lax
        from jax import numpy as jnp

        forward = jax_forward(name)
        features, labels, batches = jnp.asarray(x), jnp.asarray(y), jnp.asarray(order)

        def objective(weights, features, labels):
            losses = optax.softmax_cross_entropy_with_integer_labels
            return losses(forward(weights, features), labels).mean()

        def step(carry, indices, features, labels):
            weights, state = carry
            loss, gradients = jax.value_and_grad(objective)(
                weights, features[indices], labels[indices]
            )
            adam = optax.adam(LEARNING_RATE, eps=epsilon(state[0].count + 1.0))
            updates, state = adam.update(gradients, state)
            return (optax.apply_updates(weights, updates), state), loss

        def whole(carry, batches, features, labels):
            return lax.scan(lambda c, i: step(c, i, features, labels), carry, batches)

        first = [jnp.asarray(w) for w in weights]
        state = {"carry": (first, optax.adam(LEARNING_RATE).init(first))}
        run = jax.jit(whole if scan else step, donate_argnums=0)

        def epoch():
            if scan:
                state["carry"], losses = run(state["carry"], batches, features, labels)
                return np.asarray(losses)
            losses = []
            for indices in batches:
                state["carry"], loss = run(state["carry"], indices, features, labels)
                losses.append(loss)
            return np.asarray(jnp.stack(losses))

        return epoch

    return make


def torch_peers(name: str) -> dict[str, Callable[..., Epoch]]:
    """The ways to run it that could be the fastest; small steps do best on one thread."""
    peers = {
        "PyTorch eager, fused Adam": torch_peer(),
        "PyTorch compiled, fused Adam": torch_peer(compiled=True),
    }
    if name != "cnn":
        return peers | {
            "PyTorch eager, fused Adam, 1 thread": torch_peer(threads=1),
            "PyTorch compiled, fused Adam, 1 thread": torch_peer(compiled=True, threads=1),
        }
    return peers | {
        "PyTorch eager, channels_last, Adam": torch_peer(channels_last=True, fused=False),
        "PyTorch eager, channels_last, fused Adam": torch_peer(channels_last=True),
    }


def jax_peers() -> dict[str, Callable[..., Epoch]]:
    """One call a batch, and one an epoch."""
    return {"JAX jitted step": jax_peer(scan=False), "JAX lax.scan": jax_peer(scan=True)}


def fit_order(samples: int, batch_size: int) -> np.ndarray:
    """The samples of each batch of fit's first epoch, int64 `[steps, batch_size]`, seen in fit."""
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


def check_first_epoch(expected: np.ndarray, losses: np.ndarray) -> None:
    """Refuses a peer that computes something else.

    Args:
        expected, losses: the loss of each batch, float32 `[steps]`, by Keras and by the peer.

    Raises:
        LossesDiffer: names the first batch that is more than `TOLERANCE` apart.
    """
    bad = ~np.isclose(losses, expected, rtol=TOLERANCE, atol=0.0)
    if bad.any():
        batch = int(np.argmax(bad))
        apart = float(np.max(np.abs(losses - expected) / np.abs(expected)))
        raise LossesDiffer(
            f"epoch 0, batch {batch}: loss {expected[batch]} in Keras, {losses[batch]} here; "
            f"up to {apart:.1e} apart, {TOLERANCE:.0e} allowed"
        )


def keras_names(model: Model) -> dict[str, tuple[Case, Variant]]:
    """The ways to run fit and the loop that could be the fastest, by name."""
    # XLA on a CPU is slow at convolutions: it is no candidate there
    xla = (False,) if model.name == "cnn" and not on_gpu() else (False, True)
    cases = [Case(model, mode, xla=xla) for mode in ("step", "block")]
    return {
        f"{variant.side} {case.mode}{' XLA' * variant.xla}": (case, variant)
        for case in cases
        for variant in case.variants
        if case.mode == "block" or variant.side == "fit"
    }


@dataclass(frozen=True)
class PeerResult:
    """Times of fit, loop and peers in turns.

    Attributes:
        measurement: by name.
        apart: the largest relative distance of a batch's loss from fit's in the first epoch.
        refused: why a peer has no times.
    """

    measurement: Measurement
    apart: dict[str, float]
    refused: dict[str, str]


def run_peers(model: Model, seconds: float, turns: int = 15, at_least: int = 5) -> PeerResult:
    """Times fit and loop, one batch and a block a call, and all peers, in turns.

    Args:
        seconds: no turn begins later, once there are `at_least` turns.
    """
    x, y = model.data()
    (case, first), *_ = keras_names(model).values()
    expected = batch_losses(case, first, x, y)
    runners: dict[str, Callable[[int], Turn]] = {}
    apart, refused = {}, {}
    for name, (case, variant) in keras_names(model).items():
        losses = batch_losses(case, variant, x, y)
        check_first_epoch(expected, losses)
        apart[name] = _apart(expected, losses)
        trainer = case.trainer(variant, metrics=None)  # the peers compute the loss alone
        data = {"x": x, "y": y}
        runners[name] = turns_of(trainer, data, model.batch_size, case.epochs_per_turn)
    weights = [np.array(weight) for weight in case.build().get_weights()]
    order = fit_order(model.samples, model.batch_size)
    for name, make in (torch_peers(model.name) | jax_peers()).items():
        try:
            epoch = make(model.name, weights, x, y, order)
            losses = epoch()
            check_first_epoch(expected, losses)
        except Exception as refusal:  # torch.compile needs a compiler, and raises what it likes
            refused[name] = f"{type(refusal).__name__}: {refusal}".partition("\n")[0]
            continue
        apart[name] = _apart(expected, losses)
        runners[name] = _peer_turns(epoch, case.epochs_per_turn)
    found = in_turns(runners, SEED, turns, at_least=at_least, seconds=seconds)
    return PeerResult(summarize(found, len(x)), apart, refused)


def _apart(expected: np.ndarray, losses: np.ndarray) -> float:
    return float(np.max(np.abs(losses - expected) / np.abs(expected)))


def _peer_turns(epoch: Epoch, epochs: int) -> Callable[[int], Turn]:
    """As a trainer's turn: its first epoch is not counted."""

    def turn(seed: int) -> Turn:
        seconds, losses = [], []
        for _ in range(epochs):
            begin = time.perf_counter()
            losses.append(epoch().tolist())
            seconds.append(time.perf_counter() - begin)
        return Turn(seconds[1:], losses)

    return turn
