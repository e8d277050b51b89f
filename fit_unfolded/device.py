"""`--device` and `--memory-growth`: which device both sides train on, and how much of it they take.

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


def use(device: str, memory_growth: bool = False) -> str:
    """Makes `device` the only one TensorFlow sees, and returns its name for the record.

    Args:
        device: "auto" (the first GPU, else the CPU), "cpu", "gpu" (the first) or "gpu:N".
        memory_growth: take memory of the GPU as it is needed, and not all of it at once.

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
    chosen = [] if device == "cpu" else gpus[number : number + 1]
    if memory_growth and not chosen:
        raise InputError("--memory-growth: no GPU is used here, and only a GPU has it; leave it.")
    tf.config.set_visible_devices(chosen, "GPU")
    if not chosen:
        return "CPU"
    tf.config.experimental.set_memory_growth(chosen[0], memory_growth)
    details = tf.config.experimental.get_device_details(chosen[0])
    return f"GPU:{number} {details.get('device_name', '')}".strip()


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
