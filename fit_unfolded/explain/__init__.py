"""What fit does, event by event, beside the loop that does the same."""

from fit_unfolded.explain.events import Decision, Difference, Event, Explanation, Line, Pair
from fit_unfolded.explain.run import explain

__all__ = ["Decision", "Difference", "Event", "Explanation", "Line", "Pair", "explain"]
