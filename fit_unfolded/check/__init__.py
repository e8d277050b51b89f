"""Where a hand-written training loop departs from fit, and why.

from fit_unfolded.check import check, assert_trains_like_fit

def test_my_loop():
    assert_trains_like_fit("my_loop.py")
"""

from fit_unfolded.check.run import Report, assert_trains_like_fit, check

__all__ = ["Report", "assert_trains_like_fit", "check"]
