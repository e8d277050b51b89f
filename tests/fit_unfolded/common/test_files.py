"""Files that are read; output directories: created late, checked early, removed if empty."""

import os

import pytest
from platforms import needs_permissions

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import (
    check_directory,
    check_file,
    created,
    read_source,
    replacing,
)


def test_checks_create_nothing(tmp_path):
    check_directory(tmp_path / "new", "--output")
    check_directory(tmp_path / "a" / "b" / "c", "--output", create_parents=True)
    check_file(tmp_path / "file", "--html")
    assert not list(tmp_path.iterdir())


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "new").relative_to(tmp_path), tmp_path.relative_to(tmp_path):
        check_directory(path, "--output")


@pytest.mark.parametrize("check", [check_directory, check_file])
def test_a_missing_parent_is_named(tmp_path, check):
    with pytest.raises(InputError, match=r"^--output: the directory .*none does not exist"):
        check(tmp_path / "none" / "out", "--output")


@needs_permissions
def test_a_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match=r"--output: cannot write to .* \(Permission denied\)"):
        check_directory(tmp_path / "new", "--output")


def test_empty_directories_are_removed(tmp_path):
    directory = tmp_path / "a" / "b"

    def interrupted():
        with created(directory):
            assert directory.is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_others_stay(tmp_path):
    (tmp_path / "old").mkdir()
    with created(tmp_path / "old"):
        pass
    with created(tmp_path / "a" / "b") as directory, replacing(directory / "file") as partial:
        partial.write_text("text")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == ["a", "a/b", "a/b/file", "old"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def interrupted():
        with replacing(file) as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_source_in_its_own_encoding(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes("# coding: latin-1\nname = 'caf\xe9'\n".encode("latin-1"))
    text, tree = read_source(path, "FILE")
    assert text.endswith("name = 'caf\xe9'\n")
    assert tree.body[0].value.value == "caf\xe9"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x = (\n", r"mine\.py, line 1: '\(' was never closed\.$"),
        ("# caf\xe9".encode("latin-1"), r"mine\.py.*: .*encoding.*\.$"),
        (b"# coding: nonsense\n", r"mine\.py.*: .*unknown encoding.*\.$"),
        (b"x = 1\0", r"mine\.py.*null bytes.*\.$"),
        (b"x = " + b"-" * 200_000 + b"1", r"mine\.py.*\.$"),
        (b"(" * 10_000, r"mine\.py.*too many nested parentheses\.$"),
        (os.urandom(3000), r"mine\.py.*\.$"),
    ],
)
def test_what_is_no_source(tmp_path, content, words):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_source(path, "FILE")


def test_sources_that_cannot_be_read(tmp_path):
    found = {
        "none.py": "FILE: there is no file",
        "": "is a directory; name a Python file",
    }
    if hasattr(os, "mkfifo"):  # not on Windows
        os.mkfifo(tmp_path / "pipe.py")
        found["pipe.py"] = "is not a file; name a Python file"
    for name, words in found.items():
        with pytest.raises(InputError, match=words):
            read_source(tmp_path / name, "FILE")


@needs_permissions
def test_a_source_without_permission(tmp_path):
    path = tmp_path / "mine.py"
    path.touch(0)
    with pytest.raises(InputError, match=r"mine.py cannot be read \(Permission denied\)"):
        read_source(path, "FILE")
