"""`--device`, `--memory-growth` and `--replicas`: which devices to train on, and how.

Never run on a GPU yet; the tests that need one are skipped without it.
"""

import os
import re

from fit_unfolded.common.errors import InputError

ADVICE = (
    "check that `nvidia-smi` lists it, install NVIDIA's libraries with `pip install "
    "fit-unfolded[gpu]`, or use --device cpu"
)


def use(device: str, memory_growth: bool = False, replicas: int = 1) -> str:
    """Makes `device` the only one visible to TensorFlow, and returns its name for the record.

    Args:
        device: "auto" (the first GPU, else the CPU), "cpu", "gpu" (the first) or "gpu:N".
        memory_growth: allocate the GPU's memory as needed instead of all at once.
        replicas: number of devices: this GPU and those after it, or logical CPUs.

    Raises:
        InputError: for any other name, for a missing GPU, and for memory growth without a GPU.
    """
    import tensorflow as tf

    number = gpu_number(device)
    gpus = tf.config.list_physical_devices("GPU")
    if device.startswith("gpu") and number >= len(gpus):
        found = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else "no GPU"
        advice = f"use gpu:0 to gpu:{len(gpus) - 1}" if gpus else ADVICE
        raise InputError(f"--device: {device} is not available, TensorFlow sees {found}; {advice}.")
    chosen = [] if device == "cpu" else gpus[number : number + replicas]
    if chosen and len(chosen) < replicas:
        raise InputError(
            f"--replicas: TensorFlow sees {len(chosen)} of {replicas} GPUs from gpu:{number} on; "
            "use fewer, or --device cpu, which is divided into any number of logical CPUs."
        )
    if memory_growth and not chosen:
        raise InputError("--memory-growth: applies to GPUs only, and none is used; leave it out.")
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
    """Divides the CPU into at least `parts` logical CPUs, before anything runs on it."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if parts > len(tf.config.get_logical_device_configuration(cpu) or [cpu]):
        logical = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [logical] * parts)


def environment(device: str, memory_growth: bool) -> dict[str, str]:
    """The same choice as environment variables for a new process.

    Args: as in `use`, which has checked that the device exists.
    """
    variables = dict(os.environ)
    if device.startswith("gpu"):
        visible = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        number = gpu_number(device)
        variables["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    elif device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = "-1"
    if memory_growth:
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return variables


def gpu_number(device: str) -> int:
    """N of "gpu:N", and 0 for the other names; needs no TensorFlow.

    Raises:
        InputError: for a name that `use` does not know.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", device)
    if match is None:
        raise InputError(f"--device: must be auto, cpu, gpu or gpu:N, not '{device}'.")
    return int(match[1] or 0)
