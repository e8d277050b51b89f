"""The stages of a training, and what was found in each."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fit_unfolded.check.callbacks import Ends
from fit_unfolded.check.mistakes import Mistake
from fit_unfolded.check.observe import Block, Observer, State, Step, Update
from fit_unfolded.check.reference import Made, Reference
from fit_unfolded.check.rows import Problem

EQUAL, ROUNDING, DIFFERENT = "equal", "rounding", "different"
FOLLOWS, NOT_COMPARED = "follows", "not compared"
STAGES = (
    "initial_weights",
    "data",
    "forward",
    "loss",
    "gradients",
    "update",
    "metrics",
    "epoch",
    "validation",
)


@dataclass(eq=False)
class Stage:
    """One stage.

    Attributes:
        status: "equal", "rounding", "different", "follows" from an earlier stage, "not compared".
        says: what was measured, in words.
        step: the first step that departs, counted from 1; None if none.
        line: of the user's file; 0 if unknown.
        ulp: the largest distance where the stage is the first to depart, or is rounding.
        kind: of a departure, for the causes: "labels apart".
    """

    name: str
    status: str = NOT_COMPARED
    says: str = ""
    step: int | None = None
    line: int = 0
    ulp: float = 0.0
    kind: str = ""

    def depart(
        self, kind: str, says: str, step: int | None, line: int, ulp: float = np.inf
    ) -> None:
        """The first departure is the one that is told."""
        if self.status != DIFFERENT:
            self.status, self.kind, self.says = DIFFERENT, kind, says
            self.step, self.line, self.ulp = step, line, ulp

    def agree(self, ulp: float) -> None:
        """A value that is equal, or `ulp` apart by rounding."""
        if self.status in (NOT_COMPARED, EQUAL, ROUNDING):
            self.ulp = max(self.ulp, ulp)
            self.status = ROUNDING if self.ulp else EQUAL

    def follow(self) -> None:
        """A value that departs because an earlier stage did."""
        if self.status != DIFFERENT:
            self.status = FOLLOWS


@dataclass(eq=False)
class Compared:
    """One step of the user's loop, and fit's from the same state.

    Attributes:
        number: counted from 1.
        epoch: counted from 0.
        rows: of the batch; empty where they are not rows of the data.
        data: the batch, as fit's step is given it.
        slots: the optimizer's variables before, as fit would have them.
        departs: the first stage that departs; "" if none.
    """

    number: int
    epoch: int
    step: Step
    block: Block
    rows: list[int]
    data: Any
    slots: State | None
    made: Made
    departs: str = ""

    @property
    def gradients(self) -> dict[int, np.ndarray | None]:
        """What the tape gave, by position of the variable."""
        merged: dict[int, np.ndarray | None] = {}
        for gradient in self.block.gradients:
            merged |= gradient.values
        return merged

    @property
    def line(self) -> int:
        """Of the model's call."""
        return self.block.calls[0].line if self.block.calls else self.block.line


@dataclass(eq=False)
class Comparison:
    """All stages, and the steps they were found in.

    Attributes:
        whole: whether the loop was observed to its end.
        mistake: what is wrong on purpose in the step that the loop is compared with; None for fit.
        epochs: the numbers of each epoch's batches, counted from 0.
        logs, validation_logs: fit's, by epoch; empty where an epoch was not compared.
        ends: the training's end by the callbacks of fit; None where they could not be followed.
    """

    problem: Problem
    reference: Reference
    seen: Observer
    history: dict[str, list[float]] | None
    fit: dict[str, Any]
    initial: State
    whole: bool
    mistake: Mistake | None = None
    stages: dict[str, Stage] = field(default_factory=lambda: {n: Stage(n) for n in STAGES})
    steps: list[Compared] = field(default_factory=list)
    epochs: list[list[int]] = field(default_factory=list)
    logs: dict[int, dict[str, float]] = field(default_factory=dict)
    validation_logs: dict[int, dict[str, float]] = field(default_factory=dict)
    ends: Ends | None = None

    @property
    def complete(self) -> int:
        """How many epochs were observed to their end."""
        return len(self.epochs) - (not self.whole)

    @property
    def departed(self) -> list[Stage]:
        """The stages that depart, in the order of a training."""
        return [stage for stage in self.stages.values() if stage.status == DIFFERENT]

    def steps_of(self, epoch: int) -> list[Compared]:
        """The steps of an epoch, counted from 0, that were compared."""
        return [step for step in self.steps if step.epoch == epoch]


def merged(updates: list[Update]) -> dict[int, np.ndarray | None]:
    """The gradients of several updates."""
    values: dict[int, np.ndarray | None] = {}
    for update in updates:
        values |= update.values
    return values


def given_tensors(updates: list[Update]) -> dict[int, Any]:
    """The same as tensors."""
    tensors: dict[int, Any] = {}
    for update in updates:
        tensors |= update.tensors
    return tensors
