"""The same training in PyTorch and in JAX: same first weights, same batches, each a plain loop.

`pytorch.py` and `jax_optax.py` each have one class, made from `weights`, those of a fresh Keras
model, in its order, and with the settings of a variant. It has

    train(x, y, order) -> losses      one epoch; `order` is int64 `[steps, batch_size]`,
                                      `losses` the loss of each batch, float32 `[steps]`
    predict(x) -> labels              int64 `[samples]`

Each model is convolutions of 3x3 with ReLU and max pooling of 2x2, then dense layers with ReLU in
between; the kernels say how many and how wide. x and y are those of Keras.

Keras's Adam differs from the peers' in two points that show after a few steps: it adds epsilon to
the root of the second moment before the correction of its bias, not after it; and it takes the
powers of beta in float32, as optax does and PyTorch does not. `epsilon` and `learning_rate` give
the peers, for each step, the settings that come to the same.
"""

from typing import Any

import numpy as np

LEARNING_RATE = 1e-3
BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-7


def epsilon(step: Any) -> Any:
    """Adam's epsilon behind the bias correction, at a step counted from 1."""
    return EPSILON / (1 - BETA_2**step) ** 0.5


def learning_rate(step: int) -> float:
    """Adam's learning rate for one that takes the powers of beta in float64, step from 1."""
    rounded = [float(np.power(np.float32(beta), np.float32(step))) for beta in (BETA_1, BETA_2)]
    exact = [beta**step for beta in (BETA_1, BETA_2)]
    factors = [((1 - second) ** 0.5) / (1 - first) for first, second in (rounded, exact)]
    return LEARNING_RATE * factors[0] / factors[1]
