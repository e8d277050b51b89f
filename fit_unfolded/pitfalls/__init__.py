"""Known ways to write the training loop wrong, each with its effect measured against fit.

A pitfall is one file of `catalogue/`; its name is the file's, with dashes. The first line of its
docstring is the title, the rest the paragraph that explains it. It defines

- `SYMPTOM`, one of `SYMPTOMS`: what its victim sees first;
- `EDIT`, an `Edit`: which lines of the loop are replaced by which others;
- `KERAS`, a `Place`: where Keras does it;
- `THREAD`, a `Thread` where people met it, or None;
- `case() -> Case`: data and model on which it matters (pitfalls that share a case share its runs of
  fit and of the right loop), or `train(side) -> Trained` instead;
- if the effect is not in the numbers, `COUNTED`, what is counted, and `count(run) -> int`;
- if it costs time, `TIMED`, which epochs to compare, see `Result.slower`;
- if it costs memory, a case with `memory=True`, see `Result.growth`;
- if it needs several devices, `REPLICAS`, how many;
- if not even the right loop can be equal to fit, for nothing is seeded, `EQUAL = False`.
"""

import ast
import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fit_unfolded.common.errors import InputError

if TYPE_CHECKING:
    from fit_unfolded.comparison.compare import Run
    from fit_unfolded.pitfalls.experiment import Case, Trained
    from fit_unfolded.pitfalls.source import Edit, Place


# What one sees first, in the order of the index. Those from `COSTS` on leave the numbers alone.
SYMPTOMS = (
    "loss is NaN",
    "loss too low",
    "loss too high, or it falls too slowly",
    "loss or val_loss off, up or down",
    "val_loss too low",
    "val_loss too high",
    "metrics off, loss right",
    "same losses, other model at the end",
    "every epoch the same batches",
    "slower every step",
    "slow to start",
    "memory grows",
    "the clock is wrong",
)
COSTS = SYMPTOMS.index("every epoch the same batches")


@dataclass(frozen=True)
class Thread:
    """A public thread: its address, and what it says, in this project's words."""

    url: str
    says: str


@dataclass(frozen=True)
class Pitfall:
    """One way to write the loop wrong.

    Attributes:
        name: as on the command line.
        title: one line.
        paragraph: what goes wrong, and why it is easily overlooked.
        symptom: what is seen first, one of `SYMPTOMS`.
        edit: the wrong piece in the place of the right one.
        keras: where fit does it right.
        thread: where people met it; None if no public thread was found.
        case: returns the data and model of the experiment; None if `train` does more than that.
        train: `side -> Trained`: the experiment on one side, from one seed.
        equal: whether the right loop is equal to fit in all that is compared; not so where nothing
            is seeded.
        counted: what `count` counts, in words; None where the numbers show the effect.
        count: `run -> int`.
        timed: which epochs show what the pitfall costs in time; None if it costs none.
        replicas: how many devices the experiment needs.
    """

    name: str
    title: str
    paragraph: str
    symptom: str
    edit: "Edit"
    keras: "Place"
    thread: Thread | None
    case: "Callable[[], Case] | None"
    train: "Callable[[str], Trained]"
    equal: bool
    counted: str | None
    count: "Callable[[Run], int] | None"
    timed: str | None
    replicas: int


def _files() -> dict[str, Path]:
    files = sorted((Path(__file__).parent / "catalogue").glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def names() -> list[str]:
    """The names of all pitfalls, sorted."""
    return list(_files())


def check(name: str) -> None:
    """Imports nothing.

    Raises:
        InputError: for an unknown name; the message lists the nearest ones.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "`fit-unfolded pitfalls` lists all."
        )
        raise InputError(f"NAME: there is no pitfall '{name}'; {hint}")


def get(name: str) -> Pitfall:
    """The pitfall of that name.

    Raises:
        InputError: as `check`.
    """
    check(name)
    from fit_unfolded.pitfalls.experiment import train_case

    file = _files()[name]
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    title, _, paragraph = docstring.partition("\n\n")
    module: Any = importlib.import_module(f"{__name__}.catalogue.{file.stem}")
    return Pitfall(
        name=name,
        title=title.rstrip("."),
        paragraph=paragraph,
        symptom=module.SYMPTOM,
        edit=module.EDIT,
        keras=module.KERAS,
        thread=module.THREAD,
        case=getattr(module, "case", None),
        train=getattr(module, "train", None) or (lambda side: train_case(side, module.case())),
        equal=getattr(module, "EQUAL", True),
        counted=getattr(module, "COUNTED", None),
        count=getattr(module, "count", None),
        timed=getattr(module, "TIMED", None),
        replicas=getattr(module, "REPLICAS", 1),
    )
