"""Files: read with one clear error; outputs checked before any training, and written whole."""

import ast
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path

from fit_unfolded.common.errors import InputError


def read_bytes(path: Path, argument: str, kind: str) -> bytes:
    """The content of a file that the user has named.

    Raises:
        InputError: it is missing, a directory, no file or unreadable; the message names `argument`
            and the `kind` of file that is wanted.
    """
    if path.is_dir():
        raise InputError(f"{argument}: {path} is a directory; name {kind}.")
    if path.exists() and not path.is_file():  # a pipe, say, which might never end
        raise InputError(f"{argument}: {path} is not a file; name {kind}.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{argument}: there is no file {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        words = getattr(error, "strerror", None) or error
        raise InputError(f"{argument}: {path} cannot be read ({words}).") from error


def read_source(path: Path, argument: str) -> tuple[str, ast.Module]:
    """The text of a Python file, in the encoding that it declares, and its syntax tree.

    Raises:
        InputError: as `read_bytes`; it is not Python.
    """
    content = read_bytes(path, argument, "a Python file")
    try:
        tree = ast.parse(content, str(path))
        compile(tree, str(path), "exec")
        return decode_source(content), tree
    except SyntaxError as error:
        place = f", line {error.lineno}" if error.lineno else ""
        raise InputError(f"{path}{place}: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply
        words = str(error) or type(error).__name__
        raise InputError(f"{argument}: {path} is not a Python file ({words}).") from error


def check_file(path: Path, option: str) -> None:
    """Checks that a file can be written to `path`; creates nothing.

    Raises:
        InputError: `path` is a directory, or its directory is missing or not writable; the message
            names `option`.
    """
    if path.is_dir():
        raise InputError(f"{option}: {path} is a directory; name a file.")
    check_directory(path.parent, option, exists=True)


def check_directory(
    path: Path, option: str, exists: bool = False, create_parents: bool = False
) -> None:
    """Checks that files can be written to the directory `path`; creates nothing.

    Args:
        exists: the directory itself must exist.
        create_parents: its parents may be missing too: for default paths, which nobody can have
            mistyped.

    Raises:
        InputError: a directory that must exist is missing, or it is not writable; the message
            names `option`.
    """
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    needed = path if exists else path.absolute().parent
    if not create_parents and not needed.exists():
        raise InputError(f"{option}: the directory {needed} does not exist; create it first.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(f"{option}: cannot write to {nearest} ({error.strerror}).") from error


@contextmanager
def created(directory: Path) -> Iterator[Path]:
    """Creates a directory and its parents; removes those of them that are empty at the end."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory
    finally:
        for path in missing:
            try:
                path.rmdir()
            except OSError:  # not empty
                break


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to `path` if the block succeeds."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
