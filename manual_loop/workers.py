"""Workers: the same loop in several processes, on one machine or on many.

Each process, a worker, holds a copy of the model and computes its share of every batch; the sums
over the workers travel through TensorFlow's collective operations
(`tf.distribute.MultiWorkerMirroredStrategy`). The environment variable `TF_CONFIG` tells a process
the addresses of all workers and which of them it is. The first one is the chief: it alone writes.

Three things that surprise:

1. To read a metric or to gather predictions is a collective operation: all workers must do the same
   in the same order, or they wait for each other for ever. So they first compare what they are
   about to do, and every callback decides from logs that are alike on all of them.
2. A strategy that waits for a worker which never comes waits for an hour, deaf to SIGTERM. So the
   workers meet by a plain socket before TensorFlow starts.
3. TensorFlow notices a dead worker at once if it is the chief, and else after some ten seconds,
   when its heartbeats are missed; then the operation that waits for it fails on all others.

Keras's own `fit` does none of this: it fails under two workers (Keras 3.15).
"""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import zlib
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from manual_loop.desks import graph

tree = keras.tree

EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
MEETING_SECONDS = 300  # to start all workers by hand
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# These write files, or send what they would write: they run on the chief alone.
WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)

# What a collective operation ends with when a worker is gone.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


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


def cluster_of(strategy):
    """The `Cluster` that a strategy spans; None without several workers."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    if sum(map(len, jobs.values())) < 2:
        return None
    task = {"type": resolver.task_type, "index": resolver.task_id}
    return read_cluster(json.dumps({"cluster": jobs, "task": task}))


def multi_worker_strategy(facts=None, seconds=MEETING_SECONDS):
    """`tf.distribute.MultiWorkerMirroredStrategy` from `TF_CONFIG`, once all workers are there.

    To be made before TensorFlow runs anything.

    Args:
        facts: dict: name -> anything JSON holds, that must be alike on all workers.
        seconds: to wait for the others.

    Returns:
        The strategy; None where `TF_CONFIG` is not set or names no cluster.

    Raises:
        ValueError: `TF_CONFIG` cannot be used, or the workers' facts differ.
        ConnectionError: a port is in use, or a worker did not come.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG", "{}"))
    if cluster is None:
        return None
    meet(cluster, facts or {}, seconds)
    terminate = signal.getsignal(signal.SIGTERM)
    with exit_after(seconds, "error: TensorFlow did not reach all workers."):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # TensorFlow has made itself deaf to it
    return strategy


# Meeting: before TensorFlow starts, by plain sockets -------------------------------------------


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


@contextlib.contextmanager
def exit_after(seconds, message):
    """End the process when the block takes longer: nothing else ends a wait inside TensorFlow."""

    def end():
        print(message, file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Together: collective operations, which all workers must call alike ----------------------------


def agree(strategy, facts):
    """Hold what the workers are about to do against each other; nothing without workers.

    Args:
        strategy: a `tf.distribute.Strategy`, or None.
        facts: function that returns a dict: name -> text.

    Raises:
        ValueError: they differ, and in what; or none has a seed.
    """
    cluster = cluster_of(strategy)
    if cluster is None:
        return
    seed = graph(lambda: tf.zeros([])).get_concrete_function().graph.seed  # the global one
    said = everyones(strategy, json.dumps({**facts(), "seed": seed}).encode())
    assert_alike(dict(zip(cluster.addresses, map(json.loads, said), strict=True)))
    if seed is None:
        raise ValueError(
            "Workers without a seed draw different orders of the samples. Call "
            "`keras.utils.set_random_seed` with the same number in all of them."
        )


def facts_of(method, model, data, **arguments):
    """What must be alike on all workers for a call of fit, evaluate or predict.

    Args:
        method: its name.
        model: the compiled model.
        data: nested structure of arrays, datasets and others.
        **arguments: further arguments.
    """
    compiled = (model.get_compile_config() if model.compiled else None) or {}
    facts = {
        "method": method,
        "variables": [(v.path, v.shape) for v in model.variables],
        **compiled,
        "data": tree.map_structure(describe, data),
        **arguments,
    }
    # the same function lies elsewhere in each process
    return {name: re.sub(" at 0x[0-9a-f]+", "", str(fact)) for name, fact in facts.items()}


def describe(data):
    """Shape, dtype and checksum of an array, the batches' spec of a dataset, or the type."""
    if isinstance(data, tf.data.Dataset):
        return str(data.element_spec)
    if tf.is_tensor(data) and not isinstance(data, tf.Tensor):
        return str(tf.type_spec_from_value(data))
    if not hasattr(data, "__array__"):
        return type(data).__name__
    array = np.asarray(data)
    content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return f"{array.dtype} {list(array.shape)}, checksum {zlib.crc32(content):08x}"


def everyones(strategy, content):
    """The bytes of all workers, a list in the order of the cluster."""
    cluster = cluster_of(strategy)
    workers, place = len(cluster.addresses), cluster.place
    sizes = np.zeros(workers, "int32")
    sizes[place] = len(content)
    sizes = summed(strategy, sizes)
    table = np.zeros([workers, sizes.max()], "int32")
    table[place, : len(content)] = np.frombuffer(content, "uint8")
    table = summed(strategy, table).astype("uint8")
    return [row[:size].tobytes() for row, size in zip(table, sizes, strict=True)]


def follow_chief(strategy, model, optimizer):
    """Give all workers the chief's variables, and the epoch that it resumes at.

    Callbacks that read a file run on the chief alone; and what replicas hold each for itself, such
    as the moving averages of a `BatchNormalization`, differs between workers. The values travel as
    whole numbers, so that no bit changes on the way.
    """
    cluster = cluster_of(strategy)
    if cluster is None:
        return
    variables = [*model.variables, *optimizer.variables]
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    epoch = np.array(getattr(model, "_initial_epoch", None) or 0, "int64")
    content = b"".join(value.tobytes() for value in (epoch, *values))
    numbers = np.frombuffer(content + bytes(-len(content) % 4), "int32")
    content = summed(strategy, numbers if cluster.is_chief else np.zeros_like(numbers)).tobytes()
    if cluster.is_chief:
        return
    at = epoch.nbytes
    model._initial_epoch = int(np.frombuffer(content[:at], epoch.dtype)[0])
    for variable, value in zip(variables, values, strict=True):
        part = content[at : at + value.nbytes]
        variable.assign(np.frombuffer(part, value.dtype).reshape(value.shape))
        at += value.nbytes


def summed(strategy, numbers):
    """The sum over all workers of an int32 array."""
    each = strategy.num_replicas_in_sync // len(cluster_of(strategy).addresses)

    def of_replica(context):  # several replicas of a worker: the first speaks for all
        first = context.replica_id_in_sync_group % each == 0
        return tf.constant(numbers if first else np.zeros_like(numbers))

    values = strategy.experimental_distribute_values_from_function(of_replica)
    with naming_the_lost(strategy):
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()


def mean_of_all(step):
    """`data -> logs` on one replica, with the mean over the replicas of all workers."""

    def step_of_all(data):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, step(data))

    return step_of_all


def outputs_of_all(step):
    """`data -> outputs` on one replica, with those of all replicas of all workers, in order."""

    def step_of_all(data):
        context = tf.distribute.get_replica_context()
        return tree.map_structure(lambda leaf: context.all_gather(leaf, axis=0), step(data))

    return step_of_all


def in_order(data):
    """A dataset whose batches are shared out by rows: files would change the order."""
    if not isinstance(data, tf.data.Dataset):
        return data
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return data.with_options(options)


def callbacks_of(strategy, callbacks):
    """The callbacks that run on this worker: those that write, on the chief alone.

    Args:
        strategy: a `tf.distribute.Strategy`, or None.
        callbacks: a callback, a list of callbacks, or None.
    """
    cluster = cluster_of(strategy)
    if cluster is None or cluster.is_chief:
        return callbacks
    return [callback for callback in tree.flatten(callbacks or []) if not writes(callback)]


def writes(callback):
    """Whether a callback writes files: one of Keras's, or one with a true attribute `writes`."""
    return isinstance(callback, WRITERS) or getattr(callback, "writes", False)


@contextlib.contextmanager
def naming_the_lost(strategy):
    """Turn what a collective operation fails with when a worker is gone into one clear error.

    Raises:
        ConnectionError: a worker is gone, and which.
    """
    try:
        yield
    except LOST as error:
        raise_if_lost(strategy, error)
        raise


def raise_if_lost(strategy, error):
    """Raise ConnectionError if `error` comes of a worker that is gone."""
    cluster = cluster_of(strategy)
    if cluster is None or not isinstance(error, LOST):
        return
    gone = [name for name in cluster.addresses if not answers(cluster, name)]
    if gone or isinstance(error, tf.errors.UnavailableError):
        raise ConnectionError(
            f"{' and '.join(gone) or 'Another worker'} is gone, and {cluster.task} cannot go on "
            "alone. Start all workers again; with a `Backup` among the callbacks, training goes "
            f"on after the last epoch that was finished. (TensorFlow: {in_short(error)})"
        ) from error


def answers(cluster, name):
    """Whether anything still listens at a worker's address."""
    if name == cluster.task:
        return True
    host, _, port = cluster.addresses[name].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def in_short(error):
    """The first line of an error's text, without the place in the graph."""
    return str(error).splitlines()[0].rpartition("}} ")[-1]
