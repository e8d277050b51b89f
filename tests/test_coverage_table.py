"""docs/coverage.md says what the tests say, and nothing of Keras is without a test."""

import subprocess
import sys
from pathlib import Path

import coverage_table
import pytest


def test_the_page_is_that_of_the_tests(collected):
    """A run of some files only collects the others in a process of its own."""
    if {item.path for item in collected} == set(Path(__file__).parent.rglob("test_*.py")):
        assert coverage_table.PAGE.read_text() == coverage_table.page(collected)
    else:
        command = [sys.executable, coverage_table.__file__]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_topic_without_a_test_is_named():
    with pytest.raises(LookupError, match=r"compile: optimizer, compile: loss, .*optimizer: Muon"):
        coverage_table.page([])


def test_required_topics_are_read_from_keras():
    topics = list(coverage_table.required())
    assert "fit: validation_freq" in topics
    assert "compile: auto_scale_loss" in topics
    assert "callback: SwapEMAWeights" in topics
    assert "optimizer: Muon" in topics
    assert len(topics) > 60
