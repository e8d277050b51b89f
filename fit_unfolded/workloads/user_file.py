"""A Python file in place of a workload: a model of the user's own, with its data.

The file defines

- `build() -> keras.Model`, new, built and uncompiled;
- `data() -> dict` of the data arguments of fit: `x` and, where wanted, `y`, `sample_weight`,
  `class_weight`, `validation_data`;
- `COMPILE`, a dict of the arguments of compile, or `compile() -> dict` if objects in it have state;
- `FIT`, a dict of the other arguments of fit;
- `train(model, ...)`, a training loop, which only `check` needs.

`summarize` reads the source and needs neither TensorFlow nor Keras; everything else runs the file.
"""

import ast
import difflib
import importlib.util
import inspect
import math
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import read_source

# The parameters of keras.Model.fit and keras.Model.compile (Keras 3.15); a test holds them to it.
DATA_ARGUMENTS = ("x", "y", "sample_weight", "class_weight", "validation_data")
ARRAYS = ("x", "y", "sample_weight")
FIT_ARGUMENTS = (
    "batch_size",
    "epochs",
    "verbose",
    "callbacks",
    "validation_split",
    "shuffle",
    "initial_epoch",
    "steps_per_epoch",
    "validation_steps",
    "validation_batch_size",
    "validation_freq",
)
COMPILE_ARGUMENTS = (
    "optimizer",
    "loss",
    "loss_weights",
    "metrics",
    "weighted_metrics",
    "run_eagerly",
    "steps_per_execution",
    "jit_compile",
    "auto_scale_loss",
)
DEFAULT_BATCH_SIZE = 32  # of fit

# Evaluated where a file has no validation data.
TEST_ROWS, TEST_BATCHES = 1024, 32

LONGEST = 400  # characters of an exception's message, of which Keras's can fill a page

NEEDED = {
    "build": "define build(), which returns a new, uncompiled keras.Model",
    "data": "define data(), which returns a dict with x and y",
    "FIT": "define FIT, a dict of the arguments of fit, such as epochs",
}


@dataclass(frozen=True)
class UserFile:
    """What a file defines.

    An exception in `build`, `data` or `compile` is raised as `InputError`, see `user_code`.

    Attributes:
        path: as it was given.
        description: first line of the docstring; "" without one.
        build: gives a new, uncompiled `keras.Model`.
        data: gives the data arguments of fit.
        compile: gives the arguments of compile, all objects in them new.
        fit: the other arguments of fit, as they are in the file.
        train: the training loop, unchanged; None if the file has none.
    """

    path: Path
    description: str
    build: Callable[[], Any]
    data: Callable[[], dict[str, Any]]
    compile: Callable[[], dict[str, Any]]
    fit: dict[str, Any]
    train: Callable[..., Any] | None


@dataclass(frozen=True)
class Source:
    """What the source tells without being run.

    Attributes:
        description: first line of the docstring; "" without one.
        fit: the entries of `FIT` that are literals.
    """

    description: str
    fit: dict[str, Any]


# Without running it ---------------------------------------------------------------------------


def summarize(path: Path) -> Source:
    """Checks the source as far as that is possible without running it.

    Raises:
        InputError: there is no such file, it is not Python, it lacks a definition, or `FIT` or
            `COMPILE` has an unknown argument.
    """
    _, tree = read_source(path, "WORKLOAD")
    names = set(_bound_names(tree.body))
    if "*" not in names:
        _check_names(path, names)
    fit = _dict_entries(tree, "FIT")
    _check_arguments(path, "FIT", fit, FIT_ARGUMENTS)
    _check_arguments(path, "COMPILE", _dict_entries(tree, "COMPILE"), COMPILE_ARGUMENTS)
    literals = {}
    for name, node in fit.items():
        try:
            literals[name] = ast.literal_eval(node)
        except ValueError:  # an expression: known once the file has run
            continue
    _check_numbers(path, literals)
    return Source((ast.get_docstring(tree) or "").partition("\n")[0], literals)


def _bound_names(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that a module's statements bind; "*" for `from ... import *`."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.alias):
                yield node.asname or node.name


def _check_names(path: Path, names: set[str]) -> None:
    for name, advice in NEEDED.items():
        if name not in names:
            raise InputError(f"{path}: there is no {name}; {advice}.")
    if "COMPILE" not in names and "compile" not in names:
        raise InputError(
            f"{path}: there is no COMPILE; define COMPILE, a dict of the arguments of compile, or "
            "compile(), which returns one."
        )
    if {"COMPILE", "compile"} <= names:
        raise InputError(f"{path}: there are both COMPILE and compile(); keep one of them.")


def _dict_entries(tree: ast.Module, name: str) -> dict[str, ast.expr]:
    """The entries of the dict that a module assigns to `name`, as far as the source has them."""
    value: ast.expr | None = None
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value  # type: ignore[attr-defined]
    if isinstance(value, ast.Dict):
        entries = zip(value.keys, value.values, strict=True)
        return {str(key.value): v for key, v in entries if isinstance(key, ast.Constant)}
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "dict" and not value.args:
        return {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    return {}


def _check_arguments(path: Path, where: str, given: Iterable[Any], known: tuple[str, ...]) -> None:
    whose = {FIT_ARGUMENTS: "fit does not take", COMPILE_ARGUMENTS: "compile does not take"}
    verb = whose.get(known, "fit does not take as data")
    for name in given:
        if name in known:
            continue
        if where == "FIT" and name in DATA_ARGUMENTS:
            raise InputError(f"{path}: FIT has '{name}'; data() returns it, so move it there.")
        near = difflib.get_close_matches(str(name), known, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(known)}."
        raise InputError(f"{path}: {where} has '{name}', which {verb}; {advice}")


def _check_numbers(path: Path, fit: dict[str, Any]) -> None:
    for name in ("epochs", "batch_size"):
        value = fit.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(
                f"{path}: FIT has {name}={value!r}; it must be an integer of at least 1."
            )


# Running it -----------------------------------------------------------------------------------


def load(path: Path | str) -> UserFile:
    """Runs the file; Keras and TensorFlow must have been imported, so that their log is dropped.

    The file's directory goes to the front of `sys.path`, as under `python FILE.py`.

    Raises:
        InputError: as `summarize`; or the file raises, or a definition is of the wrong kind.
    """
    path = Path(path)
    source = summarize(path)
    module = _run(path)
    defined = vars(module)
    _check_names(path, set(defined))
    fit = defined["FIT"]
    _check_dict(path, "FIT", fit, FIT_ARGUMENTS)
    _check_numbers(path, fit)
    functions = {}
    for name in ("build", "data", "compile"):
        if name in defined:
            functions[name] = _guarded(path, name, defined[name])
    if "COMPILE" in defined:
        _check_constant(path, defined["COMPILE"])

    def compile_arguments() -> dict[str, Any]:
        if "COMPILE" in defined:
            return dict(defined["COMPILE"])
        arguments = functions["compile"]()
        _check_dict(path, "compile()", arguments, COMPILE_ARGUMENTS)
        return arguments

    train = defined.get("train")
    if train is not None and not callable(train):
        raise InputError(f"{path}: train is {_kind(train)}; it must be a function.")
    return UserFile(
        path=path,
        description=source.description,
        build=functions["build"],
        data=functions["data"],
        compile=compile_arguments,
        fit=fit,
        train=train,
    )


@contextmanager
def user_code(path: Path, what: str) -> Iterator[None]:
    """Raises an exception of the block as an `InputError` with the file's own lines only.

    Args:
        what: what is running, as the subject of the message: "build()".
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}: {what} raises {one_line(error)}{own_lines(path, error)}"
        ) from error


def own_lines(path: Path, error: BaseException) -> str:
    """The lines of a traceback that are in the file, each after a line break."""
    file = str(path.resolve())
    return "".join(
        f'\n  File "{path}", line {frame.lineno}, in {frame.name}\n    {frame.line}'
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    )


def one_line(error: BaseException) -> str:
    """The type and the message of an exception, in one line, shortened."""
    words = textwrap.shorten(str(error), LONGEST, placeholder=" ...")
    name = type(error).__name__
    return f"{name}: {words}" if words else name


def _run(path: Path) -> Any:
    file = path.resolve()
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(f"user_file_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as pickle and dataclasses expect
    with user_code(path, "importing it"):
        spec.loader.exec_module(module)
    return module


def _guarded(path: Path, name: str, function: Any) -> Callable[[], Any]:
    if not callable(function):
        raise InputError(f"{path}: {name} is {_kind(function)}; it must be a function.")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(f"{path}: {name}() must take no arguments.") from error

    def call() -> Any:
        with user_code(path, f"{name}()"):
            return function()

    return call


def _check_dict(path: Path, where: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        verb = "returns" if where.endswith(")") else "is"
        raise InputError(f"{path}: {where} {verb} {_kind(value)}; it must be a dict.")
    _check_arguments(path, where, value, known)


def _check_constant(path: Path, arguments: Any) -> None:
    """Refuses objects in `COMPILE` that two models must not share."""
    import keras

    _check_dict(path, "COMPILE", arguments, COMPILE_ARGUMENTS)
    for value in keras.tree.flatten(arguments):
        if isinstance(value, keras.optimizers.Optimizer | keras.metrics.Metric):
            raise InputError(
                f"{path}: COMPILE has an object of {type(value).__name__}, which holds state; "
                "define compile() instead, which returns the dict with new objects."
            )


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


# Its model and data ---------------------------------------------------------------------------


def build_model(file: UserFile, seed: int) -> Any:
    """A new model, built after `keras.utils.set_random_seed(seed)`, and checked.

    Returns:
        `keras.Model`, built and uncompiled.

    Raises:
        InputError: `build` returns anything else, the same model twice, or other weights at its
            second call; or it sets the random seed.
    """
    _built(file, seed ^ 1)  # tells a seed of the file's own from the one that is set here
    first, second = _built(file, seed), _built(file, seed)
    if first is second:
        raise InputError(f"{file.path}: build() returns the same model twice; make it new.")
    pairs = zip(first.variables, second.variables, strict=True)
    for a, b in pairs:
        if not _equal(a.numpy(), b.numpy()):
            raise InputError(
                f"{file.path}: build() gives other initial values of {a.path} at its second call "
                "with the same seed; draw them by Keras's initializers."
            )
    keras_seed(seed)
    return second


def _built(file: UserFile, seed: int) -> Any:
    import keras

    keras_seed(seed)
    model = file.build()
    _check_seed(file.path, "build()", seed)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"{file.path}: build() returns {_kind(model)}; it must return a keras.Model."
        )
    if model.compiled:
        raise InputError(
            f"{file.path}: build() returns a compiled model; leave out model.compile() and put its "
            "arguments into COMPILE."
        )
    if not model.built:
        raise InputError(
            f"{file.path}: build() returns a model without weights; give it a keras.Input, or call "
            "it once on a batch."
        )
    return model


def read_data(file: UserFile, seed: int) -> dict[str, Any]:
    """The data arguments of fit, checked; `data` is called twice, the second time after `seed`.

    Returns:
        dict: `x`, and where given `y`, `sample_weight`, `class_weight`, `validation_data`.

    Raises:
        InputError: unknown or missing names, arrays of different lengths, a `tf.data.Dataset`
            beside `y` or `sample_weight`, other data at the second call, or a random seed set.
    """
    # another seed: data drawn under the global one would differ in each training
    other, given = (_given_data(file, s) for s in (seed ^ 1, seed))
    for name in given:
        if not _same(other.get(name), given[name]):
            raise InputError(
                f"{file.path}: data() returns another {name} at its second call; draw random data "
                "from a generator with a seed of its own, such as np.random.default_rng(0)."
            )
    return given


def _given_data(file: UserFile, seed: int) -> dict[str, Any]:
    keras_seed(seed)
    given = file.data()
    _check_seed(file.path, "data()", seed)
    if not isinstance(given, dict):
        raise InputError(f"{file.path}: data() returns {_kind(given)}; it must be a dict.")
    _check_arguments(file.path, "data()", given, DATA_ARGUMENTS)
    given = {name: value for name, value in given.items() if value is not None}
    if "x" not in given:
        raise InputError(f"{file.path}: data() returns no x.")
    if is_dataset(given["x"]):
        for name in ("y", "sample_weight"):
            if name in given:
                raise InputError(
                    f"{file.path}: data() returns {name} beside a tf.data.Dataset, which must "
                    "contain it."
                )
        return given
    _check_rows(file.path, {name: given[name] for name in ARRAYS if name in given})
    return given


def _check_rows(path: Path, arrays: dict[str, Any]) -> None:
    import keras

    for name, value in arrays.items():
        for array in keras.tree.flatten(value) or [None]:
            if not np.shape(array):
                raise InputError(
                    f"{path}: data() returns {name} with {_kind(array).removeprefix('of ')}; use "
                    "arrays, a dict or list of arrays, or as x a tf.data.Dataset."
                )
    lengths = {name: rows(value) for name, value in arrays.items()}
    if not lengths["x"]:
        raise InputError(f"{path}: data() returns an x without rows.")
    for name, length in lengths.items():
        if length != lengths["x"]:
            raise InputError(
                f"{path}: data() returns {lengths['x']} rows of x, but {length} of {name}."
            )


def first_batches(given: Mapping[str, Any], batches: int, batch_size: int) -> dict[str, Any]:
    """Arguments of fit for the first batches, without validation data.

    A `tf.data.Dataset` is cached: one that shuffles gives the same batches at each reading.
    """
    found = {name: value for name, value in given.items() if name != "validation_data"}
    if is_dataset(given["x"]):
        return found | {"x": given["x"].take(batches).cache(), "shuffle": False}
    part = slice(batches * batch_size)
    arrays = (name for name in ARRAYS if given.get(name) is not None)
    return found | {name: cut(given[name], part) for name in arrays}


def try_batch(
    path: Path, side: str, trainer: Callable[[Any], Any], file: Any, given: Any, fit: dict[str, Any]
) -> None:
    """Trains on one batch eagerly, so that a mistake in the file is found at once.

    Args:
        path: of the file, for the message.
        side: name of the implementation, for the message.
        trainer: its `Trainer`.
        file: `UserFile`, or anything else with its `build` and `compile`.
        given: the data arguments of fit, as from `read_data`.
        fit: the other arguments of fit.

    Raises:
        InputError: the file's model, arguments and data cannot be trained with.
    """
    size = fit.get("batch_size") or DEFAULT_BATCH_SIZE
    arguments = file.compile() | {"run_eagerly": True, "jit_compile": False}
    with user_code(path, f"{side}, on the first batch,"):
        tried = trainer(file.build())
        tried.compile(**arguments)
        tried.fit(**first_batches(given, 1, size), batch_size=fit.get("batch_size"), verbose=0)


def samples_of(given: Mapping[str, Any]) -> int:
    """Rows of the data arguments of fit; a `tf.data.Dataset` is read once to count them."""
    import keras

    if not is_dataset(given["x"]):
        return rows(given["x"])
    return sum(int(keras.tree.flatten(batch)[0].shape[0]) for batch in given["x"])


def test_set(
    x: Any, y: Any, extra: dict[str, Any], fit: dict[str, Any]
) -> tuple[str, tuple[Any, Any]]:
    """What to evaluate and predict: its name, x and y (None beside a `tf.data.Dataset`).

    The validation data if there are any, else the rows that `validation_split` holds back, else
    the first rows or batches of the training set.
    """
    held_out = extra.get("validation_data")
    if held_out is not None:
        x, y = (held_out, None) if is_dataset(held_out) else (*held_out, None)[:2]
        return "Validation data", (x, y)
    if is_dataset(x):
        return f"First {TEST_BATCHES} batches of the training set", (x.take(TEST_BATCHES), None)
    name, part = f"First rows of the training set, at most {TEST_ROWS}", slice(TEST_ROWS)
    if fit.get("validation_split"):
        # as in train_validation_split, keras/src/trainers/data_adapters/array_slicing.py
        name = "Validation data"
        part = slice(math.floor(rows(x) * (1.0 - fit["validation_split"])), None)
    return name, (cut(x, part), None if y is None else cut(y, part))


def is_dataset(x: Any) -> bool:
    """Whether it is a `tf.data.Dataset`."""
    import tensorflow as tf

    return isinstance(x, tf.data.Dataset)


def rows(x: Any) -> int:
    """The number of samples of an array, or of the first of nested ones."""
    import keras

    return int(np.shape(keras.tree.flatten(x)[0])[0])


def cut(x: Any, part: slice) -> Any:
    """Those rows of an array, or of nested ones."""
    import keras

    return keras.tree.map_structure(lambda array: array[part], x)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal; of a `tf.data.Dataset` only its element spec is compared."""
    import keras

    if is_dataset(a) or is_dataset(b):
        return is_dataset(a) and is_dataset(b) and a.element_spec == b.element_spec
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    try:
        keras.tree.assert_same_structure(a, b)
    except (ValueError, TypeError):
        return False
    return all(map(_equal, keras.tree.flatten(a), keras.tree.flatten(b)))


def _equal(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")


def keras_seed(seed: int) -> None:
    """`keras.utils.set_random_seed`."""
    import keras

    keras.utils.set_random_seed(seed)


def _check_seed(path: Path, what: str, seed: int) -> None:
    import tensorflow as tf

    # truncated as in get_seed, tensorflow/python/framework/random_seed.py
    found = tf.compat.v1.get_seed(0)[0]
    if found != seed % (2**31 - 1):
        raise InputError(
            f"{path}: {what} sets the random seed to {found}; leave that out, the commands set the "
            "seed that --seed names."
        )
