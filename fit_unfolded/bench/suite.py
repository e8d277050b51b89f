"""`fit-unfolded bench`: rounds of fresh processes, until the intervals are narrow.

Each round starts one process for each case, so that the processes of a case are spread over the
whole run. A case takes part in at least three rounds, and in further ones until the 95 % intervals
of all its speedups are within 5 % (`measure.across`), or its time or that of the run is used up.
On Ctrl-C, what was measured until then is written, and marked.
"""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import created, replacing
from fit_unfolded.common.progress_bars import progress_bars

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LEAST_PROCESSES, MOST_PROCESSES = 3, 20
MINUTES = 45.0  # of a run: no process beyond the least number begins that would end later
LONGEST_PROCESS = 600.0  # seconds, after which a process is ended and refused
BENCH, PEERS = "bench.json", "peers.json"
SMALL, LARGE = ("lesson", "mlp", "cnn", "transformer", "digits"), ("resnet20", "language model")


@dataclass
class Task:
    """A case, and what its processes found.

    Attributes:
        arguments: of `fit_unfolded.bench.worker`; without `seconds`, of a single process.
        seconds: of measuring in each process, after its preparation.
        limit: no process begins that would end later than so many seconds of them together, once
            there are `LEAST_PROCESSES`.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float | None = None
    limit: float = 0.0
    used: float = 0.0
    processes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def repeated(self) -> bool:
        """Whether several processes measure it."""
        return self.limit > 0

    @property
    def refused(self) -> bool:
        """Whether a process gave no figures: another would not, either."""
        return any(isinstance(p.get("refused"), str) for p in self.processes)

    def wants_another(self, stable: Callable[["Task"], bool], left: float) -> bool:
        """Whether it takes part in the next round; `left`, seconds of the run."""
        count = len(self.processes)
        if self.refused or not self.repeated:
            return count == 0
        if count < LEAST_PROCESSES:
            return True
        one = self.used / count
        within = self.used + one <= self.limit and one <= left
        return count < MOST_PROCESSES and within and not stable(self)

    def command(self) -> list[str]:
        """Of the next process."""
        more = [] if self.seconds is None else [f"{self.seconds:g}"]
        more += [str(len(self.processes))] if self.repeated else []
        return [sys.executable, "-m", "fit_unfolded.bench.worker", *self.arguments, *more]


def own_tasks() -> list[Task]:
    """fit and the loop."""
    return [
        *(Task(name, ("case", name), 30.0, 500.0) for name in SMALL),
        *(Task(name, ("case", name), 20.0, 240.0) for name in LARGE),
        Task("sweep", ("sweep",), 2.0, 250.0),
        Task("limit", ("limit",)),
        Task("anatomy", ("anatomy",)),
        *(
            Task(f"memory {name}, {mode}, {side}", ("memory", name, mode, side))
            for name in SMALL[:4]
            for mode in ("default", "block")
            for side in ("fit", "loop")
        ),
        *(Task(f"stream {side}", ("stream", side)) for side in ("fit", "loop")),
    ]


def peer_tasks() -> list[Task]:
    """fit, the loop, PyTorch and JAX."""
    from fit_unfolded.bench.peers.race import RACED, RUNNERS

    return [
        *(Task(name, ("peers", name), 25.0, 360.0) for name in RACED),
        *(Task(f"target {name}", ("target", name), None, 60.0) for name in RUNNERS),
    ]


def check_packages(peers: bool) -> None:
    """Checks, without TensorFlow, that the peers can be run.

    Raises:
        InputError: a package is missing.
    """
    needed = ("torch", "jax", "optax") if peers else ()
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise InputError(
            f"--peers: {', '.join(missing)} not installed; install fit-unfolded[peers], or leave "
            "it out."
        )


def check_submission() -> None:
    """Raises InputError if there is no checkout whose folder of results could be written."""
    if not RESULTS.is_dir():
        raise InputError(
            "--submit: writes into benchmarks/results/ of a checkout, which is missing here; use "
            "--output."
        )


def suite(directory: Path, peers: bool, submit: bool, variables: Mapping[str, str]) -> bool:
    """Runs the suite, writes its JSON and the report.

    Args:
        directory: of `bench.json` or, with `peers`, `peers.json`, and of `report.md`.
        submit: also writes the tables of all machines.
        variables: the environment of the processes, which selects the device.

    Returns:
        Whether no figure was refused.

    Raises:
        InputError: other results, which `submit` needs, are damaged.
        KeyboardInterrupt: on Ctrl-C, once what was measured is written.
    """
    from fit_unfolded.bench import machines
    from fit_unfolded.bench.environment import BUSY, environment, wait_until_quiet
    from fit_unfolded.bench.report import write_report

    if submit:
        machines.page()  # the results of others can be read: known before all is measured
    began = datetime.datetime.now(datetime.UTC)
    print("Waiting until the machine is quiet, at most three minutes.", flush=True)
    quiet = wait_until_quiet()
    if (quiet["busy"] or 0.0) > BUSY:
        print(f"It stays busy: others use {quiet['busy']:.0%} of the cores. The report says so.")
    tasks = peer_tasks() if peers else own_tasks()
    begin = time.perf_counter()
    interruption = None
    try:
        measure(tasks, variables)
    except KeyboardInterrupt as error:
        if not any("seconds" in process for task in tasks for process in task.processes):
            raise
        interruption = error
    figures = {
        "date": f"{began:%Y-%m-%d}",
        "command": f"fit-unfolded bench{' --peers' * peers}{' --submit' * submit}",
        "commit": commit(),
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "interrupted": interruption is not None,
        "environment": environment(),
        "start": quiet,
        "tasks": {
            task.name: {"limit": task.limit, "used": round(task.used), "processes": task.processes}
            for task in tasks
            if task.processes
        },
    }
    with created(directory), replacing(directory / (PEERS if peers else BENCH)) as partial:
        partial.write_text(compact(figures), encoding="utf-8")
    if (directory / BENCH).exists():
        print(f"Written: {write_report(directory)}")
    if submit:
        for page in machines.write():
            print(f"Written: {page}")
        print(
            f"To send it, commit {directory.name}/ and these pages, and open a pull request: "
            "benchmarks/results/README.md."
        )
    if interruption is not None:
        raise interruption
    refused = [p["refused"] for task in tasks for p in task.processes if p.get("refused")]
    return not refused


def measure(tasks: list[Task], variables: Mapping[str, str]) -> None:
    """Rounds of processes; what they find is entered in the tasks."""
    from fit_unfolded.bench.environment import busy_share

    least = sum(LEAST_PROCESSES if task.repeated else 1 for task in tasks)
    start, done = time.perf_counter(), 0

    def left() -> float:
        return MINUTES * 60 - (time.perf_counter() - start)

    with progress_bars() as bars:
        shown = bars.add_task("bench", total=least, note="")
        while chosen := [task for task in tasks if task.wants_another(is_stable, left())]:
            for task in chosen:
                if not task.wants_another(is_stable, left()):  # the run's time is used up
                    continue
                note = f"{task.name}, process {len(task.processes) + 1}"
                bars.update(shown, total=max(least, done + 1), note=note)
                busy = busy_share(0.3)
                begin = time.perf_counter()
                found = run(task.command(), variables)
                task.used += time.perf_counter() - begin
                task.processes.append(found | {"busy_before": busy})
                done += 1
                bars.advance(shown)
                if isinstance(found.get("refused"), str):
                    bars.console.print(f"{note}: refused, {found['refused']}", highlight=False)


def is_stable(task: Task) -> bool:
    """Whether the intervals of all speedups of a task are narrow."""
    from fit_unfolded.bench.report import speedups

    return not any(ratio.unstable for ratio in speedups(task.name, task.processes).values())


def run(command: list[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """Runs a command, and reads the JSON in its last line; on Ctrl-C, kills all its processes.

    Returns:
        That, or `{"refused": why}` for a command that failed or took `LONGEST_PROCESS`.
    """
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        command, env=variables, start_new_session=True, text=True, **pipes
    ) as process:
        try:
            output, errors = process.communicate(timeout=LONGEST_PROCESS)
        except subprocess.TimeoutExpired:
            return {"refused": f"the process took longer than {LONGEST_PROCESS:.0f} s"}
        finally:
            if process.poll() is None:
                if sys.platform == "win32":  # Ctrl-C reaches the subprocesses by itself
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        last = (errors.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return {"refused": without_paths(f"the process failed: {last}")}
    return json.loads(output.splitlines()[-1])


def without_paths(text: str) -> str:
    """The text with every path shortened to its last part."""
    return re.sub(r"(?:/[^\s/:'\"]+)+/", "", text)


def commit() -> str:
    """The checkout's commit, marked if files differ from it; "unknown" without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def compact(figures: dict[str, Any]) -> str:
    """JSON with each list of numbers on one line."""
    text = json.dumps(figures, indent=1)
    numbers = re.compile(r"\[\s+(-?\d[\d.e+-]*(?:,\s+-?\d[\d.e+-]*)*)\s+\]")
    text = numbers.sub(lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    return text + "\n"
