"""Output directories: created late, checked early, removed if nothing was written."""

import pytest
from platforms import needs_permissions

from fit_unfolded.common.errors import InputError
from fit_unfolded.common.files import check_directory, check_file, created, replacing


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
