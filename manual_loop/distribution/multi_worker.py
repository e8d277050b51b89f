"""Workers: the same loop in several processes, on one machine or on many.

Each process, a worker, holds a copy of the model and computes its share of every batch; the sums
over the workers are TensorFlow's collective operations
(`tf.distribute.MultiWorkerMirroredStrategy`). The environment variable `TF_CONFIG` defines the
cluster and each task's role. The first worker is the chief: it alone writes files.

Three things that surprise:

1. Reading a metric or gathering predictions is a collective operation: all workers must run the
   same ones in the same order, or they hang. So they first compare what they are about to do, and
   every callback decides from logs that are equal on all workers.
2. A strategy waits for a missing worker (25 minutes were seen) and ignores SIGTERM meanwhile. So
   the workers have a rendezvous before TensorFlow starts (`rendezvous.py`).
3. TensorFlow detects a dead chief immediately, and another dead worker after some ten seconds of
   missed heartbeats; then the operation that waits for it fails on all others.

Keras's own `fit` fails with two workers (Keras 3.15).
"""

import contextlib
import faulthandler
import json
import os
import re
import signal
import socket
import threading
import time
import zlib

import keras
import numpy as np
import tensorflow as tf

from manual_loop.compiled.overrides import own_method
from manual_loop.distribution.rendezvous import assert_equal, read_cluster, rendezvous
from manual_loop.distribution.replicas import Replicas
from manual_loop.execution.graph import graph
from manual_loop.saving.backup import Backup

tree = keras.tree

RENDEZVOUS_SECONDS = 300  # to start all workers by hand
START_SECONDS = 60  # for TensorFlow to connect them
ENDING_SECONDS = 5  # for the system to close the port of a process that has died

# These write files, or send what they would write: they run only on the chief.
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


def multi_worker_strategy(configuration=None, seconds=RENDEZVOUS_SECONDS):
    """`tf.distribute.MultiWorkerMirroredStrategy` from `TF_CONFIG`, once all workers have reported.

    Call it before TensorFlow runs anything.

    Args:
        configuration: dict: name -> JSON value, which must be equal on all workers.
        seconds: to wait for the others.

    Returns:
        The strategy; None where `TF_CONFIG` is not set or names no cluster.

    Raises:
        ValueError: `TF_CONFIG` cannot be used, or the workers' configurations differ.
        ConnectionError: a port is in use, or a worker did not report.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG", "{}"))
    if cluster is None:
        return None
    rendezvous(cluster, configuration or {}, seconds)
    terminate = signal.getsignal(signal.SIGTERM)
    with ended_after(START_SECONDS):  # a worker may have died since
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # TensorFlow has ignored it
    return strategy


@contextlib.contextmanager
def ended_after(seconds):
    """End the process with a traceback if the block takes longer.

    While TensorFlow waits here, no other Python thread runs: only `faulthandler` can.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)  # standard error
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class Workers(Replicas):
    """Training in several processes, each with its own replicas.

    Args:
        strategy: a `tf.distribute.MultiWorkerMirroredStrategy` of several workers.
    """

    def __init__(self, strategy):
        super().__init__(strategy)
        self.cluster = cluster_of(strategy)

    def check_arguments(self, method, model, arguments):
        """See `SingleDevice`.

        Raises:
            ValueError: the workers differ, and in what; or none has a seed; or the model trains by
                a step of its own, whose further optimizers would not be synchronized.
        """
        if method in ("fit", "train_on_batch") and own_method(model, "train_step") is not None:
            raise ValueError(
                "A model with its own `train_step` cannot be trained by several workers: only the "
                "state of the model and of its optimizer is synchronized. Train it on one machine, "
                "with `tf.distribute.MirroredStrategy`."
            )
        # the global seed, as a graph has it
        seed = graph(lambda: tf.zeros([])).get_concrete_function().graph.seed
        configuration = {**run_configuration(method, model, arguments), "seed": seed}
        reports = self._gather(json.dumps(configuration).encode())
        assert_equal(dict(zip(self.cluster.addresses, map(json.loads, reports), strict=True)))
        if seed is None:
            raise ValueError(
                "Workers without a seed draw different orders of the samples. Call "
                "`keras.utils.set_random_seed` with the same number in all of them."
            )

    def in_order(self, data):
        """See `SingleDevice`: a dataset is sharded by rows, since files would change the order."""
        if not isinstance(data, tf.data.Dataset):
            return data
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.DATA
        options.experimental_distribute.auto_shard_policy = policy
        return data.with_options(options)

    def with_all_logs(self, step):
        """See `Replicas`."""

        def step_of_all(data):
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, step(data))

        return step_of_all

    def with_all_outputs(self, step):
        """See `Replicas`."""

        def step_of_all(data):
            context = tf.distribute.get_replica_context()
            return tree.map_structure(lambda leaf: context.all_gather(leaf, axis=0), step(data))

        return self.on_replicas(step_of_all, lambda outputs: outputs[0])

    def callbacks(self, callbacks):
        """See `SingleDevice`: those that write files run on the chief alone."""
        if self.cluster.is_chief:
            return callbacks
        return [callback for callback in tree.flatten(callbacks or []) if not writes(callback)]

    def synchronize(self, model):
        """Give all workers the chief's variables, and the epoch that it resumes at.

        Callbacks that read a file run on the chief alone; and what each replica holds for itself,
        such as the moving averages of a `BatchNormalization`, differs between workers. The values
        travel as integers, so that no bit changes on the way.
        """
        variables = [*model.variables, *model.optimizer.variables]
        values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
        epoch = np.array(getattr(model, "_initial_epoch", None) or 0, "int64")
        content = b"".join(value.tobytes() for value in (epoch, *values))
        numbers = np.frombuffer(content + bytes(-len(content) % 4), "int32")
        is_chief = self.cluster.is_chief
        content = self._sum(numbers if is_chief else np.zeros_like(numbers)).tobytes()
        if is_chief:
            return
        at = epoch.nbytes
        model._initial_epoch = int(np.frombuffer(content[:at], epoch.dtype)[0])
        for variable, value in zip(variables, values, strict=True):
            part = content[at : at + value.nbytes]
            variable.assign(np.frombuffer(part, value.dtype).reshape(value.shape))
            at += value.nbytes

    def from_chief(self, content):
        """See `SingleDevice`."""
        # never empty: TensorFlow cannot sum arrays without elements
        sent = self._gather(b"0" if content is None else b"1" + content)[0]
        return sent[1:] if sent.startswith(b"1") else None

    @contextlib.contextmanager
    def errors_of_lost_workers(self):
        """See `SingleDevice`.

        Raises:
            ConnectionError: a worker is gone, and which.
        """
        try:
            yield
        except LOST as error:
            gone = gone_from(self.cluster)
            if not gone and not isinstance(error, tf.errors.UnavailableError):
                raise
            raise ConnectionError(
                f"{' and '.join(gone) or 'Another worker'} is gone, and {self.cluster.task} cannot "
                "go on alone. Start all workers again; with a `Backup` among the callbacks, "
                "training resumes after the last completed epoch. "
                f"(TensorFlow: {in_short(error)})"
            ) from error

    def _gather(self, content):
        """The bytes of all workers, a list in the order of the cluster."""
        workers, place = len(self.cluster.addresses), self.cluster.place
        sizes = np.zeros(workers, "int32")
        sizes[place] = len(content)
        sizes = self._sum(sizes)
        table = np.zeros([workers, sizes.max()], "int32")
        table[place, : len(content)] = np.frombuffer(content, "uint8")
        table = self._sum(table).astype("uint8")
        return [row[:size].tobytes() for row, size in zip(table, sizes, strict=True)]

    def _sum(self, numbers):
        """The sum over all workers of an int32 array."""
        strategy = self.strategy
        each = strategy.num_replicas_in_sync // len(self.cluster.addresses)

        def of_replica(context):  # several replicas of a worker: only the first counts
            first = context.replica_id_in_sync_group % each == 0
            return tf.constant(numbers if first else np.zeros_like(numbers))

        values = strategy.experimental_distribute_values_from_function(of_replica)
        with self.errors_of_lost_workers():
            return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()


def run_configuration(method, model, arguments):
    """What must be equal on all workers for a call of fit, evaluate or predict.

    Args:
        method: its name.
        model: the model.
        arguments: dict: name -> value.

    Returns:
        dict: name -> text.
    """
    compiled = (model.get_compile_config() if model.compiled else None) or {}
    given = {k: v for k, v in arguments.items() if k not in ("verbose", "callbacks", "return_dict")}
    callbacks = arguments.get("callbacks")
    callbacks = tree.flatten(getattr(callbacks, "callbacks", callbacks) or [])
    data = [given.pop(name, None) for name in ("x", "y", "sample_weight", "validation_data")]
    configuration = {
        "method": method,
        "variables": [(v.path, v.shape) for v in model.variables],
        **compiled,
        "data": tree.map_structure(describe, data),
        "backup": any(isinstance(callback, Backup) for callback in callbacks),
        **given,
    }
    # the same function has another address in each process
    return {name: re.sub(" at 0x[0-9a-f]+", "", str(v)) for name, v in configuration.items()}


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


def writes(callback):
    """Whether a callback writes files: one of Keras's, or one with a true attribute `writes`."""
    return isinstance(callback, WRITERS) or getattr(callback, "writes", False)


def gone_from(cluster):
    """The names of the workers that no longer answer.

    A process that dies may lose its connections, which TensorFlow detects, before its port: so all
    are asked until one does not answer.
    """
    end = time.monotonic() + ENDING_SECONDS
    while True:
        gone = [name for name in cluster.addresses if not answers(cluster, name)]
        if gone or time.monotonic() > end:
            return gone
        time.sleep(0.1)


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
    """The first line of what an error says, without the place in the graph and in Python."""
    place = r"\s|Graph execution error|Detected at node|$"
    words = [line for line in str(error).splitlines() if not re.match(place, line)]
    return [*words, ""][0].rpartition("}} ")[-1]
