"""`fit-unfolded bench`: the whole suite in `benchmarks/`, run by pytest in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import created, replacing

SUITE = Path(__file__).parents[2] / "benchmarks"


def check_suite(peers: bool) -> None:
    """Checks, without TensorFlow, that the suite can be run.

    Raises:
        InputError: a package is missing, or the package was installed without its checkout.
    """
    extra = "peers" if peers else "test"
    needed = ["pytest_benchmark", *(["torch", "jax", "optax"] if peers else [])]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise InputError(
            f"bench: {', '.join(missing)} not installed; install fit-unfolded[{extra}], or use "
            "--quick, which needs no more packages."
        )
    if not (SUITE / "pytest.ini").exists():
        raise InputError(
            "bench: the suite is in the folder benchmarks/ of a checkout, which is missing here; "
            "use --quick."
        )


def default_directory() -> Path:
    """`benchmarks/results/<machine>` of the checkout."""
    from fit_unfolded.bench.environment import machine_name

    return SUITE / "results" / machine_name()


def suite(directory: Path, peers: bool, variables: Mapping[str, str]) -> bool:
    """Runs the suite, writes its JSON and the report; whether no figure was refused.

    Args:
        directory: of `bench.json` or, with `peers`, `peers.json`, and of `report.md`.
        variables: the environment of its process, which selects the device.
    """
    from fit_unfolded.bench.report import BENCH, PEERS, write_report

    own = ["test_limit.py", "test_training.py", "test_anatomy.py", "test_memory.py"]
    selected = ["test_peers.py"] if peers else own
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder, "benchmark.json")
        command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", *selected]
        status = _run([*command, f"--benchmark-json={measured}"], variables)
        if status not in (0, 1) or not measured.exists():
            raise InputError(f"bench: pytest ended with {status}; nothing was written.")
        with created(directory), replacing(directory / (PEERS if peers else BENCH)) as partial:
            partial.write_bytes(measured.read_bytes())
    if (directory / BENCH).exists():
        print(f"Written: {write_report(directory)}")
    return status == 0


def _run(command: list[str], variables: Mapping[str, str]) -> int:
    """Runs a command in `benchmarks/`; on Ctrl-C, kills it and all its subprocesses."""
    process = subprocess.Popen(command, cwd=SUITE, env=variables, start_new_session=True)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            if sys.platform == "win32":  # Ctrl-C reaches the subprocesses by itself
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
