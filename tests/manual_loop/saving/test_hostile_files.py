"""Files that are damaged, or made to do harm: refused as a whole, and nothing in them runs.

`tests/support/fuzz_files.py` makes many more of them at random.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_fit
from manual_loop import Trainer, load_model
from manual_loop.saving import backup_file, hdf5_check, training_state, trust
from manual_loop.saving.backup import Backup

resource = pytest.importorskip("resource")  # not on Windows: limits, and forks of the fuzzer

import fuzz_files  # noqa: E402
from fuzz_files import OUTCOMES, header, new_model, pickled, values_of  # noqa: E402

SEALED = ["loop.keras", "loop.h5", "fit.keras", "fit.h5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Content by name, see `fuzz_files.make_files`."""
    folder = tmp_path_factory.mktemp("files")
    fuzz_files.make_files(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model(files):
    keras.backend.clear_session(free_memory=False)  # the names are those of the backup
    model = new_model()
    model.optimizer.build(model.trainable_variables)
    return model


def refused(path, content, words, kind=ValueError):
    path.write_bytes(content)
    with pytest.raises(kind, match=words) as caught:
        load_model(path)
    assert path.name in str(caught.value)


def archive_of(members, how=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def edited_h5(content, edit):
    """An `.h5` file after `edit(file)`, without a seal, as Keras writes it."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as h5:
        edit(h5)
    return file.getvalue()


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEALED)
def test_each_flipped_bit_and_each_cut_is_found(name, files, tmp_path):
    content, path = files[name], tmp_path / name
    path.write_bytes(content)
    first = values_of(load_model(path))
    assert values_of(load_model(path)) == first
    end = len(content) - trust.DIGEST - len(trust.SEAL)
    rng = random.Random(name)
    for place in [0, end - 1, len(content) - 1, *(rng.randrange(end) for _ in range(30))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        refused(path, flipped, "cannot be loaded")
    for length in [0, 1, 8, 511, len(content) // 2, end - 1]:
        refused(path, content[:length], "cannot be loaded")
    flipped = bytearray(content)
    flipped[end] ^= 1  # the seal itself: all others are checked without it
    refused(path, flipped, "its checksum is missing")


def test_what_finds_it(files, tmp_path):
    """HDF5 has no checksum: Keras, and the loop in a file of Keras's, get other weights."""
    weights = keras.models.load_model(write(tmp_path / "a.h5", files["keras.h5"])).get_weights()
    kernel = weights[0].tobytes()
    for name, load in [("loop.h5", keras.models.load_model), ("keras.h5", load_model)]:
        flipped = bytearray(files[name])
        flipped[flipped.index(kernel[:16])] ^= 1
        assert load(write(tmp_path / name, flipped)).get_weights()[0].tobytes() != kernel
    refused(
        tmp_path / "a.h5", files["loop.h5"].replace(kernel[:16], bytes(16)), "checksum is wrong"
    )
    flipped = files["keras.keras"].replace(kernel[:16], bytes(16))
    refused(tmp_path / "a.keras", flipped, "'model.weights.h5' is damaged: its checksum is wrong")


def write(path, content):
    path.write_bytes(content)
    return path


def test_hdf5_that_never_ends_or_crashes(files, tmp_path, monkeypatch):
    content = files["keras.h5"]
    start = content.index(b"GCOL")  # where HDF5 keeps texts: it looks for more, without an end
    path = write(tmp_path / "a.h5", content[: start + 400] + bytes(3000) + content[start + 3400 :])
    monkeypatch.setattr(hdf5_check, "SECONDS", 3)
    monkeypatch.setattr(hdf5_check, "BYTES_A_SECOND", 1 << 30)
    with pytest.raises(ValueError, match=r"a.h5 cannot be loaded: .*HDF5 does not end reading it"):
        load_model(path)
    crash = "import os; os.abort()"
    monkeypatch.setattr(hdf5_check, "__file__", write(tmp_path / "crash.py", crash.encode()))
    refused(path, content, "HDF5 crashes on it")


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        load_model(tmp_path / "folder.h5")
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(ValueError, match="is not a file"):
        load_model(tmp_path / "pipe.keras")


def test_a_newer_version_is_named(files, tmp_path):
    members = members_of(files["keras.keras"])
    config = json.loads(members["config.json"]) | {"class_name": "Sequence3"}
    members["config.json"] = json.dumps(config)
    members["metadata.json"] = json.dumps({"keras_version": "99.0"})
    words = rf"written by Keras '99\.0', and this is {keras.__version__}"
    kind = (ValueError, TypeError)
    refused(tmp_path / "a.keras", archive_of(members), words, kind)

    def edit(file):
        file.attrs["model_config"] = '{"class_name": "Sequence3", "config": {}}'
        file.attrs["keras_version"] = "99.0"

    refused(tmp_path / "a.h5", edited_h5(files["keras.h5"], edit), words, kind)
    newer = files["backup.npz"][: -backup_file.CHECKSUM].replace(b"backup 2", b"backup 3")
    path = write(tmp_path / "backup.npz", newer + hashlib.sha256(newer).digest())
    with pytest.raises(ValueError, match="is of version 3 of this format, and 2 is read"):
        backup_file.read(path)


# Harm ---------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Where the payload would leave its mark."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / fuzz_files.MARK


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_layer_does_not_run(suffix, here):
    planted = keras.Sequential([keras.Input([4]), fuzz_files.PAYLOAD])
    here.unlink()  # it has run here, where the layer was called
    path = here.with_name(f"planted{suffix}")
    Trainer(planted).save(path)
    with pytest.raises(ValueError, match="arbitrary code execution") as caught:
        load_model(path)
    assert path.name in str(caught.value)
    assert not here.exists()
    with contextlib.suppress(Exception):  # the payload knows no more than `open`
        load_model(path, safe_mode=False)
    assert here.exists()


def test_pickled_objects_do_not_run(here, files):
    content = pickled(random.Random(0))
    np.load(io.BytesIO(content), allow_pickle=True)
    assert here.exists()  # it would have run
    here.rmdir()
    members = members_of(files["loop.keras"]) | {"seed_state.npz": archive_of({"a.npy": content})}
    refused(here.with_name("a.keras"), archive_of(members), "'a.npy' holds pickled objects")
    body = archive_of({"text.npy": content, "data.npy": content}) + backup_file.MARK % 2
    path = write(here.with_name("backup.npz"), body + hashlib.sha256(body).digest())
    with pytest.raises(ValueError, match=r"'text.npy' holds pickled objects.*Remove it"):
        backup_file.read(path)
    assert not here.exists()


@pytest.mark.parametrize("member", ["../x", "/x", "a/../../x", "..\\x", "C:/x"])
def test_names_that_lead_out_of_an_archive(member, files, tmp_path):
    members = members_of(files["loop.keras"]) | {member: b""}
    refused(tmp_path / "a.keras", archive_of(members), "leads out of the archive")


def test_links_and_members_twice(files, tmp_path):
    link = zipfile.ZipInfo("assets")
    link.external_attr = 0o120777 << 16
    refused(tmp_path / "a.keras", archive_of({link: "/tmp"}), "is a link or encrypted")
    file = io.BytesIO(files["keras.keras"])
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", b"{}")
    refused(tmp_path / "a.keras", file.getvalue(), "is there twice")


def test_bombs(files, tmp_path):
    """Refused before there is memory for them: all of these say that they are 4 GiB and more."""
    members = members_of(files["loop.keras"])
    bomb = archive_of(members | {"assets/x": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "a.keras", bomb, "a decompression bomb")
    shape = archive_of({"a.npy": header((1 << 40,))})
    bomb = archive_of(members | {"seed_state.npz": shape})
    refused(tmp_path / "a.keras", bomb, r"'a.npy' has less than its shape \(1099511627776,\)")

    def sparse(file):
        file.create_dataset("bomb", (1 << 32,), "i1", chunks=True, compression="gzip")

    bomb = edited_h5(files["keras.h5"], sparse)
    refused(tmp_path / "a.h5", bomb, "a decompression bomb")
    weights = edited_h5(members["model.weights.h5"], sparse)
    bomb = archive_of(members | {"model.weights.h5": weights})
    refused(tmp_path / "a.keras", bomb, "a decompression bomb")
    config = members["config.json"].replace(b'"units": 5', b'"units": 1000000000')
    bomb = archive_of(members | {"config.json": config})
    refused(tmp_path / "a.keras", bomb, "its model needs more than")
    bomb = archive_of(members | {"config.json": b"[" * 100_000})
    refused(tmp_path / "a.keras", bomb, "recursion")


def test_an_initializer_with_a_seed_generator_is_weighed_too():
    seed = keras.random.SeedGenerator(3)
    with trust.variables_within(1000):
        layer = keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed))
        layer.build((None, 4))
        assert list(seed.state.numpy()) == [3, 1]  # drawn from once
        layer = keras.layers.Dense(1 << 40, kernel_initializer=layer.kernel_initializer)
        with pytest.raises(ValueError, match="needs more than 1,000 bytes"):
            layer.build((None, 4))


def test_links_in_hdf5(files, tmp_path):
    edits = {
        "is a link": lambda file: file.__setitem__("a", h5py.SoftLink("/model_weights")),
        "'b' is a link": lambda file: file.__setitem__("b", h5py.ExternalLink("x.h5", "/")),
        "is there twice": lambda file: file.__setitem__("a", file["/"]),
        "is not an array in this file": lambda file: file.create_dataset(
            "a", (20,), "i1", external=[("/etc/hostname", 0, 20)]
        ),
        "holds no numbers": lambda file: file.create_dataset("a", data=["text"]),
    }
    for words, edit in edits.items():
        refused(tmp_path / "a.h5", edited_h5(files["keras.h5"], edit), words)


# Backups ------------------------------------------------------------------------------------------


def test_no_half_of_a_model(files, model, tmp_path):
    """All is checked before the first variable is set."""
    state = backup_file.from_bytes(files["backup.npz"])
    backup = Backup(tmp_path / "backup.npz")
    backup.set_model(model)
    before = values_of(model)
    path, value = state["variables"][-1]
    calls = state["callbacks"][:1]
    generators = state["random"] | {"numpy": {"bit_generator": "x"}}
    for change, words in [
        ({"variables": [*state["variables"][:-1], (path, value.astype("float16"))]}, "another mod"),
        ({"variables": [*state["variables"][:-1], (path, value[None])]}, "another model"),
        ({"variables": state["variables"][:-1]}, "another model"),
        ({"variables": [3]}, "cannot be used"),
        ({"callbacks": [*calls, ("EarlyStopping", {"model": 3})]}, "another state of EarlyStopp"),
        ({"callbacks": calls}, "was written with the callbacks"),
        ({"random": generators}, "cannot be used|state"),
        ({"random": {}}, "cannot be used"),
    ]:
        with pytest.raises(ValueError, match=words) as caught:
            backup.restore(state | change, fuzz_files.callbacks())
        assert "backup.npz" in str(caught.value)
        assert values_of(model) == before
    backup.restore(state, fuzz_files.callbacks())
    assert values_of(model) != before


@pytest.mark.parametrize("part", [*training_state.STATE, "all"])
def test_the_previous_backup_is_taken_where_parts_are_missing(part, files, tmp_path):
    state = backup_file.from_bytes(files["backup.npz"])
    state = 3 if part == "all" else state | {part: "x"}
    path = write(tmp_path / "backup.npz", backup_file.to_bytes(state))
    backup_file.previous_of(path).write_bytes(files["backup.previous.npz"])
    with pytest.warns(UserWarning, match="is no backup: .* resumes from the previous"):
        assert backup_file.read(path)["epoch"] == 1


# A full disk --------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_full(after):
    """No file may become longer than this, so that a write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", SEALED)
def test_the_old_file_survives_a_full_disk(name, files, model, tmp_path):
    path = write(tmp_path / name, files[name])
    trainer = (Trainer if name.startswith("loop") else keras_fit.Trainer)(model)
    arguments = dict(model.get_compile_config())
    for after in [1000, len(files[name]) // 2, len(files[name]) - 5]:
        with disk_full(after), pytest.raises(OSError, match=r"."):
            trainer.save(path)
        assert [file.name for file in tmp_path.iterdir()] == [name]
        assert path.read_bytes() == files[name]
        assert model.get_compile_config() == arguments
    trainer.save(path)
    load_model(path)


def test_the_old_backup_survives_a_full_disk(files, tmp_path):
    path = write(tmp_path / "backup.npz", files["backup.npz"])
    state = backup_file.from_bytes(files["backup.npz"])
    with disk_full(5000), pytest.raises(OSError, match="File too large"):
        backup_file.write(path, state)
    assert [file.name for file in tmp_path.iterdir()] == ["backup.npz"]
    assert path.read_bytes() == files["backup.npz"]


# At random ----------------------------------------------------------------------------------------


def test_some_at_random(files, model, tmp_path):
    contents = {name: files[name] for name in fuzz_files.ROWS}
    expected = {}
    for name, content in contents.items():
        expected[name], _ = fuzz_files.load(write(tmp_path / name, content), model)
        (tmp_path / name).unlink()
    for number in range(30):
        name, done, content = fuzz_files.make_input(random.Random(number), contents)
        write(tmp_path / "backup.previous.npz", files["backup.previous.npz"])
        path = write(tmp_path / name, content)
        assert fuzz_files.outcome_of(path, model, done, expected[name]) in OUTCOMES, number
        path.unlink()


def test_that_the_fuzzer_can_fail(files, model, tmp_path, monkeypatch):
    path = write(tmp_path / "loop.h5", files["loop.h5"])
    expected, _ = fuzz_files.load(path, model)
    assert fuzz_files.outcome_of(path, model, fuzz_files.DAMAGED, expected) == fuzz_files.EQUAL
    kernel = load_model(path).get_weights()[0].tobytes()
    write(path, files["loop.h5"].replace(kernel, bytes(len(kernel))))
    assert fuzz_files.outcome_of(path, model, fuzz_files.DAMAGED, expected) == fuzz_files.REFUSED
    monkeypatch.setattr(trust, "check_seal", lambda file: True)
    found = fuzz_files.outcome_of(path, model, fuzz_files.DAMAGED, expected)
    assert found == "other values, although it has a checksum"
    monkeypatch.setattr(fuzz_files, "load", lambda *_: {}[path])
    assert "KeyError" in fuzz_files.outcome_of(path, model, fuzz_files.DAMAGED, expected)
