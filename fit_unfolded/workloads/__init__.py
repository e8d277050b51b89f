"""Workloads: a model, its data, its compile and fit arguments, the same for both implementations.

A workload is one file of this package; its name is the file's, with dashes, and its description is
the first line of its docstring. It defines

- `make_data(seed) -> Data`, and `read_data(path) -> Data` if it accepts `--data`;
- `build() -> keras.Model`, new and uncompiled;
- `compile_arguments() -> dict`, new for each call, since optimizers hold state;
- `FIT`, a literal dict of the arguments of fit other than x and y; at least `batch_size` and
  `epochs`.

A Python file of the user's own takes the place of a name: see `user_file`.
"""

import ast
import difflib
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fit_unfolded.common.errors import InputError
from fit_unfolded.workloads import user_file

# Former names, which work for one more version.
ALIASES = {"chapter": "lesson", "chapter-onehot": "lesson-onehot"}


class Data(NamedTuple):
    """Training set and test set: arrays `[samples, ...]`, x and y of equal length."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any

    @property
    def extra(self) -> dict[str, Any]:
        """The other data arguments of fit: sample_weight, class_weight, validation_data."""
        return {}

    @property
    def test_name(self) -> str:
        """What the test set is, for the report."""
        return "Test set"


class UserData(Data):
    """Data of a user's file: also nested arrays, or a `tf.data.Dataset` as x and None as y."""

    def __new__(
        cls, x: Any, y: Any, test: tuple[Any, Any], extra: dict[str, Any], test_name: str
    ) -> "UserData":
        data = super().__new__(cls, x, y, *test)
        data._more = extra, test_name
        return data

    _more: tuple[dict[str, Any], str]

    @property
    def extra(self) -> dict[str, Any]:
        """As in `Data`."""
        return self._more[0]

    @property
    def test_name(self) -> str:
        """As in `Data`."""
        return self._more[1]


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


def is_file(name: str) -> bool:
    """Whether it is the path of a user's file, not the name of a workload."""
    return name not in names() and (name.endswith(".py") or Path(name).name != name)


def summary(name: str) -> Summary:
    """What the source of workload `name` tells; of a user's file, `fit` has only literals."""
    if is_file(name):
        source = user_file.summarize(Path(name))
        return Summary(source.description, source.fit, reads_data=False)
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

    Imports nothing. The path of a user's file is returned unchanged, its source checked.

    Raises:
        InputError: there is no such workload; the message lists the nearest names. Or the file
            cannot be used.
    """
    if is_file(name):
        user_file.summarize(Path(name))
        return name
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
    """The workload of that name, or of that file, which is run.

    Raises:
        InputError: as `resolve`; or the file cannot be used.
    """
    name = resolve(name)
    if is_file(name):
        return _of_file(user_file.load(name))
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


def _of_file(file: user_file.UserFile) -> Workload:
    def make_data(seed: int) -> Data:
        given = user_file.read_data(file, seed)
        x, y = given.pop("x"), given.pop("y", None)
        test_name, test = user_file.test_set(x, y, given, file.fit)
        return UserData(x, y, test, given, test_name)

    user_file.build_model(file, seed=0)  # checks it
    return Workload(
        name=str(file.path),
        description=file.description,
        make_data=make_data,
        read_data=None,
        build=file.build,
        compile=file.compile,
        fit=dict(file.fit),
    )
