"""A known mistake that makes the numbers of the user's loop."""

from dataclasses import dataclass, field

from fit_unfolded import pitfalls
from fit_unfolded.check.mistakes import Mistake
from fit_unfolded.check.stages import Stage
from fit_unfolded.pitfalls.source import Place

ARRAYS = "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter"
OPTIMIZER = "keras.src.optimizers.base_optimizer:BaseOptimizer"


@dataclass(frozen=True)
class Cause:
    """A known mistake that makes the numbers of the user's loop.

    Attributes:
        name: the pitfall's, if the catalogue has one.
        title, says: one line each: what is wrong, and what was measured.
        keras: where fit does it.
        write: the line to write.
        exact: whether it reproduces the numbers to the last bit.
        mistake: how to make it in fit's step; None where it leaves the step alone.
    """

    name: str
    title: str
    says: str
    keras: Place
    write: str
    exact: bool
    mistake: Mistake | None = field(default=None, repr=False)

    @property
    def pitfall(self) -> bool:
        """Whether the catalogue has a page for it."""
        return self.name in pitfalls.names()


@dataclass(frozen=True)
class Departure:
    """A stage that departs, and the known mistakes that make its numbers."""

    stage: Stage
    causes: list[Cause]


def cause_of(mistake: Mistake, worst: float, where: str) -> Cause:
    """The mistake as a cause, `worst` ULP from the loop's numbers."""
    says = "to the last bit" if not worst else f"to {worst:.2g} ULP, rounding"
    return Cause(
        name=mistake.name,
        title=mistake.title,
        says=f"this project's loop with this mistake makes the same numbers, {says}, {where}",
        keras=mistake.keras,
        write=mistake.write,
        exact=worst == 0,
        mistake=mistake,
    )
