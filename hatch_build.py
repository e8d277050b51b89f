"""Metadata of the distribution that depend on where the repository is.

A package index shows README.md outside the repository, where relative links lead nowhere. If the
environment variable REPOSITORY_URL is set, as in `.github/workflows/release.yml`, links and images
become absolute, to the files at the version's tag, and the metadata name the repository.
"""

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "REPOSITORY_URL"


class Hook(MetadataHookInterface):
    """Fills the fields that `dynamic` names in pyproject.toml."""

    def update(self, metadata: dict) -> None:
        """Adds `readme` and `urls`."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get(VARIABLE, "").rstrip("/")
        urls = {}
        if repository:
            text = absolute(text, repository, f"v{metadata['version']}")
            urls = {
                "Repository": repository,
                "Issues": f"{repository}/issues",
                "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls


def absolute(text: str, repository: str, tag: str) -> str:
    """Markdown with links to files made absolute; those to headings of the page stay.

    Args:
        text: with relative links.
        repository: address of the repository.
        tag: of the version to link to.
    """

    def link(match: re.Match) -> str:
        image, label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        return f"{image}[{label}]({repository}/{'raw' if image else 'blob'}/{tag}/{target})"

    # Code has no links: it is matched first, and stays.
    pattern = r"^```.*?^```|(!?)\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)"
    return re.sub(
        pattern, lambda match: link(match) if match[3] else match[0], text, flags=re.DOTALL | re.M
    )
