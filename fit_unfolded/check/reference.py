"""What fit's step makes of the state and the rows that a batch of the user's loop started from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.check.observe import Observer, State, state_of, values_of
from fit_unfolded.check.rows import Rows
from fit_unfolded.pitfalls.source import Edit
from fit_unfolded.workloads.user_file import UserFile
from manual_loop.compiled.configuration import Configuration
from manual_loop.steps import train_step

# `(model, optimizer, compiled_loss, compiled_metrics, data) -> logs`, as manual_loop.steps has it.
StepFunction = Callable[..., dict[str, Any]]


@dataclass
class Made:
    """What one step made, by stage.

    Attributes:
        outputs: the model's outputs, flattened.
        loss: the scalar that was differentiated.
        gradients: by position in `model.variables`.
        after: the model's variables.
        slots: the optimizer's variables.
        logs: the metrics so far.
    """

    outputs: State
    loss: Any
    gradients: dict[int, np.ndarray | None]
    after: State
    slots: State
    logs: dict[str, float]


class Reference:
    """A copy of the model, compiled as the file says.

    Args:
        file: the user's.
        seed: the random seed.
        changes: arguments of compile that are replaced, for a mistake.

    Attributes:
        trainable: positions in `model.variables`.
        rates: the learning rates that fit's callbacks have left, by position in
            `optimizer.variables`.
        step_function, loss, edits: a step and a loss in the place of fit's, and the changes of
            lines that led to them, see `mistaken`.
    """

    def __init__(self, file: UserFile, seed: int, **changes: Any):
        keras.utils.set_random_seed(seed)
        self._file, self._seed = file, seed
        self.model = file.build()
        arguments = file.compile() | changes
        self.arguments = arguments
        for name in ("steps_per_execution", "jit_compile", "run_eagerly"):
            arguments.pop(name, None)
        self.model.compile(**arguments, run_eagerly=True, jit_compile=False)
        self.optimizer = self.model.optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.trainable = [
            place for place, v in enumerate(self.model.variables) if _is_trained(self.model, v)
        ]
        self._fresh = values_of(self.optimizer.variables)
        inner = getattr(self.optimizer, "inner_optimizer", None)
        rates = {id(getattr(o, "learning_rate", None)) for o in (self.optimizer, inner)}
        self._rates = [p for p, v in enumerate(self.optimizer.variables) if id(v) in rates]
        self.rates = {place: self._fresh[place] for place in self._rates}
        self.step_function: StepFunction | None = None
        self.loss: Callable | None = None
        self.edits: list[Edit] = []

    def changed(self, **arguments: Any) -> "Reference":
        """Another copy, compiled with other arguments."""
        return Reference(self._file, self._seed, **arguments)

    def mistaken(
        self, function: StepFunction | None, loss: Callable | None, edit: Edit | None
    ) -> "Reference":
        """A copy whose step is this project's, with a step function or a loss that is wrong.

        Args:
            edit: of which the step function came.
        """
        other = self.changed()
        other.step_function, other.loss = function, loss
        other.edits = [*self.edits, *([edit] if edit else [])]
        return other

    @property
    def compiled_loss(self) -> Callable:
        """`(y, y_pred, sample_weight, losses) -> loss`: the right one, or the one in its place."""
        return self.loss or self.configuration.loss

    def put_rates(self) -> None:
        """Sets the optimizer's learning rates to `rates`."""
        for place, value in self.rates.items():
            self.optimizer.variables[place].assign(value)

    def take_rates(self) -> None:
        """Sets `rates` to the optimizer's learning rates."""
        values = values_of(self.optimizer.variables)
        self.rates = {place: values[place] for place in self._rates}

    def with_rates(self, slots: State | None) -> State:
        """The optimizer's variables, with the learning rates of fit; None for a new optimizer."""
        values = slots if slots is not None and self.takes(slots) else self._fresh
        return [self.rates.get(place, value) for place, value in enumerate(values)]

    @property
    def configuration(self) -> Configuration:
        """Loss and metrics for this project's loop."""
        return Configuration(self.model)

    def step(
        self,
        state: State,
        slots: State | None,
        data: Any,
        function: StepFunction | None = None,
        loss: Callable | None = None,
    ) -> Made:
        """One training step.

        Args:
            state: the model's variables before.
            slots: the optimizer's variables before; None for those of a new optimizer.
            data: the batch.
            function: a step of this project's in the place of Keras's own `Model.train_step`.
            loss: a compiled loss in the place of the right one; only with this project's step.
        """
        self.restore(state, slots)
        with Observer(self.model) as seen:
            logs = self._train(data, function, loss)
        block = seen.steps[0].blocks[0]
        gradient = block.gradients[0]
        whole = [call for call in block.calls if call.whole]
        return Made(
            outputs=whole[0].outputs if whole else block.calls[-1].outputs,
            loss=gradient.loss,
            gradients=gradient.values,
            after=state_of(self.model),
            slots=values_of(self.optimizer.variables),
            logs=logs,
        )

    def logs_of(
        self,
        state: State,
        slots: State | None,
        data: Any,
        function: StepFunction | None = None,
    ) -> dict[str, float]:
        """The logs of one training step that is not observed; the arguments are those of `step`."""
        self.restore(state, slots)
        return self._train(data, function)

    def _train(
        self, data: Any, function: StepFunction | None, loss: Callable | None = None
    ) -> dict[str, float]:
        function, loss = function or self.step_function, loss or self.loss
        if function is None and loss is None:
            return floats(self.model.train_step(data))
        configuration = self.configuration
        step = function or train_step
        compiled = loss or configuration.loss
        return floats(step(self.model, self.optimizer, compiled, configuration.metrics, data))

    def update(
        self, state: State, slots: State | None, gradients: dict[int, Any]
    ) -> tuple[State, State]:
        """The variables of model and optimizer after an update by these gradients.

        Args:
            gradients: arrays, tensors or `tf.IndexedSlices` by position in `model.variables`.
        """
        self.restore(state, slots)
        variables = self.model.variables
        pairs = [
            (_as_gradient(gradients[place]), variables[place])
            for place in self.trainable
            if gradients.get(place) is not None
        ]
        if pairs:
            self.optimizer.apply_gradients(pairs)
        return state_of(self.model), values_of(self.optimizer.variables)

    def restore(self, state: State, slots: State | None) -> None:
        """Puts values into the variables; slots None are those of a new optimizer."""
        for variable, value in zip(self.model.variables, state, strict=True):
            variable.assign(value)
        values = slots if slots is not None and self.takes(slots) else self._fresh
        for variable, value in zip(self.optimizer.variables, values, strict=True):
            variable.assign(value)

    def takes(self, slots: State | None) -> bool:
        """Whether these are values for the variables of the optimizer."""
        own = self.optimizer.variables
        return slots is not None and [v.shape for v in slots] == [tuple(v.shape) for v in own]

    def finalized(self, state: State, slots: State | None) -> State:
        """The model's variables after fit's last line, `Optimizer.finalize_variable_values`."""
        self.restore(state, slots)
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        return state_of(self.model)

    def evaluate(self, state: State, rows: Rows, batch_size: int) -> dict[str, float]:
        """The logs of `Model.evaluate`."""
        self.restore(state, None)
        if rows.uneven:
            batches = rows.batches(batch_size)
            return floats(self.model.evaluate(batches, verbose=0, return_dict=True))
        logs = self.model.evaluate(
            rows.x,
            rows.y,
            sample_weight=rows.sample_weight,
            batch_size=batch_size,
            verbose=0,
            return_dict=True,
        )
        return floats(logs)


def _as_gradient(value: Any) -> Any:
    return value if isinstance(value, tf.IndexedSlices) else keras.ops.convert_to_tensor(value)


def floats(logs: dict[str, Any]) -> dict[str, float]:
    """Scalars as Python floats."""
    return {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}


def _is_trained(model: Any, variable: Any) -> bool:
    return any(variable is trained for trained in model.trainable_variables)
