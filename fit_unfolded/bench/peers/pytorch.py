"""PyTorch's plain training loop, with the settings that its documentation recommends for a CPU.

- Threads: one for each core that the process may use (`torch.set_num_threads`), as PyTorch's own
  default; a step of microseconds is also tried on one thread.
- Layout: convolutions in `torch.channels_last`, which the performance tuning guide recommends. In
  compiled graphs Inductor chooses it by itself on a CPU
  (`torch/_inductor/graph.py`, `decide_layout_opt`).
- Optimizer: `Adam(fused=True)`; gradients are set to None, not to zero.
- `torch.compile` of model and loss with static shapes. On a CPU, the convolutions of a compiled
  graph are oneDNN's, as in eager mode, and not slow; another layout changes nothing. What is slow
  is the max pooling that Inductor generates (pytorch/pytorch#195123 is about its backward pass): on
  one thread, a step of the cnn takes 91 ms of processor time, and 30 ms with average pooling in its
  place; an eager step takes 43 and 41 ms. No documented setting leaves one operation to its eager
  kernel: `torch.compiler.disable` breaks the graph within the loop over layers, and Dynamo then
  runs the whole model eagerly. So the fastest PyTorch there is the eager one.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fit_unfolded.bench.environment import cores
from fit_unfolded.bench.peers import LEARNING_RATE, epsilon, learning_rate

VARIANTS = {
    "PyTorch eager": {},
    "PyTorch compiled": {"compiled": True},
}
VARIANTS_OF_DENSE = {
    "PyTorch eager, 1 thread": {"threads": 1},
    "PyTorch compiled, 1 thread": {"compiled": True, "threads": 1},
}
VARIANTS_OF_CONVOLUTIONS = {
    "PyTorch eager, channels_first": {"channels_last": False},
}


def variants(convolutions: bool) -> dict[str, dict]:
    """The settings that could be the fastest, and those that most people would use, by name."""
    return VARIANTS | (VARIANTS_OF_CONVOLUTIONS if convolutions else VARIANTS_OF_DENSE)


class Net(nn.Module):
    """Convolutions with ReLU and max pooling, then dense layers with ReLU in between."""

    def __init__(self, weights: Sequence[np.ndarray]):
        super().__init__()
        self.convolutions, self.dense = nn.ModuleList(), nn.ModuleList()
        for kernel in weights[::2]:
            if kernel.ndim == 4:
                height, width, inputs, outputs = kernel.shape
                self.convolutions.append(nn.Conv2d(inputs, outputs, (height, width)))
            else:
                self.dense.append(nn.Linear(*kernel.shape))
        with torch.no_grad():
            for parameter, values in zip(self.parameters(), weights, strict=True):
                axes = (3, 2, 0, 1) if values.ndim == 4 else tuple(range(values.ndim))[::-1]
                parameter.copy_(torch.from_numpy(np.transpose(values, axes).copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images `[batch, height, width, channels]` or of rows, as Keras has them."""
        if len(self.convolutions):
            x = x.permute(0, 3, 1, 2)
            for convolution in self.convolutions:
                x = functional.max_pool2d(functional.relu(convolution(x)), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
        *hidden, last = self.dense
        for dense in hidden:
            x = functional.relu(dense(x))
        return last(x)


class PyTorch:
    """A model, its optimizer, and a loop over batches."""

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        compiled: bool = False,
        channels_last: bool = True,
        threads: int | None = None,
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.threads = threads or cores()
        self.model = Net(weights).to(self.device)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss
        self.steps = itertools.count(1)
        self.corrected = math.inf
        self.tensors: dict[int, tuple[np.ndarray, torch.Tensor]] = {}

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.model(x), y)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """The array on the device, copied once."""
        if id(array) not in self.tensors:  # the array is kept, so that no other gets its id
            self.tensors[id(array)] = array, torch.from_numpy(array).to(self.device)
        return self.tensors[id(array)][1]

    def train(self, x: np.ndarray, y: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Trains one epoch and returns the loss of each batch."""
        torch.set_num_threads(self.threads)
        inputs, labels, batches = self._tensor(x), self._tensor(y), self._tensor(order)
        (settings,) = self.optimizer.param_groups
        losses = []
        for indices in batches:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(inputs[indices], labels[indices])
            loss.backward()
            step = next(self.steps)
            if step <= self.corrected:
                settings["lr"], settings["eps"] = learning_rate(step), epsilon(step)
            self.optimizer.step()
            losses.append(loss.detach())
        self.corrected = len(batches)  # the first epoch is compared; after it nothing is added
        return torch.stack(losses).cpu().numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The label of each row."""
        with torch.inference_mode():
            return self.model(self._tensor(x)).argmax(1).cpu().numpy()
