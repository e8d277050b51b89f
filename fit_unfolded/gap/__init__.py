"""Why `loss`, `evaluate` on the training rows and `val_loss` disagree, part by part."""

from fit_unfolded.gap.decompose import Gap, Part, decompose
from fit_unfolded.gap.snapshots import Snapshots

__all__ = ["Gap", "Part", "Snapshots", "decompose"]
