"""The machine and the software that figures come from; no host name, no path."""

import os
import platform
import re
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
        "flags": {name: os.environ[name] for name in FLAGS if name in os.environ},
    }


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
