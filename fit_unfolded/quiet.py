"""TensorFlow imported without its own lines on the terminal."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras; what they write to standard error meanwhile is dropped.

    TF_CPP_MIN_LOG_LEVEL=3 does not hold back the lines that TensorFlow 2.21 writes before its
    log is set up, and they bypass sys.stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _interrupt_held_back(), _standard_error_dropped():
        tensorflow = importlib.import_module("tensorflow")
        importlib.import_module("keras")
        tensorflow.config.list_physical_devices()  # looks for GPUs, and says so
    # Keras's own advice, such as that .h5 is a legacy format, which the user chose.
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextmanager
def _standard_error_dropped() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C amid the import of TensorFlow's extensions can abort Python: raised afterwards."""
    received = []
    before = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt
