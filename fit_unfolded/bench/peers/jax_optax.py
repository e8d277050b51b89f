"""JAX's plain training loop, with Adam by optax.

- "jitted step": one call of a jitted step for each batch. "lax.scan": one call for an epoch. The
  state is donated (`donate_argnums`), so that XLA updates it in place.
- Convolutions are `lax.conv_general_dilated` in NHWC, the layout for which XLA has fast code on a
  CPU. Inside a loop, such as that of `lax.scan`, XLA runs them much slower on a CPU
  (jax-ml/jax#12868), and their gradients are slow outside, too. XLA has no setting that changes it.
  So the variants "matrix products" write a convolution as one product of patches and kernel, and
  the pooling as a maximum over an axis: both are fast in loops as well.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import lax, nn
from jax import numpy as jnp

from fit_unfolded.bench.peers import LEARNING_RATE, epsilon

VARIANTS = {"JAX jitted step": {"scan": False}, "JAX lax.scan": {"scan": True}}
VARIANTS_OF_CONVOLUTIONS = {
    "JAX jitted step, matrix products": {"scan": False, "products": True},
    "JAX lax.scan, matrix products": {"scan": True, "products": True},
}


def variants(convolutions: bool) -> dict[str, dict]:
    """The settings that could be the fastest, and those that most people would use, by name."""
    return VARIANTS | (VARIANTS_OF_CONVOLUTIONS if convolutions else {})


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution without padding by XLA."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)


def multiply_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as one product of all patches and the kernel."""
    rows, columns, _, filters = kernel.shape
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, filters)


def pool(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 pixels by XLA's own window."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def pool_axes(x: jax.Array) -> jax.Array:
    """The same as a maximum over axes."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def forward(weights: Sequence[jax.Array], x: jax.Array, products: bool = False) -> jax.Array:
    """Logits, by Keras's own weights in their order."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for kernel, bias in (pair for pair in pairs if pair[0].ndim == 4):
        convolved = (multiply_patches if products else convolve)(x, kernel)
        x = (pool_axes if products else pool)(nn.relu(convolved + bias))
    x = x.reshape(len(x), -1)
    *hidden, (kernel, bias) = (pair for pair in pairs if pair[0].ndim == 2)
    for w, b in hidden:
        x = nn.relu(x @ w + b)
    return x @ kernel + bias


class Jax:
    """The weights, the optimizer's state, and jitted functions that train."""

    def __init__(self, weights: Sequence[np.ndarray], scan: bool = False, products: bool = False):
        first = [jnp.asarray(weight) for weight in weights]
        self.state: Any = (first, optax.adam(LEARNING_RATE).init(first))
        self.scan = scan
        self.arrays: dict[int, tuple[np.ndarray, jax.Array]] = {}

        def objective(weights, x, y):
            losses = optax.softmax_cross_entropy_with_integer_labels
            return losses(forward(weights, x, products), y).mean()

        def step(state, indices, x, y):
            weights, moments = state
            loss, gradients = jax.value_and_grad(objective)(weights, x[indices], y[indices])
            adam = optax.adam(LEARNING_RATE, eps=epsilon(moments[0].count + 1.0))
            updates, moments = adam.update(gradients, moments)
            return (optax.apply_updates(weights, updates), moments), loss

        def epoch(state, batches, x, y):
            return lax.scan(lambda state, indices: step(state, indices, x, y), state, batches)

        self._run = jax.jit(epoch if scan else step, donate_argnums=0)
        self._labels = jax.jit(lambda weights, x: forward(weights, x, products).argmax(1))

    def _array(self, array: np.ndarray) -> jax.Array:
        """The array on the device, copied once."""
        if id(array) not in self.arrays:  # the array is kept, so that no other gets its id
            self.arrays[id(array)] = array, jnp.asarray(array)
        return self.arrays[id(array)][1]

    def train(self, x: np.ndarray, y: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Trains one epoch and returns the loss of each batch."""
        data = self._array(x), self._array(y)
        if self.scan:
            self.state, losses = self._run(self.state, self._array(order), *data)
            return np.asarray(losses)
        losses = []
        for indices in self._array(order):
            self.state, loss = self._run(self.state, indices, *data)
            losses.append(loss)
        return np.asarray(jnp.stack(losses))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The label of each row."""
        return np.asarray(self._labels(self.state[0], self._array(x)))
