"""Known ways to write the training loop wrong, each with its effect measured against fit.

A pitfall is one file of `catalogue/`; its name is the file's, with dashes. The first line of its
docstring is the title, the rest the paragraph that explains it. It defines

- `EDIT`, an `Edit`: which lines of the loop are replaced by which others;
- `KERAS`, a `Place`: where Keras does it;
- `THREAD`, a `Thread` where people met it, or None;
- `case() -> Case`: data and model on which it matters, or `train(side) -> Trained` instead;
- if the effect is not in the numbers, `COUNTED`, what is counted, and `count(run) -> int`;
- if it costs time, `TIMED`, which epochs to compare, see `Result.slower`;
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
    from fit_unfolded.pitfalls.experiment import Trained
    from fit_unfolded.pitfalls.source import Edit, Place


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
        edit: the wrong piece in the place of the right one.
        keras: where fit does it right.
        thread: where people met it; None if no public thread was found.
        train: `side -> Trained`: the experiment on one side, from one seed.
        equal: whether the right loop is equal to fit in all that is compared; not so where nothing
            is seeded.
        counted: what `count` counts, in words; None where the numbers show the effect.
        count: `run -> int`.
        timed: which epochs show what the pitfall costs in time; None if it costs none.
    """

    name: str
    title: str
    paragraph: str
    edit: "Edit"
    keras: "Place"
    thread: Thread | None
    train: "Callable[[str], Trained]"
    equal: bool
    counted: str | None
    count: "Callable[[Run], int] | None"
    timed: str | None


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
        edit=module.EDIT,
        keras=module.KERAS,
        thread=module.THREAD,
        train=getattr(module, "train", None) or (lambda side: train_case(side, module.case())),
        equal=getattr(module, "EQUAL", True),
        counted=getattr(module, "COUNTED", None),
        count=getattr(module, "count", None),
        timed=getattr(module, "TIMED", None),
    )
