"""Makes the `.ipynb` of `notebooks/` from their sources and executes them: `make notebooks`."""

import re
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
# The one place where the address of the repository is set.
ADDRESS = re.compile(r'(?m)^repository-code: *"?(https://[^\s"]+?)/?"?$')
COLAB = "https://colab.research.google.com"


def address():
    """Of the repository, from CITATION.cff; "" while it is not set there."""
    found = ADDRESS.search((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return found[1] if found else ""


def sources():
    """All of them, in every language."""
    return sorted(NOTEBOOKS.rglob("*.py"))


def name_of(source):
    """Of a notebook within their folder: `1_fit_and_loop`, `ko/1_fit_and_loop`."""
    return source.relative_to(NOTEBOOKS).with_suffix("").as_posix()


def prepared(text, name, repository):
    """A source with the repository's address in it: the badge under the title, and the setup."""
    if not repository.startswith("https://github.com/"):
        return text
    place = repository.removeprefix("https://github.com/")
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
    badge += f"({COLAB}/github/{place}/blob/main/notebooks/{name}.ipynb)"
    text = re.sub(r"(?m)^(# # .+)$", rf"\1\n#\n# {badge}", text, count=1)
    return text.replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"', 1)


def made(source):
    """The notebook, without outputs."""
    import jupytext

    text = prepared(source.read_text(encoding="utf-8"), name_of(source), address())
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # jupytext's are random
    return notebook


def main():
    """Writes all, then executes each in a folder of its own."""
    import nbformat
    from nbclient import NotebookClient

    if not address():
        print("No Colab badge: CITATION.cff has no repository-code.")
    for source in sources():
        notebook = made(source)
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=600, resources=resources).execute()
        print(f"{name_of(source)}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
