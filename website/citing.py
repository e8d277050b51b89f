"""How to cite, from CITATION.cff."""

import re
from pathlib import Path
from typing import Any

import yaml

from website import ROOT

# What may be in the file, and the field of BibTeX for it.
FIELDS = {
    "title": "title",
    "version": "version",
    "doi": "doi",
    "url": "url",
    "repository-code": "url",
    "license": "license",
}
PAGE = """# How to cite

Please state the version of this project and the versions of TensorFlow and Keras;
`fit-unfolded --version` prints all three. From `CITATION.cff`:

{bibtex}

The same file, for tools that read the Citation File Format:

{cff}
"""


def page(path: Path = ROOT / "CITATION.cff") -> str:
    """The page as Markdown."""
    text = path.read_text(encoding="utf-8")
    return PAGE.format(
        bibtex=f"```bibtex\n{bibtex(yaml.safe_load(text))}\n```",
        cff=f"```yaml\n{text.rstrip()}\n```",
    )


def bibtex(cff: dict[str, Any]) -> str:
    """An entry with the fields that the file has, and no others."""
    fields = {"author": " and ".join(_author(author) for author in cff["authors"])}
    for name, field in FIELDS.items():
        if name in cff:
            fields.setdefault(field, str(cff[name]))
    if "date-released" in cff:
        fields["year"] = str(cff["date-released"])[:4]
    key = re.sub(r"\W+", "-", cff["title"].partition(":")[0].lower()).strip("-")
    lines = [f"  {field:7} = {{{value}}}," for field, value in fields.items()]
    return "\n".join([f"@software{{{key},", *lines, "}"])


def _author(author: dict[str, str]) -> str:
    """A person as "family, given"; an organization in braces, so that its name stays whole."""
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"
