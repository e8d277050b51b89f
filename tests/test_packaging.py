"""The wheel: which files it has, and that its README leads to the repository."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ["fit_unfolded", "keras_fit", "manual_loop"]
REPOSITORY = "https://example.org/owner/name"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata(hook, monkeypatch, repository):
    monkeypatch.setenv(hook.VARIABLE, repository)
    found = {"version": "9.8.7"}
    hook.Hook(str(ROOT), {}).update(found)
    return found["readme"]["text"], found["urls"]


def test_the_wheel_has_all_files_of_the_packages_and_no_others(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == files
    assert {Path(name).suffix for name in names} >= {".py", ".html", ".css", ".js"}


def test_the_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = re.findall(r"(?m)^version: (.+)$", (ROOT / "CITATION.cff").read_text())
    changed = re.findall(r"(?m)^## (\d[\d.]*)", (ROOT / "CHANGELOG.md").read_text())
    assert cited == [version]
    assert changed[0] == version


def test_links_become_absolute(hook, monkeypatch):
    text, urls = metadata(hook, monkeypatch, f"{REPOSITORY}/")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(([^)\s]+)\)", README))
    assert [link for link in links if not link.startswith((REPOSITORY, "https://", "#"))] == []
    assert f"]({REPOSITORY}/raw/v9.8.7/docs/compare.png)" in text
    assert f"]({REPOSITORY}/blob/v9.8.7/docs/tolerances.md#unsupported-data)" in text
    assert urls["Repository"] == REPOSITORY


def test_without_a_repository_nothing_is_invented(hook, monkeypatch):
    assert metadata(hook, monkeypatch, "") == (README, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md#c)", "[a](U/blob/t/b.md#c)"),
        ("[`a[0]`](b.py)", "[`a[0]`](U/blob/t/b.py)"),
        ("![a](b.png)", "![a](U/raw/t/b.png)"),
        ("[a](#b) [c](https://d.e/f)", "[a](#b) [c](https://d.e/f)"),
        ("```\n[a](b.md)\n```\n", "```\n[a](b.md)\n```\n"),
    ],
)
def test_a_link(hook, text, expected):
    assert hook.absolute(text, "U", "t") == expected
