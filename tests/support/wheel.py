"""Runs the commands from an installed wheel, without the checkout: `make wheel-test`.

The wheel is built and installed into an environment of its own, which sees the packages that this
interpreter has, but not the checkout that is installed there: a `.pth` file adds their folder, and
that folder's own `.pth` files are not read.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = "Scripts" if sys.platform == "win32" else "bin"
# Arguments, exit status, a part of the output, files written.
COMMANDS = [
    ("--version", 0, "fit-unfolded ", []),
    ("workloads", 0, "lesson", []),
    ("compare digits-mlp --epochs 2", 0, "MATCH: 0 ULP", ["results/compare/digits-mlp"]),
    ("gap digits-mlp", 0, "0 ULP", ["results/gap/digits-mlp/gap.png"]),
    ("explain lesson-onehot --html page.html", 0, "EQUAL", ["page.html"]),
    ("pitfalls mean-of-batches", 0, "wrong loop", ["results/pitfalls/mean-of-batches.png"]),
    ("check blobs.py --html loop.html", 0, "", ["loop.html"]),
    ("check mean_of_batches.py --output .", 1, "mean_of_batches.py", ["check.json"]),
    ("bench", 2, "use --quick", []),
    ("bench --quick", 0, "", ["results/bench"]),
]


def install(folder):
    """Builds the wheel and installs it; the interpreter of its environment."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = (folder / "dist").iterdir()
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / BIN / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", find], check=True, capture_output=True, text=True)
    here = [path for path in sys.path if path.endswith("-packages")]
    Path(packages.stdout.strip(), "dependencies.pth").write_text("\n".join(here))
    return python


def run(python, place, *arguments):
    """What a command prints, and its exit status; in `place`, with no path to the checkout."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments],
        cwd=place,
        env=plain | {"COLUMNS": "80", "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.stdout, done.returncode


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        python = install(folder)
        place = folder / "empty"
        place.mkdir()
        for package in ("fit_unfolded", "keras_fit", "manual_loop"):
            where, _ = run(python, place, "-c", f"import {package}; print({package}.__file__)")
            assert Path(where.strip()).is_relative_to(folder / "venv"), where
        for file in ("blobs.py", "mean_of_batches.py"):
            shutil.copy(ROOT / "examples" / file, place)
        for command, status, words, files in COMMANDS:
            begin = time.monotonic()
            text, found = run(python, place, "-m", "fit_unfolded", *command.split())
            print(f"{time.monotonic() - begin:5.0f} s  fit-unfolded {command}", flush=True)
            missing = [file for file in files if not (place / file).exists()]
            if found != status or words not in text or missing:
                print(text, f"Expected: {words!r}, exit status {status}, {files}", sep="\n")
                sys.exit(f"Found: exit status {found}; missing files: {missing}")


if __name__ == "__main__":
    main()
