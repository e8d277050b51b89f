"""What changed in Keras from 3.13 on, the golden losses, and docs/versions.md."""

import re
import tomllib
from importlib.metadata import version

import keras
import pytest
import versions
from keras_changes import CHANGES
from parity import TRAINERS

from manual_loop.keras_version import since

MEASURED = pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.measure.__name__)


@MEASURED
def test_the_loop_does_what_the_installed_keras_does(change):
    expected = change.now if since(change.since) else change.before
    for side, Trainer in TRAINERS.items():
        if change.loop_too or side == "keras_fit":
            keras.utils.set_random_seed(0)
            assert change.measure(Trainer) == expected, side


@MEASURED
def test_each_version_was_measured_as_the_change_says(change):
    for number, record in versions.read_records().items():
        is_new = versions.numbers(number) >= versions.numbers(change.since)
        measured = record["changes"][change.measure.__name__]
        assert measured == (change.now if is_new else change.before), number


# Not exact: a sum depends on the order of its terms, which TensorFlow's kernels choose by the
# instruction sets, the caches and the number of cores. With SSE4.1 or AVX2 for AVX-512, and without
# oneDNN, the losses of one version were at most 1.8e-7 apart.
@pytest.mark.parametrize("name", versions.WORKLOADS)
def test_golden_losses(name):
    assert versions.golden_losses(name) == golden(name)


def test_golden_losses_notice_another_epsilon(monkeypatch):
    init = keras.optimizers.Adam.__init__
    others = tuple(1e-6 if default == 1e-7 else default for default in init.__defaults__)
    assert others != init.__defaults__
    monkeypatch.setattr(init, "__defaults__", others)
    assert versions.golden_losses("lesson") != golden("lesson")


def golden(name):
    losses = versions.record_of(versions.read_records(), version("keras"))["golden losses"][name]
    assert len(losses) == versions.STEPS
    return pytest.approx(losses, rel=1e-6)


def test_the_page_is_that_of_the_records():
    assert versions.PAGE.read_text(encoding="utf-8") == versions.page(versions.read_records())


def test_pip_takes_only_versions_that_were_measured():
    project = tomllib.loads((versions.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    records = versions.read_records()
    measured = {
        "keras": {versions.numbers(number)[:2] for number in records},
        "tensorflow": {versions.numbers(r["tensorflow"])[:2] for r in records.values()},
    }
    for package, minors in measured.items():
        (range_,) = (d for d in project["project"]["dependencies"] if d.startswith(package + ">"))
        (major, low), (_, high) = map(versions.numbers, re.findall(r"[\d.]+", range_))
        assert minors == {(major, minor) for minor in range(low, high)}, package


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.9.2")
    assert not since("3.10")
    monkeypatch.setattr(keras, "__version__", "3.15.0rc1")
    assert since("3.15")
    assert not since("3.16")


def test_one_module_asks_for_the_version():
    found = [
        path.name
        for path in (versions.ROOT / "manual_loop").rglob("*.py")
        if re.search(r"__version__|since\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["keras_version.py", "trust.py"]  # the second names it in an error
