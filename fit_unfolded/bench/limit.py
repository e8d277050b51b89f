"""The peak speed of the machine, and the work of a training step."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.bench.environment import cores
from fit_unfolded.bench.models import Model

MATRIX = 2048
ARRAY = 2**26  # float32: 256 MiB, beyond every cache
ROUNDS = 7


class Limits(NamedTuple):
    """The machine's own speed, measured.

    Attributes:
        flops: floating-point operations per second in a float32 matrix product, the best round.
        bandwidth: bytes per second between memory and cores in `c = a + b`, the best round.
    """

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """The least work of one training step.

    Attributes:
        flops: of its matrix products and convolutions, forward and backward.
        bytes: Adam reads weight, gradient and both moments and writes three of them back, and the
            batch is read: 28 bytes a parameter, and the samples, in float32. What stays in a cache
            costs less, so a small model may pass this limit.
    """

    flops: int
    bytes: int

    def seconds(self, limits: Limits) -> float:
        """The least time of a step on that machine, by the tighter of the two limits."""
        return max(self.flops / limits.flops, self.bytes / limits.bandwidth)


def measure_limits() -> Limits:
    """Matrix-product peak and memory bandwidth: on the GPU where there is one, else on the CPU."""
    return Limits(2 * MATRIX**3 / _best(_product()), 3 * 4 * ARRAY / _best(_sum()))


def _best(run) -> float:
    run()
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        tf.test.experimental.sync_devices()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _product():
    a = tf.random.normal([MATRIX, MATRIX])
    return lambda: tf.matmul(a, a)


def _sum():
    if tf.config.list_logical_devices("GPU"):
        a, b = tf.ones([ARRAY]), tf.ones([ARRAY])
        return lambda: a + b
    # NumPy writes into memory that is there already; TensorFlow would ask the system for it anew
    a, b, c = (np.ones(ARRAY, "float32") for _ in range(3))
    parts = [slice(i * ARRAY // cores(), (i + 1) * ARRAY // cores()) for i in range(cores())]
    pool = ThreadPoolExecutor(cores())
    return lambda: list(pool.map(lambda part: np.add(a[part], b[part], out=c[part]), parts))


def work(model: Model) -> Work:
    """The work of one step, counted from the graph of its gradients.

    A product of `[m, k]` and `[k, n]` is `2 m k n`. The gradient for the first layer's input does
    not count, for nothing depends on it, and so it is not computed.
    """
    network = model.build()
    x, y = model.cut(model.batch_size).data()

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            y_pred = network(x, training=True)
            loss = keras.losses.SparseCategoricalCrossentropy()(y, y_pred)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, network.trainable_weights)]

    operations = _needed(gradients.get_concrete_function().outputs)
    parameters = sum(math.prod(weight.shape) for weight in network.trainable_weights)
    return Work(sum(map(_flops, operations)), 28 * parameters + x.nbytes + y.nbytes)


def _needed(tensors: list[Any]) -> set[Any]:
    """The operations of a graph that these tensors depend on."""
    found: set[Any] = set()
    ahead = [tensor.op for tensor in tensors]
    while ahead:
        operation = ahead.pop()
        if operation not in found:
            found.add(operation)
            ahead += [tensor.op for tensor in operation.inputs]
    return found


def _flops(operation: Any) -> int:
    """Of one operation of a graph; 0 for all that is neither product nor convolution."""
    kind = operation.type
    if kind == "MatMul":
        a, out = operation.inputs[0].shape, operation.outputs[0].shape
        inner = a[0] if operation.get_attr("transpose_a") else a[1]
        return 2 * math.prod(out) * inner
    if kind.startswith("BatchMatMul"):
        a, out = operation.inputs[0].shape, operation.outputs[0].shape
        return 2 * math.prod(out) * (a[-2] if operation.get_attr("adj_x") else a[-1])
    if kind == "Einsum":
        return 2 * math.prod(_einsum_sizes(operation).values())
    if kind == "Conv2D":
        images, kernel = operation.outputs[0].shape, operation.inputs[1].shape
    elif kind == "Conv2DBackpropInput":
        images, kernel = operation.inputs[2].shape, operation.inputs[1].shape
    elif kind == "Conv2DBackpropFilter":
        images, kernel = operation.inputs[2].shape, operation.outputs[0].shape
    else:
        return 0
    # each of the output's places: a kernel over all input channels
    return 2 * math.prod(images[:-1]) * math.prod(kernel)


def _einsum_sizes(operation: Any) -> dict[str, int]:
    """The size of each letter of the equation."""
    equation = operation.get_attr("equation").decode()
    letters = equation.partition("->")[0].split(",")
    return {
        letter: size
        for word, tensor in zip(letters, operation.inputs, strict=True)
        for letter, size in zip(word, tensor.shape, strict=True)
    }
