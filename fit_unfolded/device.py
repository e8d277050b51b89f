"""`--device`, `--memory-growth` and `--replicas`: which devices both sides train on, and how.

Nothing here was ever run on a GPU; the tests that need one are skipped without it.
"""

import os
import re

import tensorflow as tf

from fit_unfolded.errors import InputError

ADVICE = (
    "see that `nvidia-smi` lists it, install NVIDIA's libraries with `pip install "
    "fit-unfolded[gpu]`, or use --device cpu"
)


def use(device: str, memory_growth: bool = False, replicas: int = 1) -> str:
    """Makes `device` the only one TensorFlow sees, and returns its name for the record.

    Args:
        device: "auto" (the first GPU, else the CPU), "cpu", "gpu" (the first) or "gpu:N".
        memory_growth: take memory of the GPU as it is needed, and not all of it at once.
        replicas: how many devices: this GPU and those after it, or parts of the CPU.

    Raises:
        InputError: for any other word, for a GPU that is not there, and for memory growth
            without a GPU.
    """
    number = _number(device)
    gpus = tf.config.list_physical_devices("GPU")
    if device.startswith("gpu") and number >= len(gpus):
        found = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else "no GPU"
        advice = f"take one of gpu:0 to gpu:{len(gpus) - 1}" if gpus else ADVICE
        raise InputError(f"--device: TensorFlow sees {found} here, so not {device}; {advice}.")
    chosen = [] if device == "cpu" else gpus[number : number + replicas]
    if chosen and len(chosen) < replicas:
        raise InputError(
            f"--replicas: TensorFlow sees {len(chosen)} of the {replicas} GPUs from {number} on; "
            "take fewer, or --device cpu, which is divided into as many parts as are asked for."
        )
    if memory_growth and not chosen:
        raise InputError("--memory-growth: no GPU is used here, and only a GPU has it; leave it.")
    tf.config.set_visible_devices(chosen, "GPU")
    if not chosen and replicas == 1:
        return "CPU"
    if not chosen:
        divide_cpu(replicas)
        return f"{replicas} logical CPUs"
    for gpu in chosen:
        tf.config.experimental.set_memory_growth(gpu, memory_growth)
    numbers = ", ".join(f"GPU:{number + place}" for place in range(replicas))
    details = tf.config.experimental.get_device_details(chosen[0])
    return f"{numbers} {details.get('device_name', '')}".strip()


def divide_cpu(parts: int) -> None:
    """Makes at least so many logical CPUs of the one there is, before anything runs on it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if parts > len(tf.config.get_logical_device_configuration(cpu) or [cpu]):
        logical = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [logical] * parts)


def environment(device: str, memory_growth: bool) -> dict[str, str]:
    """The same choice as environment variables, for a process yet to be started.

    Args: as in `use`, which has found that the device is there.
    """
    variables = dict(os.environ)
    if device.startswith("gpu"):
        visible = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        number = _number(device)
        variables["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    elif device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = "-1"
    if memory_growth:
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return variables


def _number(device: str) -> int:
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", device)
    if match is None:
        raise InputError(f"--device: '{device}' is none of auto, cpu, gpu, gpu:N.")
    return int(match[1] or 0)
