"""A training that a command was asked for, and how to run it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fit_unfolded import workloads
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.tf_import import import_tensorflow
from fit_unfolded.workloads import user_file


@dataclass(frozen=True)
class Job:
    """A training, ready to run.

    Attributes:
        device: its name for the record.
        fit: arguments of fit other than x and y.
        compile: arguments of compile that override the workload's.
    """

    workload: workloads.Workload
    data: workloads.Data
    seed: int
    device: str
    fit: dict[str, Any]
    compile: dict[str, Any]
    replicas: int

    def heading(self) -> str:
        """What is trained, and how, in words."""
        request = {"seed": self.seed} | _literals(self.fit) | self.compile
        settings = ", ".join(f"{name}={value}" for name, value in request.items())
        title = ": ".join(filter(None, [self.workload.name, self.workload.description]))
        return f"{title}\n{settings}, on {self.device}"

    def figures(self) -> dict[str, Any]:
        """The same, for the record."""
        return {
            "workload": self.workload.name,
            "seed": self.seed,
            "device": self.device,
            "replicas": self.replicas,
            "fit_arguments": _literals(self.fit),
            "compile_overrides": self.compile,
        }

    def new_data(self) -> workloads.Data:
        """The data for one training; a `tf.data.Dataset` is made anew.

        One that shuffles draws another order each time that it is read.
        """
        streams = (self.data.x, self.data.extra.get("validation_data"))
        if any(user_file.is_dataset(stream) for stream in streams):
            return self.workload.load(self.seed)
        return self.data


def _literals(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the record; of objects, such as callbacks, the types."""

    def literal(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [literal(item) for item in value]
        plain = value is None or isinstance(value, bool | int | float | str)
        return value if plain else type(value).__name__

    return {name: literal(value) for name, value in arguments.items()}


def check_replicas(replicas: int, batch_size: int) -> None:
    """Checks that every replica gets a part of a batch.

    Raises:
        InputError: a batch has fewer samples.
    """
    if batch_size < replicas:
        raise InputError(
            f"--replicas: a batch of {batch_size} cannot be divided among {replicas}; use fewer "
            "replicas, or a larger --batch-size."
        )


def prepare(
    workload: str,
    seed: int,
    device: str,
    memory_growth: bool,
    replicas: int,
    data: Path | None,
    fit: dict[str, Any],
    compile: dict[str, Any],
) -> Job:
    """Imports TensorFlow, chooses the device and loads the data.

    Raises:
        InputError: the device is missing, or the data cannot be used.
    """
    import_tensorflow()
    from fit_unfolded.common.device import use

    used = use(device, memory_growth, replicas)  # before a user's file makes variables
    found = workloads.get(workload)
    loaded = found.load(seed, data)
    if workloads.is_file(workload):
        # fit warns of shuffle=True, its default, with a dataset, and ignores it
        ignored = {"shuffle": False} if user_file.is_dataset(loaded.x) else {}
        fit = ignored | found.fit | fit
        _check_file(found, loaded, fit, replicas)
    return Job(found, loaded, seed, used, fit, compile, replicas)


def _check_file(
    workload: workloads.Workload, data: workloads.Data, fit: dict[str, Any], replicas: int
) -> None:
    """Refuses what a user's file cannot be combined with, and a file that fails on a batch."""
    from fit_unfolded.comparison.compare import TRAINERS

    if user_file.is_dataset(data.x):
        if replicas > 1:
            raise InputError(
                f"--replicas, --workers: {workload.name} has a tf.data.Dataset; use arrays."
            )
        if fit.get("batch_size"):
            raise InputError(
                f"--batch-size: {workload.name} has a tf.data.Dataset, which brings its own "
                "batches; leave it out, here and in FIT."
            )
    check_replicas(replicas, fit.get("batch_size") or user_file.DEFAULT_BATCH_SIZE)
    given = {"x": data.x, "y": data.y} | data.extra
    for side, trainer in TRAINERS.items():
        user_file.try_batch(Path(workload.name), side, trainer, workload, given, fit)


def run(
    job: Job,
    implementation: str,
    bars: Any,
    strategy: Any = None,
    callbacks: Any = (),
    make_trainer: Any = None,
) -> Any:
    """Trains one implementation, with a progress bar in `bars`; returns its `compare.Run`.

    `make_trainer` is that of `compare.train`.
    """
    import keras

    from fit_unfolded.comparison.compare import train
    from manual_loop.distribution.replicas import mirrored_strategy

    if strategy is None and job.replicas > 1:
        strategy = mirrored_strategy(job.replicas)
    task = bars.add_task(implementation, total=job.fit.get("epochs", 1), note="")

    def show(epoch: int, logs: dict[str, float]) -> None:
        bars.update(task, advance=1, note=f"loss {logs['loss']:.4g}")

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=show), *callbacks]
    arguments = (job.workload, job.new_data(), job.seed, job.fit, job.compile, callbacks)
    return train(implementation, *arguments, strategy=strategy, make_trainer=make_trainer)
