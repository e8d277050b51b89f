"""The machine and the software that figures come from; no host name, no path."""

import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf

PACKAGES = ("tensorflow", "keras", "numpy", "torch", "jax", "jaxlib", "optax")
FLAGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "OMP_NUM_THREADS")


def environment() -> dict[str, Any]:
    """Processor, devices, cores, threads, versions and flags."""
    gpus = tf.config.get_visible_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "") for gpu in gpus]
    threading = tf.config.threading
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "gpus": names,
        "system": platform.system(),
        # 0 leaves the number to TensorFlow
        "intra_op_threads": threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": threading.get_inter_op_parallelism_threads(),
        "python": platform.python_version(),
        "versions": versions(),
        "flags": {name: _without_paths(os.environ[name]) for name in FLAGS if name in os.environ},
    }


def _without_paths(value: str) -> str:
    """A flag that names a file, such as --xla_dump_to, would tell more than the machine."""
    return " ".join("(a path)" if "/" in word else word for word in value.split())


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine_name() -> str:
    """A name for a folder: processor and cores, and GPUs where there are any."""
    words = [cpu_model(), f"{cores()} cores", *environment()["gpus"]]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


# Quiet -----------------------------------------------------------------------------------------

BUSY = 0.1  # share of the cores that other processes may use at the start
MOST_WAIT = 180.0  # seconds


def wait_until_quiet(most: float = MOST_WAIT) -> dict[str, Any]:
    """Waits until other processes leave the cores alone, or `most` seconds.

    Returns:
        `busy`, the share of the cores' time that others used at the end; `waited`, seconds;
        `frequency`, see `frequency`. None for what the system does not tell.
    """
    begin = time.perf_counter()
    busy = busy_share()
    while busy is not None and busy > BUSY and time.perf_counter() - begin < most:
        time.sleep(5.0)
        busy = busy_share()
    waited = round(time.perf_counter() - begin)
    return {"busy": busy, "waited": waited, "frequency": frequency()}


def busy_share(seconds: float = 2.0) -> float | None:
    """Share of the cores' time that is used while this process sleeps; stolen time counts."""
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if before is None or after is None or after[1] == before[1]:
        return None
    return round(1 - (after[0] - before[0]) / (after[1] - before[1]), 3)


def _processor_times() -> tuple[int, int] | None:
    """Idle and total time of all cores, in ticks; on Linux."""
    try:
        first, *_ = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    ticks = [int(word) for word in first.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def frequency() -> float | None:
    """The clock of the fastest core under load as a share of its maximum, on Linux."""
    folder = Path("/sys/devices/system/cpu")
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        pass
    try:
        now = [int(f.read_text()) for f in folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
        most = [int(f.read_text()) for f in folder.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq")]
    except (OSError, ValueError):
        return None
    return round(max(now) / max(most), 3) if now and most else None
