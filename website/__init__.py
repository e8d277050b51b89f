"""The static site: `python -m website` (or `make site`) builds it into `site/`.

Zensical renders it from Markdown: the pages of `docs/` as they are, and pages that are made here
from the code. A run's results are kept in `results/site/` and measured again when the code changes.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
