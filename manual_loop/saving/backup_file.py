"""The file of a backup: written atomically, with a checksum, and the last two are kept.

A backup is one `.npz` file of two arrays, and a SHA-256 of all before it: `text` is JSON, in which
each array is replaced by its dtype, shape and place in `data`. Nothing in it is pickled.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
import re
import warnings
import zipfile

import numpy as np

from manual_loop.saving import training_state, trust

VERSION = 2
MARK = b"backup %d sha256 "  # before the checksum
CHECKSUM = hashlib.sha256().digest_size

_writer = concurrent.futures.ThreadPoolExecutor(1)
_pending: concurrent.futures.Future | None = None


def write(path, state):
    """Replace the newest backup, which becomes the previous one.

    A process that dies meanwhile leaves at least one of them complete.

    Args:
        path: a `pathlib.Path`.
        state: what `pack` takes.

    Raises:
        OSError: the file cannot be written. The earlier backups are left as they are.
    """
    content = to_bytes(state)
    part = part_of(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous_of(path))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    synchronize_directory(path.parent)


def write_soon(path, state):
    """`write` in the background of the next steps, once the write before has ended.

    `state` must not be changed any more.

    Raises:
        OSError: the write before has failed.
    """
    global _pending
    finish()
    _pending = _writer.submit(write, path, state)


def finish():
    """Wait until nothing is being written.

    Raises:
        OSError: the write has failed.
    """
    global _pending
    pending, _pending = _pending, None
    if pending is not None:
        pending.result()


def read(path):
    """The newest backup that is undamaged; None if there is none at all.

    Raises:
        ValueError: there are files, and all of them are damaged.
    """
    with contextlib.suppress(OSError):  # of a training that has failed before
        finish()
    damaged = []
    for file in (path, previous_of(path)):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            damaged.append(f"{file} cannot be read ({error.strerror})")
            continue
        try:
            state = from_bytes(content)
            training_state.check(state)
        except ValueError as error:
            damaged.append(f"{file} {error}")
            continue
        if damaged:
            warnings.warn(
                f"{damaged[0]}. Training resumes from the previous backup, {file}.", stacklevel=2
            )
        return state
    if damaged:
        raise ValueError(
            f"{'; '.join(damaged)}. Remove it to train from the start, or name another `path`."
        )
    return None


def remove(path):
    """Remove both backups, and what a process that died has left of a third."""
    finish()
    for file in (part_of(path), previous_of(path), path):
        file.unlink(missing_ok=True)


def previous_of(path):
    """Where the backup before the newest one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def part_of(path):
    """Where a backup is written, before it is complete."""
    return path.with_name(f".{path.name}.part")


def synchronize_directory(path):
    """Make the renaming of files durable, where a directory can be opened."""
    if os.name == "posix":
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def to_bytes(state):
    """The content of the file."""
    parts: list[bytes] = []
    text = json.dumps(pack(state, parts)).encode()
    file = io.BytesIO()
    data = np.frombuffer(b"".join(parts), "uint8")
    np.savez(file, text=np.frombuffer(text, "uint8"), data=data)
    file.write(MARK % VERSION)
    file.write(hashlib.sha256(file.getbuffer()).digest())
    return file.getvalue()


def from_bytes(content):
    """The state that `to_bytes` was given.

    Raises:
        ValueError: the content is not that of a whole file of this format.
    """
    body, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    mark = re.search(rb"backup (\d+) sha256 $", body[-len(MARK) - 20 :])
    if mark is None:
        raise ValueError("is no backup, or not complete")
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError("is damaged: its checksum is wrong")
    if (version := int(mark[1])) != VERSION:
        raise ValueError(f"is of version {version} of this format, and {VERSION} is read here")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            trust.check_arrays(archive)
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            text, data = file["text"].tobytes(), file["data"].tobytes()
        return unpack(json.loads(text), data)
    except Exception as error:  # somebody has made it
        raise ValueError(f"is no backup ({type(error).__name__}: {error})") from error


def pack(value, parts):
    """A value as JSON has it: arrays go to `parts`, and tuples stay apart from lists.

    Args:
        value: None, a bool, number, str or array, or a list, tuple or dict of them.
        parts: list of bytes, to which those of arrays are added.

    Raises:
        TypeError: anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [pack(part, parts) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [pack(part, parts) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[pack(k, parts), pack(v, parts)] for k, v in value.items()]}
    if not hasattr(value, "__array__") or (array := np.asarray(value)).dtype.hasobject:
        raise TypeError(
            "A backup holds None, numbers, text, arrays, and lists, tuples and dicts of them. "
            f"Received: {value!r} (of type {type(value).__name__})"
        )
    parts.append(array.tobytes())
    return {"array": array.dtype.name, "shape": list(array.shape), "size": array.nbytes}


def unpack(value, data):
    """What `pack` was given."""
    stream = io.BytesIO(data)

    def whole(value):
        if isinstance(value, list):
            return [whole(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "tuple" in value:
            return tuple(map(whole, value["tuple"]))
        if "dict" in value:
            return {whole(k): whole(v) for k, v in value["dict"]}
        array = np.frombuffer(stream.read(value["size"]), np.dtype(value["array"]))
        return array.reshape(value["shape"]).copy()

    return whole(value)
