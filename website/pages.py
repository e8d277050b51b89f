"""The pages of the repository, staged for the generator, with their links turned to the site's.

A link in a page of the repository leads to a file. On the site it leads to the page made of that
file: Markdown and a notebook are pages of their own, a source file is a page with numbered lines, a
folder a section of the list of source files.
"""

import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from website import ROOT

LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")
# Folders whose source is listed whole; of the others, the files that a page links to.
LISTED = ("keras_fit", "manual_loop", "examples")
LANGUAGES = {
    ".py": "python",
    ".json": "json",
    ".toml": "toml",
    ".cff": "yaml",
    ".css": "css",
    ".js": "js",
}
LINE = "__codelineno-0-"  # of a source page, the anchor of a line
# Files that are copied as they are.
COPIED = (".png", ".json", ".svg")
# In a notebook that knows its address, the link of its badge.
COLAB = re.compile(r"\]\((https://colab\.[^)\s]+/blob/[^)\s]+)\)")
HIDDEN = "---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n"


class Pages:
    """The folder that the generator reads."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._sources: set[str] = set()
        self._copied: set[str] = set()

    def write(self, page: str, text: str) -> None:
        """Writes a page, `name.md` or `folder/name.md`."""
        path = self.folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def copy(self, path: Path, to: str) -> None:
        """Copies a file that is no page."""
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.folder / to)

    def stage(self, file: str) -> None:
        """The page of a Markdown file or of a notebook of the repository."""
        text = (ROOT / file).read_text(encoding="utf-8")
        if not file_is_notebook(file):
            self.write(page_of(file), self.rewritten(text, file))
            return
        setup = "설치" if file.startswith("notebooks/ko/") else "Setup"
        title, _, body = self.rewritten(notebook(text, setup), file).partition("\n")
        self.write(page_of(file), f"{title}\n\n{self._notebook_itself(file)}\n{body}")

    def _notebook_itself(self, file: str) -> str:
        """The file to download, which is copied beside its page, and where it can be run."""
        made = (ROOT / file).with_suffix(".ipynb")
        self.copy(made, str(PurePosixPath(page_of(file)).with_name(made.name)))
        colab = COLAB.search(made.read_text(encoding="utf-8"))
        run = f" · [Open in Colab]({colab[1]})" if colab else ""
        return f"[`{made.name}`]({made.name}){{ download }}{run}\n"

    def rewritten(self, text: str, file: str) -> str:
        """The text of a Markdown file with its links turned to the site's."""

        def turned(match: re.Match[str]) -> str:
            return f"{match[1]}({self._target(match[2], file)})"

        return "".join(part if code else LINK.sub(turned, part) for code, part in _split_code(text))

    def _target(self, target: str, file: str) -> str:
        path, mark, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not path:
            return target
        there = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        page = self._page_or_copy(there)
        if "#" in page:
            mark = anchor = ""
        if page.startswith("source/"):  # a line, as GitHub names it: L12, or the first of L12-L20
            anchor = re.sub(r"^L(\d+)(-L\d+)?$", rf"{LINE}\1", anchor)
        return _relative(page, page_of(file)) + mark + anchor

    def _page_or_copy(self, there: str) -> str:
        path = ROOT / there
        if path.is_dir():
            return f"source/index.md#{slug(there)}" if there != "." else "source/index.md"
        if not path.is_file():
            raise LookupError(f"a page links to {there}, which is not in the repository")
        if there in ("CITATION.cff", "docs/details.md") or path.suffix == ".md":
            return page_of(there)
        if path.suffix in COPIED:
            self._copied.add(there)
        elif not file_is_notebook(there):
            self._sources.add(there)
        return page_of(there)

    def source(self, file: str, from_page: str, line: int | None = None) -> str:
        """A link from a page to a source file's page, at a line counted from 1."""
        if not (ROOT / file).is_file():
            raise LookupError(f"{from_page} links to {file}, which is not in the repository")
        self._sources.add(file)
        anchor = "" if line is None else f"#{LINE}{line}"
        return _relative(page_of(file), from_page) + anchor

    def finish(self) -> None:
        """Writes what the pages so far link to: source files, their list, other files."""
        for folder in LISTED:
            self._sources |= {path.relative_to(ROOT).as_posix() for path in python_files(folder)}
        for file in sorted(self._sources):
            self.write(page_of(file), _source_page(file))
        for file in self._copied:
            self.copy(ROOT / file, page_of(file))
        self.write("source/index.md", _list(self._sources))


def page_of(file: str) -> str:
    """The page, or other file, of the site that a file of the repository becomes."""
    names = {"README.md": "readme.md", "README.ko.md": "ko/readme.md", "CITATION.cff": "citing.md"}
    if file in names:
        return names[file]
    path = PurePosixPath(file)
    if path.suffix in (".md", *COPIED):
        return file.removeprefix("docs/")
    if file_is_notebook(file):
        folder = "ko/notebooks" if path.parent.name == "ko" else "notebooks"
        return f"{folder}/{path.stem}.md"
    return f"source/{file.removeprefix('.')}.md"  # the generator passes over .github


def file_is_notebook(file: str) -> bool:
    """Whether a file is a notebook, or one as jupytext keeps it, in Python."""
    return file.startswith("notebooks/") and file.endswith((".py", ".ipynb"))


def notebook(text: str, setup: str = "Setup") -> str:
    """Jupytext's percent format as Markdown: text cells as text, code cells as code blocks.

    Args:
        setup: the title under which the cell that installs the project is folded.
    """
    parts = []
    for cell in re.split(r"(?m)^# %%", text)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append(re.sub(r"(?m)^# ?", "", body).strip("\n") + "\n")
        elif "setup" in kind:
            code = fenced(body.strip("\n"), "python")
            summary = f'<details markdown="1"><summary>{setup}</summary>'
            parts.append(f"{summary}\n\n{code}\n</details>\n")
        elif body.strip():
            parts.append(fenced(body.strip("\n"), "python"))
    return "\n".join(parts)


def python_files(folder: str) -> Iterator[Path]:
    """Those of a folder of the repository, sorted."""
    return (path for path in sorted((ROOT / folder).rglob("*.py")))


def slug(title: str) -> str:
    """A heading's anchor, as GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")


def fenced(code: str, language: str, options: str = "") -> str:
    """A code block, safe for code that holds fences."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", code)), 3)
    return f"{fence}{language} {options}".rstrip() + f"\n{code.rstrip()}\n{fence}\n"


def _source_page(file: str) -> str:
    language = LANGUAGES.get(Path(file).suffix, "text")
    code = (ROOT / file).read_text(encoding="utf-8")
    up = _relative("source/index.md", page_of(file))
    return (
        f"{HIDDEN}# {PurePosixPath(file).name}\n\n`{file}`, one of the [source files]({up}).\n\n"
        + fenced(code, language, 'linenums="1"')
    )


def _list(files: set[str]) -> str:
    """All source files by folder; a folder that holds only folders is named too."""
    folders = sorted({parent for file in files for parent in _parents(file)})
    parts = [HIDDEN, "# Source files\n\nAs of this build, each line with its number.\n"]
    for folder in folders:
        here = sorted(file for file in files if posixpath.dirname(file) == folder)
        parts.append(f"## {folder or 'Top level'} {{ #{slug(folder) or 'top-level'} }}\n")
        parts += [
            f"- [`{PurePosixPath(file).name}`]({_relative(page_of(file), 'source/index.md')})"
            for file in here
        ]
        parts.append("")
    return "\n".join(parts)


def _parents(file: str) -> list[str]:
    names = [str(parent) for parent in PurePosixPath(file).parents]
    return ["" if name == "." else name for name in names if name != "." or "/" not in file]


def _relative(page: str, from_page: str) -> str:
    path, mark, anchor = page.partition("#")
    return os.path.relpath(path, posixpath.dirname(from_page) or ".") + mark + anchor


def _split_code(text: str) -> Iterator[tuple[bool, str]]:
    """The text in parts, of which code blocks are left alone."""
    for number, part in enumerate(re.split(r"(?ms)(^ *```.*?^ *```)", text)):
        yield number % 2 == 1, part
