"""Several steps in one call without being asked: where nobody can tell, and how many.

With `steps_per_execution=1`, `fit` returns to Python after every step. It has to if a callback
does something after a batch. If none does, only three things tell one call of a hundred steps from
a hundred calls: how often the progress bar moves, how soon Ctrl-C acts, and the time it takes. So
the loop runs as many steps in a call as take `SECONDS`, which is also how often Keras redraws its
progress bar (`keras/src/utils/progbar.py`, `Progbar`, `interval=0.05`, Keras 3.15).

The numbers stay those of single steps to the last bit, and so does the state after an error: the
calls run the traced step itself, one batch after the other, in a loop in the graph. Steps for which
this may not hold are left alone, see `can_be_joined`; so are data that come from a stream, since
they may come slowly, and all steps on a GPU, where a call returns before its work is done, so that
its time says nothing.
"""

import contextlib
import re
import time

import tensorflow as tf

from manual_loop.data.resident import on_gpu
from manual_loop.execution.dispatch import CALLS, acts_outside
from manual_loop.execution.graph import nodes_of

SECONDS = 0.05  # that one call should take
CONVOLUTION = re.compile("Conv")


class StepsTuner:
    """Chooses how many steps the next call runs, from the time that the last calls took.

    The first `CALLS` are single steps: so the first step is not later than without the tuner, and a
    short `fit` need not trace the loop.
    """

    def __init__(self):
        self._single_steps_left = CALLS
        self._steps = 1

    def steps(self, left):
        """How many steps the next call runs, at most `left`."""
        return max(1, min(self._steps, left))

    @contextlib.contextmanager
    def timed(self, steps):
        """Around a call that runs this many steps."""
        start = time.perf_counter()
        yield
        self._single_steps_left -= 1
        if self._single_steps_left < 0:
            self._steps = int(SECONDS * steps / (time.perf_counter() - start))


def can_be_joined(traced):
    """Whether several of these steps in one call are as many single steps, to the last bit.

    TensorFlow may optimize ops in a loop differently, with other last bits. Of the layers tried, it
    does so with `x * sigmoid(x)` (swish) alone. Convolutions, which often stand beside it, are left
    alone too.

    Args:
        traced: the step as a `ConcreteFunction`; its ops draw no random numbers of their own.
    """
    logs = tf.nest.flatten(traced.structured_outputs)
    if on_gpu() or not all(isinstance(log, tf.Tensor) for log in logs):
        return False
    nodes = list(nodes_of(traced.graph.as_graph_def()))
    convolves = any(CONVOLUTION.search(node.op) for node in nodes)
    return not (convolves or multiplies_by_sigmoid(nodes) or acts_outside(nodes))


def multiplies_by_sigmoid(nodes):
    """Whether a product has a sigmoid as a factor, as swish has."""
    sigmoids = {node.name for node in nodes if node.op == "Sigmoid"}
    factors = (name for node in nodes if node.op == "Mul" for name in node.input)
    return any(factor.removeprefix("^").split(":")[0] in sigmoids for factor in factors)
