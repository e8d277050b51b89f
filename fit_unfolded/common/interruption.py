"""Ctrl-C ends a command within a second, with one line."""

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 0.7


@contextmanager
def interruptible() -> Iterator[None]:
    """Ends the process with status 130 where Ctrl-C raises no KeyboardInterrupt for a while.

    Python raises it between two of its own instructions, and one call of TensorFlow can take
    minutes: an epoch in one XLA program. A thread waits for the signal beside it.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or before is not signal.default_int_handler:  # ignored in the background
        yield
        return

    raised = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raised.set()
        raise KeyboardInterrupt

    read, write = socket.socketpair()  # Windows cannot wait for a pipe
    write.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(read, interrupt, raised), daemon=True)
    signal.signal(signal.SIGINT, interrupt)
    wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(wakeup)
        write.close()
        watcher.join()
        read.close()


def _watch(read: socket.socket, interrupt: object, raised: threading.Event) -> None:
    """Reads the numbers of signals until the other end is closed."""
    while number := read.recv(1):
        if number[0] != signal.SIGINT or raised.wait(GRACE_SECONDS):
            continue
        closed, _, _ = select.select([read], [], [], 0)
        # `launch` sets a handler of its own, and ends its workers first
        if not closed and signal.getsignal(signal.SIGINT) is interrupt:
            end_interrupted()


def end_interrupted() -> NoReturn:
    """Says so, and skips the shutdown of the interpreter, which takes seconds with TensorFlow."""
    cursor = b"\r\x1b[2K\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
    os.write(2, cursor + b"interrupted\n")
    os._exit(130)
