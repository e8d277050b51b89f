"""Workloads: a model, its data, its compile and fit arguments, the same for both implementations.

A workload is one file of this package; its name is the file's, with dashes, and its description is
the first line of its docstring. It defines

- `make_data(seed) -> Data`, and `read_data(path) -> Data` if it accepts `--data`;
- `build() -> keras.Model`, new and uncompiled;
- `compile_arguments() -> dict`, new for each call, since optimizers hold state;
- `FIT`, a literal dict of the arguments of fit other than x and y; at least `batch_size` and
  `epochs`.
"""

import ast
import difflib
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fit_unfolded.common.errors import InputError

# Former names, which work for one more version.
ALIASES = {"chapter": "lesson", "chapter-onehot": "lesson-onehot"}


class Data(NamedTuple):
    """Training set and test set: arrays `[samples, ...]`, x and y of equal length."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Workload:
    """One workload; `compile` returns new arguments at each call; `fit` holds those of fit."""

    name: str
    description: str
    make_data: Callable[[int], Data]
    read_data: Callable[[Path], Data] | None
    build: Callable[[], Any]
    compile: Callable[[], dict[str, Any]]
    fit: dict[str, Any]

    def load(self, seed: int, data_path: Path | None = None) -> Data:
        """The data generated from `seed`, or read from the file `data_path`.

        Raises:
            InputError: the file cannot be used, or the workload accepts none.
        """
        if data_path is None:
            return self.make_data(seed)
        if self.read_data is None:
            raise InputError(f"--data: workload '{self.name}' brings its own data; leave it out.")
        return self.read_data(Path(data_path))


@dataclass(frozen=True)
class Summary:
    """What the source of a workload tells without importing it, and with it Keras.

    Attributes:
        description: first line of the docstring.
        fit: the arguments of fit other than x and y.
        reads_data: whether it accepts `--data`.
    """

    description: str
    fit: dict[str, Any]
    reads_data: bool


def _files() -> dict[str, Path]:
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files if file.stem != "user_file"}


def names() -> list[str]:
    """The names of all workloads, sorted."""
    return list(_files())


def summary(name: str) -> Summary:
    """What the source of workload `name` tells."""
    tree = ast.parse(_files()[name].read_text(encoding="utf-8"))
    (fit,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FIT"
    )
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return Summary(
        description=(ast.get_docstring(tree) or "").partition("\n")[0],
        fit=ast.literal_eval(fit),
        reads_data="read_data" in functions,
    )


def resolve(name: str) -> str:
    """The current name of a workload; warns of a former one in one line on standard error.

    Imports nothing.

    Raises:
        InputError: there is no such workload; the message lists the nearest names.
    """
    if name in ALIASES:
        print(
            f"warning: the workload '{name}' is now called '{ALIASES[name]}'; "
            "the former name will be removed in the next version.",
            file=sys.stderr,
        )
        return ALIASES[name]
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or names()
        raise InputError(f"WORKLOAD: there is no '{name}'; did you mean {' or '.join(near)}?")
    return name


def get(name: str) -> Workload:
    """The workload of that name.

    Raises:
        InputError: as `resolve`.
    """
    name = resolve(name)
    module = importlib.import_module(f"{__name__}.{_files()[name].stem}")
    return Workload(
        name=name,
        description=summary(name).description,
        make_data=module.make_data,
        read_data=getattr(module, "read_data", None),
        build=module.build,
        compile=module.compile_arguments,
        fit=dict(module.FIT),
    )
