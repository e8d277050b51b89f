"""What a file is examined for before anything is loaded from it: anyone may have written it.

- The seal: the trainers end a model file with the SHA-256 of all before it, since HDF5 has no
  checksum. A file without a seal is one that Keras wrote: it is examined for the rest.
- Archives: names that lead out of a folder, members twice, checksums.
- Sizes, against that of the file: archives, arrays and variables that are far larger are refused
  before memory is allocated for them.
- Pickled objects, links and parts in other files, of which none is ever needed.

Code in a file is Keras's matter: `safe_mode` refuses it.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import stat
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf

from manual_loop.saving import hdf5_check
from manual_loop.saving.hdf5_check import check_hdf5, largest

SEAL = b"fit-unfolded sha256 "
DIGEST = hashlib.sha256().digest_size
SEALED = "sealed"  # an attribute of .h5: the seal must be there
CHUNK = 1 << 20


@contextlib.contextmanager
def loading(path):
    """Examine a model file, then load from it in the block.

    Args:
        path: a `pathlib.Path` that ends in `.h5` or `.keras`.

    Raises:
        OSError: the file is missing, a directory or unreadable.
        ValueError: it is damaged, hostile, or of something else; all that is raised in the block,
            but for a TypeError, which Keras raises for a class that it does not know.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is not a file.")  # a pipe, say: opening it would wait
    version = ""
    with path.open("rb") as file:
        try:
            is_sealed = check_seal(file)
            check = check_h5_model if path.suffix == ".h5" else check_keras_model
            size = check(path, is_sealed)
            version = _other_version(path)
            with variables_within(largest(size)):
                yield
        except Exception as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            words = str(error).strip().partition("\n")[0][:300] or type(error).__name__
            raise kind(
                f"{path} cannot be loaded: {words.rstrip('.')}.{version} Take an earlier file; if "
                "you trust this one, `keras.models.load_model` examines it less."
            ) from error


def sealed(content):
    """Bytes, with a seal at the end."""
    content += SEAL
    return content + hashlib.sha256(content).digest()


def seal(path):
    """Write the SHA-256 of all before them into the last bytes of a file that ends in a `SEAL`."""
    with path.open("r+b") as file:
        end = file.seek(-DIGEST, os.SEEK_END)
        digest = _digest(file, end)
        file.seek(end)
        file.write(digest)


def check_seal(file):
    """Whether an open file has a seal.

    Raises:
        ValueError: it is of other content.
    """
    end = max(0, file.seek(0, os.SEEK_END) - DIGEST)
    file.seek(max(0, end - len(SEAL)))
    mark, digest = file.read(len(SEAL)), file.read()
    if mark != SEAL:
        return False
    if _digest(file, end) != digest:
        raise ValueError("it is damaged: its checksum is wrong")
    return True


def _digest(file, end):
    digest = hashlib.sha256()
    file.seek(0)
    for start in range(0, end, CHUNK):
        digest.update(file.read(min(CHUNK, end - start)))
    return digest.digest()


def check_keras_model(path, is_sealed):
    """Examine a `.keras` archive; how many bytes it holds.

    Raises:
        ValueError: what is wrong.
    """
    with zipfile.ZipFile(path) as archive:
        if len(archive.comment) == len(SEAL) + DIGEST and not is_sealed:
            raise ValueError("it is damaged: its checksum is missing")
        held = check_archive(archive)
        for name in archive.namelist():
            if name.endswith(".h5"):
                content = io.BytesIO(archive.read(name))
                with h5py.File(content, "r") as file:
                    check_hdf5(file, len(content.getbuffer()))
            elif name.endswith(".npz"):
                with zipfile.ZipFile(io.BytesIO(archive.read(name))) as arrays:
                    check_arrays(arrays)
    return held


def check_h5_model(path, is_sealed):
    """Examine a `.h5` file; how many bytes it holds.

    Raises:
        ValueError: what is wrong.
    """
    if not is_sealed:
        hdf5_check.check_in_process(path)
    with h5py.File(path, "r") as file:
        if file.attrs.get(SEALED) and not is_sealed:
            raise ValueError("it is damaged: its checksum is missing")
        return check_hdf5(file, path.stat().st_size)


def check_archive(archive):
    """Examine the members of a `zipfile.ZipFile`; how many bytes they hold.

    Raises:
        ValueError: names that lead elsewhere, members twice or encrypted, links, far too much
            content, or a wrong checksum.
    """
    members, names = archive.infolist(), set()
    for member in members:
        name = member.filename
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0] or name in names:
            raise ValueError(f"its member {name!r} leads out of the archive or is there twice")
        names.add(name)
        if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise ValueError(f"its member {name!r} is a link or encrypted")
    held = sum(member.file_size for member in members)
    size = archive.fp.seek(0, os.SEEK_END)
    if held > largest(size):
        raise ValueError(f"it holds {held:,} bytes in {size:,}: a decompression bomb")
    if (damaged := archive.testzip()) is not None:
        raise ValueError(f"its member {damaged!r} is damaged: its checksum is wrong")
    return held


def check_arrays(archive):
    """`check_archive` of a `.npz` file, whose arrays must be as large as their members say.

    Raises:
        ValueError: as `check_archive`; pickled objects; a shape of more than there is.
    """
    check_archive(archive)
    for member in archive.infolist():
        with archive.open(member) as file:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(np.lib.format.read_magic(file))
            if read is None:
                raise ValueError(f"its array {member.filename!r} is of another version of NumPy")
            shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"its array {member.filename!r} holds pickled objects")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"its array {member.filename!r} has less than its shape {shape}")


@contextlib.contextmanager
def variables_within(limit):
    """Refuse variables of more than `limit` bytes together before they are allocated.

    Raises:
        ValueError: in the block, by the first that is too much.
    """
    held, shapes = 0, tf.Graph()

    def spec_of(value):
        """An initial value with its shape and dtype alone, if it can be had without its values."""
        if not callable(value):
            return None if value is None else tf.convert_to_tensor(value)
        with contextlib.suppress(Exception), shapes.as_default():
            return tf.convert_to_tensor(value())
        with contextlib.suppress(Exception):  # a seed generator needs a function
            return tf.function(value, autograph=False).get_concrete_function().outputs[0]
        return None

    def create(next_creator, **arguments):
        nonlocal held
        spec = spec_of(arguments["initial_value"])
        if spec is not None:
            held += (spec.shape.num_elements() or 0) * spec.dtype.size
        if held > limit:
            raise ValueError(f"its model needs more than {limit:,} bytes, which the file has not")
        return next_creator(**arguments)

    with tf.variable_creator_scope(create):
        yield


def _other_version(path):
    """In words, if a model file says that another Keras has written it."""
    try:
        if path.suffix == ".h5":
            with h5py.File(path, "r") as file:
                version = file.attrs["keras_version"]
        else:
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
    except Exception:
        return ""
    if version == keras.__version__:
        return ""
    return f" It was written by Keras {str(version)[:20]!r}, and this is {keras.__version__}."
