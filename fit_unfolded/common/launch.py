"""Starts several workers on this machine, to try out multi-worker training.

Each worker is a process with its own `TF_CONFIG` and its own log; they communicate over the
loopback interface. If one fails, or on Ctrl-C, all are ended.
"""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from fit_unfolded.common.progress_bars import PROGRESS, progress_bars

# The largest difference allowed in any value with three workers or more, whose gradients may be
# summed in another order than those of three replicas. (Measured with three: 0.)
TOLERANCE = 1e-5
END_SECONDS = 0.5  # from SIGTERM to SIGKILL
TAIL = 15  # lines shown of the log of a failed worker


@dataclass
class Worker:
    """One process, and the file of its output."""

    name: str
    process: subprocess.Popen
    log: Path


def launch(arguments: list[str], count: int, logs: Path) -> int:
    """Runs `fit-unfolded ARGUMENTS` as `count` workers, and shows the chief's progress.

    Args:
        arguments: the command and its arguments.
        count: number of workers.
        logs: an existing directory; `worker-0.log` is the chief's.

    Returns:
        0 if all succeeded, else the status of the first that failed.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        progress = Path(folder, "progress")
        progress.touch()
        written = stack.enter_context(progress.open("rb"))
        asked_to_end = stack.enter_context(_interruption())
        workers = stack.enter_context(_started(arguments, count, logs, progress))
        failed = _watch(workers, written, asked_to_end)
    if failed is None:
        return 0
    status = failed.process.returncode
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    print(f"error: {failed.name} ended with {how}; see {failed.log}.", file=sys.stderr)
    lines = failed.log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(*lines[-TAIL:], sep="\n", file=sys.stderr)
    return status if status > 0 else 1


def train(arguments: list[str], count: int, logs: Path) -> list[Any]:
    """Runs `fit-unfolded train` as `count` workers.

    Args: as in `launch`.

    Returns:
        The `comparison.compare.Run` of each worker, without its trainer.

    Raises:
        ConnectionError: a worker failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        if launch([*arguments, f"--keep-run={run}"], count, logs):
            raise ConnectionError("the workers failed, so nothing is compared.")
        return [pickle.loads(Path(f"{run}-{index}").read_bytes()) for index in range(count)]


def cluster(addresses: list[str], index: int) -> str:
    """`TF_CONFIG` of one worker."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def free_addresses(count: int) -> list[str]:
    """Free addresses on the loopback interface."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [server.getsockname() for server in servers]
    for server in servers:
        server.close()
    return [f"{host}:{port}" for host, port in addresses]


@contextmanager
def _started(
    arguments: list[str], count: int, logs: Path, progress: Path
) -> Iterator[list[Worker]]:
    """All workers, ended with the block; the chief writes its progress to a file."""
    addresses = free_addresses(count)
    workers: list[Worker] = []
    try:
        for index in range(count):
            log = logs / f"worker-{index}.log"
            environment = os.environ | {"TF_CONFIG": cluster(addresses, index)}
            if index == 0:
                environment[PROGRESS] = str(progress)
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "fit_unfolded", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # only this process receives Ctrl-C
                )
            workers.append(Worker(f"worker {index}", process, log))
        yield workers
    finally:
        _end([worker.process for worker in workers])


def _watch(workers: list[Worker], progress: BinaryIO, asked_to_end: Event) -> Worker | None:
    """Waits until all have succeeded, or one has failed, which is returned.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGTERM.
    """
    with progress_bars() as bars:
        task = bars.add_task(f"{len(workers)} workers", total=None, note="")
        while True:
            for line in _lines(progress):
                bars.update(task, **json.loads(line))
            ended = [worker for worker in workers if worker.process.poll() is not None]
            for worker in ended:
                if worker.process.returncode != 0:
                    return worker
            if len(ended) == len(workers):
                return None
            if asked_to_end.wait(0.05):
                raise KeyboardInterrupt


def _lines(file: BinaryIO) -> list[bytes]:
    """The whole lines written to a file since the last call."""
    begin = file.tell()
    text = file.read()
    whole = text.rfind(b"\n") + 1
    file.seek(begin + whole)
    return text[:whole].splitlines()


def _end(processes: list[subprocess.Popen]) -> None:
    """Ends those that run: with SIGTERM, and after `END_SECONDS` with SIGKILL."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + END_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _interruption() -> Iterator[Event]:
    """An event set by Ctrl-C and SIGTERM, so that neither interrupts the start of a worker."""
    asked = Event()
    before = {n: signal.signal(n, lambda *_: asked.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
