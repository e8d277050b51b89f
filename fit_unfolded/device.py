"""`--device`: which device both sides train on."""

import re

import tensorflow as tf

from fit_unfolded.errors import InputError


def use(device: str) -> str:
    """Makes `device` the only one TensorFlow sees, and returns its name for the record.

    Args:
        device: "auto" (the first GPU, else the CPU), "cpu", "gpu" (the first) or "gpu:N".

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
    chosen = [] if device == "cpu" else gpus[number : number + 1]
    tf.config.set_visible_devices(chosen, "GPU")
    if not chosen:
        return "CPU"
    details = tf.config.experimental.get_device_details(chosen[0])
    return f"GPU:{number} {details.get('device_name', '')}".strip()
