"""What the site lists, in order: every page of docs/ and every page that is made here."""

import re
from pathlib import Path
from typing import Any

from website.pages import page_of

# By section, the pages of docs/ in the order in which they are read. A page that is named nowhere
# is listed in the last section.
SECTIONS = {
    "Guides": [
        "README.md",
        "docs/lesson.md",
        "docs/ways.md",
        "docs/your-own-model.md",
        "docs/check.md",
        "docs/gap.md",
        "docs/commands.md",
    ],
    "Measured": [
        "docs/benchmarks.md",
        "docs/scaling.md",
        "docs/tolerances.md",
        "docs/versions.md",
        "docs/coverage.md",
        "docs/mutants.md",
        "docs/reliability.md",
    ],
    "Project": ["CONTRIBUTING.md", "CHANGELOG.md"],
}
KOREAN = "한국어"
KOREAN_FIRST = ["docs/ko/index.md", "README.ko.md"]


def files(root: Path) -> list[str]:
    """The Markdown files and notebooks that become pages, details among them."""
    found = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    found += [root / "README.ko.md", *sorted((root / "docs" / "ko").glob("*.md"))]
    notebooks = [*(root / "notebooks").glob("*.md"), *(root / "notebooks").glob("*.py")]
    found += sorted(notebooks)
    found += sorted((root / "benchmarks" / "results").rglob("*.md"))
    found += [root / name for name in SECTIONS["Project"]]
    return [file.relative_to(root).as_posix() for file in found if file.is_file()]


def navigation(root: Path, symptoms: dict[str, list[str]]) -> list[Any]:
    """The site's `nav`: pages, and sections as `{title: [...]}`.

    Args:
        symptoms: by symptom, the names of the pitfalls.
    """
    staged = files(root)
    sections = {
        title: [file for file in names if file in staged] for title, names in SECTIONS.items()
    }
    korean = [file for file in KOREAN_FIRST if file in staged]
    korean += [file for file in staged if file.startswith("docs/ko/") and file not in korean]
    notebooks = [file for file in staged if file.startswith("notebooks/")]
    listed = {"docs/details.md", *korean, *notebooks, *(f for s in sections.values() for f in s)}
    reports = [file for file in staged if file.startswith("benchmarks/")]
    rest = [file for file in staged if file not in listed and file not in reports]
    sections["Measured"] += [*rest, *reports]
    mistakes = [
        {symptom: [f"pitfalls/{name}.md" for name in names]} for symptom, names in symptoms.items()
    ]
    nav: list[Any] = [
        {"Start": "index.md"},
        {"Walks": "walks.md"},
        {"Details": "details.md"},
        {"Pitfalls": ["pitfalls/index.md", *mistakes]},
    ]
    if notebooks:
        nav.append({"Notebooks": [page_of(file) for file in notebooks]})
    nav += [{title: [page_of(file) for file in names]} for title, names in sections.items()]
    nav += [{"API": "api.md"}, {"Cite": "citing.md"}]
    if korean:
        nav.append({KOREAN: [page_of(file) for file in korean]})
    return nav


def pages_in(nav: Any) -> list[str]:
    """The pages of a `nav`, flat."""
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in pages_in(child)]


def toml(value: Any) -> str:
    """Strings, lists and dicts as TOML, on one line."""
    if isinstance(value, dict):
        pairs = (f"{toml(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'
