"""What `explain` finds out, as data: events, lines of source, decisions of compile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line of source.

    Attributes:
        file: relative to the directory that holds the package: `keras/src/trainers/trainer.py`.
        number: counted from 1.
        function: qualified name of the function: `TensorFlowTrainer.train_step`.
        path: absolute, to read the source from.
    """

    file: str
    number: int
    function: str
    path: str


@dataclass(frozen=True)
class Event:
    """One call that a recording object received.

    Attributes:
        source: "callback", "layer", "loss", "metric", "optimizer", "tape" or "data".
        call: `on_epoch_begin`, `dense.call`, `acc.update_state`, `tape.gradient`, `batch`.
        detail: the arguments in brief: `x [16, 64], training=True`.
        phase: "train", "validation", or "" outside of both.
        epoch: counted from 0; None outside.
        batch: counted from 0; None outside.
        line: the nearest line of the trainer, see `lines.py`.
        stack: the lines of the package on the stack, the nearest first.
        taped: whether a `tf.GradientTape` was recording.
    """

    source: str
    call: str
    detail: str
    phase: str
    epoch: int | None
    batch: int | None
    line: Line
    stack: tuple[Line, ...] = ()
    taped: bool = False

    @property
    def what(self) -> tuple[str, str, str, str, int | None, int | None, bool]:
        """All but the lines: what must be equal on both sides."""
        return (
            *(self.source, self.call, self.detail),
            *(self.phase, self.epoch, self.batch, self.taped),
        )


@dataclass(frozen=True)
class Pair:
    """The same event on both sides: fit's event, and the lines that it comes from."""

    event: Event
    fit: Line
    loop: Line
    fit_stack: tuple[Line, ...] = ()
    loop_stack: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What compile made of one argument.

    Attributes:
        argument: as it was given: `metrics="acc"`.
        became: `SparseCategoricalAccuracy`.
        because: the reason in words.
        fit, loop: the line that decided it; in the loop, if Keras's code decides there too, the
            line that calls it, or that reads the result.
        left: the line of Keras that decided for the loop; None if the loop decided itself.
    """

    argument: str
    became: str
    because: str
    fit: Line
    loop: Line
    left: Line | None = None


@dataclass(frozen=True)
class Difference:
    """The first event that is not the same on both sides; None where a side has no more."""

    number: int
    fit: Event | None
    loop: Event | None


@dataclass(frozen=True)
class Explanation:
    """All that a short training showed.

    Attributes:
        workload, title: name and description.
        events: the events up to the first difference; all of them where there is none.
        difference: None where both streams are equal.
    """

    workload: str
    title: str
    keras_version: str
    tensorflow_version: str
    compile: list[Decision]
    events: list[Pair]
    difference: Difference | None = None

    def _repr_html_(self) -> str:
        """The HTML page, in the cell of a notebook."""
        from fit_unfolded.common.notebook import framed
        from fit_unfolded.explain.html import page

        return framed(page(self), f"{self.workload}, unfolded")
