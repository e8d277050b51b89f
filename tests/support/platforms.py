"""What some systems lack: each mark names what its tests need, and why they are skipped there."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NO_FORK = "forks a process that has imported TensorFlow, which only Linux allows"
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason=NO_FORK)
needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="sends a signal to one process, which Windows cannot do"
)
needs_shebang = pytest.mark.skipif(
    sys.platform == "win32", reason="runs a script by its first line, which Windows does not read"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="reads /proc, which only Linux has"
)
needs_peak_memory = pytest.mark.skipif(
    sys.platform == "win32", reason="peak memory is not measured on Windows"
)
needs_permissions = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root, and anyone on Windows, may write to a directory that is read-only",
)


@contextlib.contextmanager
def locked(path):
    """Lets one process at a time into the block: those of pytest-xdist share what it makes."""
    with path.open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            while True:
                with contextlib.suppress(OSError):  # after ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        yield


def interruptible():
    """Before a program is started: a shell's background job would ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
