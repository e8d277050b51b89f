"""The command line in this process, and as a program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fit_unfolded import cli

ENTRY = Path(sys.executable).with_name("fit-unfolded")


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the entry point in this process; returns exit status, standard output and error."""

    def call(*arguments, columns=80):
        monkeypatch.setattr(sys, "argv", ["fit-unfolded", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def program(tmp_path):
    """Runs the program in `tmp_path`, in an environment without settings of TensorFlow's."""

    def call(*arguments):
        plain = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        return subprocess.run(
            [ENTRY, *map(str, arguments)],
            cwd=tmp_path,
            env=plain | {"COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        )

    return call
