"""What an HDF5 file is examined for; without a checksum, in a process of its own.

On a damaged file HDF5 may crash, or never end (a global heap of zeros, HDF5 1.14). Run by its path,
this file imports neither TensorFlow nor Keras.
"""

import math
import os
import subprocess
import sys

import h5py

# How large what is in a file may be. Pruned weights compress well, bombs better.
FLOOR, TIMES = 64 << 20, 20
SECONDS, BYTES_A_SECOND = 60, 10 << 20  # that reading may take


def largest(size):
    """How many bytes a file of this many bytes may hold."""
    return FLOOR + TIMES * size


def check_hdf5(file, size):
    """Examine an open `h5py.File`, given its bytes; how many bytes its arrays hold.

    Raises:
        ValueError: links, parts in other files, groups that contain themselves, arrays of something
            else than numbers, or far larger than the file.
    """
    held, groups, seen = 0, [file], {h5py.h5o.get_info(file.id).addr}
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"its entry {name!r} is a link")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"its entry {name!r} is there twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                raise ValueError(f"its entry {name!r} is not an array in this file")
            else:
                if item.shape is None or item.dtype.hasobject:
                    raise ValueError(f"its entry {name!r} holds no numbers")
                held += math.prod(item.shape) * item.dtype.itemsize
    if held > largest(size):
        raise ValueError(f"its arrays hold {held:,} bytes in {size:,}: a decompression bomb")
    return max(held, size)


def check_in_process(path):
    """`check_hdf5`, and read what Keras reads, in a process that may crash.

    Raises:
        ValueError: what is wrong.
    """
    command = [sys.executable, __file__, str(path)]
    seconds = SECONDS + path.stat().st_size / BYTES_A_SECOND
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError("it is damaged: HDF5 does not end reading it") from error
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2].partition(": ")[2]
        raise ValueError(words or "it is damaged: HDF5 crashes on it")


def read(path):
    """Read all attributes, and the data that are in chunks."""
    with h5py.File(path, "r") as file:
        check_hdf5(file, os.path.getsize(path))

        def look(_, item):
            for key in item.attrs:
                item.attrs[key]
            if isinstance(item, h5py.Dataset) and item.chunks:
                item[()]

        look(None, file)
        file.visititems(look)


if __name__ == "__main__":
    read(sys.argv[1])
