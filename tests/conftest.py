"""What all tests share: quiet imports, their order, and Hypothesis without a clock."""

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fit_unfolded.common import progress_bars
from fit_unfolded.common.tf_import import import_tensorflow

progress_bars.SECONDS_PER_LINE = 1e6  # else a slow test would find a line on standard error

# Tracing a graph takes longer the first time, so a deadline for each example would be a coin toss.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


TESTS = Path(__file__).parent
# The files that take longest. `make test` gives whole files to its processes, in this order: one
# that came last would keep a single process busy while the others are done.
LONGEST = [
    "manual_loop/distribution/test_replicas.py",
    "fit_unfolded/check/test_check.py",
    "manual_loop/distribution/test_multi_worker.py",
    "manual_loop/execution/test_parity_execution.py",
    "manual_loop/data/test_parity_data.py",
    "test_fuzz.py",
    "manual_loop/test_parity_overrides.py",
    "manual_loop/compiled/test_parity_compile.py",
    "fit_unfolded/pitfalls/test_pitfalls.py",
    "manual_loop/test_parity_fit.py",
    "fit_unfolded/check/test_more.py",
    "manual_loop/test_wrong_values.py",
    "manual_loop/saving/test_parity_saving.py",
    "manual_loop/execution/test_parity_precision.py",
    "manual_loop/test_parity_callbacks.py",
    "manual_loop/test_parity_models.py",
    "manual_loop/test_parity_details.py",
    "manual_loop/test_gpu.py",
]
COLLECTED = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line("markers", "covers(*topics, promise): a row of docs/coverage.md")
    is_worker = hasattr(config, "workerinput")
    if is_worker or not getattr(config.option, "numprocesses", None):
        import_tensorflow()  # not where pytest-xdist only hands out the tests


@pytest.hookimpl(tryfirst=True)  # before `-m` and `-k` leave tests out
def pytest_collection_modifyitems(config, items):
    """Keep the list of all tests, and put the longest files first."""
    config.stash[COLLECTED] = list(items)
    place = {TESTS / file: i for i, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def collected(request):
    """All tests that were collected, also those that `-k` or `-m` leaves out."""
    return request.config.stash[COLLECTED]


@pytest.fixture(autouse=True)
def forget():
    """Put away what the test leaves behind.

    Keras and TensorFlow keep some thousand objects of every training for good. Later collections
    would look at all of them again, and take longer test by test.
    """
    yield
    gc.collect()
    gc.freeze()
