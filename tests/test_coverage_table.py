"""docs/coverage.md says what the tests say, and nothing of Keras is without a test."""

import subprocess
import sys

import coverage_table


def test_the_page_is_that_of_the_tests():
    command = [sys.executable, coverage_table.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_required_topics_are_read_from_keras():
    topics = list(coverage_table.required())
    assert "fit: validation_freq" in topics
    assert "compile: auto_scale_loss" in topics
    assert "callback: SwapEMAWeights" in topics
    assert "optimizer: Muon" in topics
    assert len(topics) > 60
