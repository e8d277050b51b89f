"""What all tests share: TensorFlow imported quietly, and Hypothesis without a clock."""

import gc

import pytest
from hypothesis import HealthCheck, settings

from fit_unfolded.common import progress_bars
from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()
progress_bars.SECONDS_PER_LINE = 1e6  # else a slow test would find a line on standard error

# Tracing a graph takes longer the first time, so a deadline for each example would be a coin toss.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


def pytest_configure(config):
    config.addinivalue_line("markers", "covers(*topics, promise): a row of docs/coverage.md")


@pytest.fixture(autouse=True)
def forget():
    """Put away what the test leaves behind.

    Keras and TensorFlow keep some thousand objects of every training for good. The collection in
    `keras.backend.clear_session` would look at all of them again, and take longer test by test.
    """
    yield
    gc.collect()
    gc.freeze()
