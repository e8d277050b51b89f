"""`--device` and `--replicas`: which devices both sides train on."""

import re

import tensorflow as tf

from fit_unfolded.errors import InputError


def use(device: str, replicas: int = 1) -> str:
    """Makes `device` the only one TensorFlow sees, and returns its name for the record.

    Args:
        device: "auto" (the first GPU, else the CPU), "cpu", "gpu" (the first) or "gpu:N".
        replicas: how many devices: this GPU and those after it, or parts of the CPU.

    Raises:
        InputError: for any other word, and for a GPU that is not there.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", device)
    if match is None:
        raise InputError(f"--device: '{device}' is none of auto, cpu, gpu, gpu:N.")
    gpus = tf.config.list_physical_devices("GPU")
    number = int(match[1] or 0)
    if device.startswith("gpu") and number >= len(gpus):
        found = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}" if gpus else "no GPU"
        raise InputError(f"--device: TensorFlow sees {found} here, so not {device}; use cpu.")
    chosen = [] if device == "cpu" else gpus[number : number + replicas]
    if chosen and len(chosen) < replicas:
        raise InputError(
            f"--replicas: TensorFlow sees {len(chosen)} of the {replicas} GPUs from {number} on; "
            "take fewer, or --device cpu, which is divided into as many parts as are asked for."
        )
    tf.config.set_visible_devices(chosen, "GPU")
    if not chosen:
        divide_cpu(replicas)
        return "CPU" if replicas == 1 else f"{replicas} logical CPUs"
    numbers = ", ".join(f"GPU:{number + place}" for place in range(replicas))
    details = tf.config.experimental.get_device_details(chosen[0])
    return f"{numbers} {details.get('device_name', '')}".strip()


def divide_cpu(parts: int) -> None:
    """Makes at least so many logical CPUs of the one there is, before anything runs on it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if parts > len(tf.config.get_logical_device_configuration(cpu) or [cpu]):
        logical = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [logical] * parts)
