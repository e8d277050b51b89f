"""Workloads: a model, its data, its compile and fit arguments, the same for both sides.

A workload is one file of this package; its name is the file's, with dashes, and its description is
the first line of its docstring. It defines

- `make_data(seed) -> Data`, or `make_data(seed)` and `read_data(path) -> Data` where `--data` is
  allowed;
- `build() -> keras.Model`, new and uncompiled;
- `compile_arguments() -> dict`, new for each call, since optimizers hold state;
- `FIT`, the arguments of fit other than x and y; at least `batch_size` and `epochs`.
"""

import ast
import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fit_unfolded.errors import InputError


class Data(NamedTuple):
    """Rows to train on and rows held out: arrays `[samples, ...]`, x and y of equal length."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Workload:
    """One workload; `compile` gives new arguments at each call, `fit` those besides x and y."""

    name: str
    description: str
    make_data: Callable[[int], Data]
    read_data: Callable[[Path], Data] | None
    build: Callable[[], Any]
    compile: Callable[[], dict[str, Any]]
    fit: dict[str, Any]

    def load(self, seed: int, data_path: Path | None = None) -> Data:
        """The data drawn with `seed`, or those of the file `data_path`.

        Raises:
            InputError: for a file that cannot be used, or a workload that takes none.
        """
        if data_path is None:
            return self.make_data(seed)
        if self.read_data is None:
            raise InputError(f"--data: workload '{self.name}' brings its own data; leave it out.")
        return self.read_data(Path(data_path))


def _files() -> dict[str, Path]:
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def names() -> list[str]:
    """The names of all workloads, sorted."""
    return list(_files())


def description(name: str) -> str:
    """First line of the workload's docstring, read without importing the workload or Keras."""
    docstring = ast.get_docstring(ast.parse(_files()[name].read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def check(name: str) -> None:
    """Imports nothing.

    Raises:
        InputError: for an unknown name; the message lists the nearest ones.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or names()
        raise InputError(f"WORKLOAD: there is no '{name}'; did you mean {' or '.join(near)}?")


def get(name: str) -> Workload:
    """The workload of that name.

    Raises:
        InputError: as `check`.
    """
    check(name)
    module = importlib.import_module(f"{__name__}.{_files()[name].stem}")
    return Workload(
        name=name,
        description=description(name),
        make_data=module.make_data,
        read_data=getattr(module, "read_data", None),
        build=module.build,
        compile=module.compile_arguments,
        fit=dict(module.FIT),
    )
