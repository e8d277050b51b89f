"""The rendezvous of several workers, over plain sockets, before TensorFlow starts.

`TF_CONFIG` is read and checked. Then all workers report their run configuration to the chief, which
sends everyone's to all. So a missing worker, a port in use or a different seed is named
immediately, instead of showing as a process that hangs or as losses that diverge.
"""

import contextlib
import json
import socket
import time
from dataclasses import dataclass

EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
        addresses: dict: name, such as "worker 1" -> "host:port". The chief is the first.
        task: the name of this process.
    """

    addresses: dict[str, str]
    task: str

    @property
    def chief(self):
        """The name of the chief."""
        return next(iter(self.addresses))

    @property
    def is_chief(self):
        """Whether this process is the chief."""
        return self.task == self.chief

    @property
    def place(self):
        """The place of this process among all, from 0."""
        return list(self.addresses).index(self.task)


def read_cluster(text):
    """The `Cluster` that the text of `TF_CONFIG` describes; None if it names no cluster.

    Raises:
        ValueError: it is not JSON, or not what TensorFlow defines.
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG is not JSON ({error}). An example: {EXAMPLE}") from None
    jobs = config.get("cluster", {}) if isinstance(config, dict) else None
    task = config.get("task", {}) if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise ValueError(
            f"TF_CONFIG must hold `cluster` and `task`, each a JSON object. An example: {EXAMPLE}"
        )
    if not jobs:
        return None
    addresses = {
        f"{job} {index}": address
        for job in ("chief", "worker")
        for index, address in enumerate(jobs.get(job, ()))
    }
    for name, address in addresses.items():
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"TF_CONFIG: the address of {name} must be host:port, not {address!r}."
            )
    twice = [name for name, a in addresses.items() if list(addresses.values()).count(a) > 1]
    if twice:
        raise ValueError(f"TF_CONFIG: {' and '.join(twice)} have the same address.")
    name = f"{task.get('type')} {task.get('index')}"
    if name not in addresses:
        raise ValueError(
            f"TF_CONFIG: `task` names {name}, which is not in the cluster. It must be one of "
            f"{', '.join(addresses) or 'chief or worker, of which there is none'}."
        )
    return Cluster(addresses, name)


def rendezvous(cluster, configuration, seconds):
    """Wait until all workers have reported, and compare their run configurations.

    The chief listens at its own address; the others report to it and receive what all reported.

    Args: as in `multi_worker_strategy`.

    Raises: as `multi_worker_strategy`.
    """
    deadline = time.monotonic() + seconds
    with listen(cluster) as server:
        if cluster.is_chief:
            reports = receive_all(cluster, configuration, server, deadline)
    if not cluster.is_chief:
        reports = report(cluster, configuration, deadline)
    assert_equal(reports)


def listen(cluster):
    """A socket at this process's own address, which shows that the port is free."""
    host, _, port = cluster.addresses[cluster.task].rpartition(":")
    try:
        return socket.create_server((host if host in LOOPBACK[:2] else "", int(port)))
    except OSError as error:
        raise ConnectionError(
            f"TF_CONFIG: {cluster.task} cannot listen at {host}:{port} ({error.strerror}). Name a "
            "free port, or end the process that has it."
        ) from error


def receive_all(cluster, configuration, server, deadline):
    """The chief's part: dict: name -> run configuration, of all workers; it sends it to all."""
    reports = {cluster.task: configuration}
    with contextlib.ExitStack() as stack:
        lines = []
        while len(reports) < len(cluster.addresses):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = [name for name in cluster.addresses if name not in reports]
                raise ConnectionError(
                    f"{' and '.join(missing)} did not report. Start every worker that TF_CONFIG "
                    "names, each with its own `task`."
                ) from None
            connection.settimeout(10)
            line = stack.enter_context(connection.makefile("rw", encoding="utf-8"))
            stack.enter_context(connection)
            with contextlib.suppress(OSError, ValueError, TypeError):  # not a worker
                name, theirs = json.loads(line.readline())
                if name in cluster.addresses and name not in reports:
                    reports[name] = theirs
                    lines.append(line)
        for line in lines:
            with contextlib.suppress(OSError):  # it is gone again: TensorFlow will notice
                line.write(json.dumps(reports) + "\n")
                line.flush()
    return {name: reports[name] for name in cluster.addresses}


def report(cluster, configuration, deadline):
    """The part of all others: dict: name -> run configuration, of all workers."""
    host, _, port = cluster.addresses[cluster.chief].rpartition(":")
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ConnectionError(
                f"{cluster.chief}, the chief, does not answer at {host}:{port}. Start it, with "
                "the same `cluster` in its TF_CONFIG."
            )
        try:
            with (
                socket.create_connection((host, int(port)), timeout=left) as connection,
                connection.makefile("rw", encoding="utf-8") as line,
            ):
                line.write(json.dumps([cluster.task, configuration]) + "\n")
                line.flush()
                if answer := line.readline():
                    return json.loads(answer)
        except (OSError, ValueError):  # not there yet
            pass
        time.sleep(0.1)


def assert_equal(reports):
    """Raise ValueError if workers were started differently.

    Args:
        reports: dict: name of a worker -> its run configuration, a dict.
    """
    (first, expected), *others = reports.items()
    for name, found in others:
        for key in [*expected, *(key for key in found if key not in expected)]:
            if expected.get(key) != found.get(key):
                raise ValueError(
                    f"The workers differ in {key}: {expected.get(key)} on {first}, "
                    f"{found.get(key)} on {name}. Start them all with the same."
                )
