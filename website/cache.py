"""Results of runs that the site shows, kept in `results/site/` while the code is the same."""

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from website import ROOT

RESULTS = ROOT / "results" / "site"
PACKAGES = ("keras_fit", "manual_loop", "fit_unfolded")
VERSIONS = ("tensorflow", "keras", "numpy", "matplotlib")


def kept(name: str, make: Callable[[Path], None], files: Iterable[Path] = ()) -> Path:
    """The folder `results/site/NAME`, filled by `make` unless it is there from the same code.

    Args:
        make: gets an empty folder to write into.
        files: what the result depends on, besides the three packages and the versions in use.
    """
    folder = RESULTS / name
    key = digest(files)
    if (folder / "key").is_file() and (folder / "key").read_text() == key:
        return folder
    print(f"Measuring: {name}", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as temporary:
        fresh = Path(temporary) / name
        fresh.mkdir()
        make(fresh)
        (fresh / "key").write_text(key)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return folder


def digest(files: Iterable[Path]) -> str:
    """Of the packages' files, of `files`, and of the versions in use."""
    found = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    digest = hashlib.sha256()
    for path in sorted({*found, *files}):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    versions = [platform.python_version(), *map(importlib.metadata.version, VERSIONS)]
    digest.update(repr(versions).encode())
    return digest.hexdigest()


def run(*arguments: str, status: int = 0) -> str:
    """What `python -m ARGUMENTS` prints, in the root of the repository.

    Raises:
        RuntimeError: it ended with another exit status; the message holds its standard error.
    """
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != status:
        words = f"{' '.join(arguments)}: exit status {done.returncode}, expected {status}"
        raise RuntimeError(f"{words}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout
