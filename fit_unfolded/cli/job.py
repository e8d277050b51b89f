"""A training that a command was asked for, and how to run it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fit_unfolded import workloads
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.tf_import import import_tensorflow


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
        request = {"seed": self.seed} | self.fit | self.compile
        settings = ", ".join(f"{name}={value}" for name, value in request.items())
        return f"{self.workload.name}: {self.workload.description}\n{settings}, on {self.device}"

    def figures(self) -> dict[str, Any]:
        """The same, for the record."""
        return {
            "workload": self.workload.name,
            "seed": self.seed,
            "device": self.device,
            "replicas": self.replicas,
            "fit_arguments": self.fit,
            "compile_overrides": self.compile,
        }


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

    found = workloads.get(workload)
    used = use(device, memory_growth, replicas)
    return Job(found, found.load(seed, data), seed, used, fit, compile, replicas)


def run(job: Job, implementation: str, bars: Any, strategy: Any = None, callbacks: Any = ()) -> Any:
    """Trains one implementation, with a progress bar in `bars`; returns its `compare.Run`."""
    import keras

    from fit_unfolded.comparison.compare import train
    from manual_loop.distribution.replicas import mirrored_strategy

    if strategy is None and job.replicas > 1:
        strategy = mirrored_strategy(job.replicas)
    task = bars.add_task(implementation, total=job.fit["epochs"], note="")

    def show(epoch: int, logs: dict[str, float]) -> None:
        bars.update(task, advance=1, note=f"loss {logs['loss']:.4g}")

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=show), *callbacks]
    arguments = (job.workload, job.data, job.seed, job.fit, job.compile, callbacks)
    return train(implementation, *arguments, strategy=strategy)
