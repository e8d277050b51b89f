"""The meeting of several workers, by plain sockets, before TensorFlow starts.

What `TF_CONFIG` says is read and checked; then all workers report to the chief, and each hears what
all others were started with. So a worker that is missing, a port in use or another seed is named at
once, and not found out from a process that hangs, or from losses that part.
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
    """Who takes part in a training.

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


def meet(cluster, facts, seconds):
    """Wait until all workers are there, and hold their facts against each other.

    The chief listens at its own address, the others report to it and hear what all have said.

    Args: as in `multi_worker_strategy`.

    Raises: as `multi_worker_strategy`.
    """
    deadline = time.monotonic() + seconds
    with listen(cluster) as server:
        if cluster.is_chief:
            said = hear_all(cluster, facts, server, deadline)
    if not cluster.is_chief:
        said = report(cluster, facts, deadline)
    assert_alike(said)


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


def hear_all(cluster, facts, server, deadline):
    """The chief's part: dict: name -> facts, of all workers, which it tells them too."""
    said = {cluster.task: facts}
    with contextlib.ExitStack() as stack:
        lines = []
        while len(said) < len(cluster.addresses):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = [name for name in cluster.addresses if name not in said]
                raise ConnectionError(
                    f"{' and '.join(missing)} did not come. Start every worker that TF_CONFIG "
                    "names, each with a `task` of its own."
                ) from None
            connection.settimeout(10)
            line = stack.enter_context(connection.makefile("rw", encoding="utf-8"))
            stack.enter_context(connection)
            with contextlib.suppress(OSError, ValueError, TypeError):  # a stranger
                name, theirs = json.loads(line.readline())
                if name in cluster.addresses and name not in said:
                    said[name] = theirs
                    lines.append(line)
        for line in lines:
            with contextlib.suppress(OSError):  # it is gone again: TensorFlow will notice
                line.write(json.dumps(said) + "\n")
                line.flush()
    return {name: said[name] for name in cluster.addresses}


def report(cluster, facts, deadline):
    """The part of all others: dict: name -> facts, of all workers."""
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
                line.write(json.dumps([cluster.task, facts]) + "\n")
                line.flush()
                if answer := line.readline():
                    return json.loads(answer)
        except (OSError, ValueError):  # not there yet
            pass
        time.sleep(0.1)


def assert_alike(said):
    """Raise ValueError where workers were started differently.

    Args:
        said: dict: name of a worker -> its facts, a dict.
    """
    (first, expected), *others = said.items()
    for name, facts in others:
        for key in [*expected, *(key for key in facts if key not in expected)]:
            if expected.get(key) != facts.get(key):
                raise ValueError(
                    f"The workers differ in {key}: {expected.get(key)} on {first}, "
                    f"{facts.get(key)} on {name}. Start them all with the same."
                )
