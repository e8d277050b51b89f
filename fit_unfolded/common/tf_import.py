"""Imports TensorFlow without its log lines on the terminal."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras, and drops what they write to standard error meanwhile.

    TF_CPP_MIN_LOG_LEVEL=3 does not suppress the lines that TensorFlow 2.21 writes before it has
    read that level, and they bypass sys.stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _standard_error_dropped() as terminal, _ended_by_interrupt(terminal):
        tensorflow = importlib.import_module("tensorflow")
        importlib.import_module("keras")
        tensorflow.config.list_physical_devices()  # looks for GPUs, and logs what it finds
    # Keras's own advice, such as that .h5 is a legacy format, which the user chose.
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextmanager
def _standard_error_dropped() -> Iterator[int]:
    """Yields a file descriptor of the real standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield kept
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


@contextmanager
def _ended_by_interrupt(terminal: int) -> Iterator[None]:
    """Ctrl-C ends the process at once.

    A KeyboardInterrupt amid the import of TensorFlow's extensions can crash Python, and to wait for
    the end of the import takes seconds.
    """
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return

    def end(*_: object) -> None:
        os.write(terminal, b"interrupted\n")
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as a shell starts a job in the background
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
