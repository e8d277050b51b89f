"""Makes `notebooks/*.ipynb` from the sources beside them and executes them: `make notebooks`.

The folded solutions are executed too, after the last cell. Arguments: the names of the notebooks,
if not all.
"""

import ast
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
# The one place where the address of the repository is set.
ADDRESS = re.compile(r'(?m)^repository-code: *"?(https://[^\s"]+?)/?"?$')
COLAB = "https://colab.research.google.com"
SOLUTION = re.compile(r"(?ms)^<details[^\n]*<summary>(.*?)</summary>(.*?)^</details>")
CODE = re.compile(r"(?ms)^```python\n(.*?)^```")
NAME = re.compile(r"<code>(.+?)</code>")


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
    """A source with the repository's address in it: badge, links to other files, setup."""
    if not repository.startswith("https://github.com/"):
        return text
    place = repository.removeprefix("https://github.com/")
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
    badge += f"({COLAB}/github/{place}/blob/main/notebooks/{name}.ipynb)"
    text = re.sub(r"(?m)^(# # .+)$", rf"\1\n#\n# {badge}", text, count=1)
    text = re.sub(r"\]\((\.\./)+", f"]({repository}/blob/main/", text)  # in Colab they lead nowhere
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


def solutions(cells):
    """Code that executes each folded solution, and fails if it is wrong.

    A solution contains assertions of its own. Or its summary names a mistake: then `check` must
    have named it in the exercise, the code cell before, and must let the solution pass.

    Args:
        cells: `(is code, source)` of each cell.
    """
    number, exercise = 0, ""
    for is_code, source in cells:
        if is_code:
            number, exercise = number + 1, source
            continue
        for summary, text in SOLUTION.findall(source):
            code = "\n".join(CODE.findall(text))
            if name := NAME.search(summary):
                again = ast.unparse(ast.parse(exercise).body[-1])
                code = (
                    "def named(report):\n"
                    "    return [found.name for found in [*report.causes, *report.costs]]\n"
                    f"assert {name[1]!r} in named(Out[{number}]), named(Out[{number}])\n"
                    f"{code}\nsolved = {again}\n"
                    f"assert solved.passed and {name[1]!r} not in named(solved), named(solved)"
                )
            yield code


def execute(notebook):
    """Executes the cells, then the solutions; the seconds of both."""
    import nbformat
    from nbclient import NotebookClient

    cells = [(cell.cell_type == "code", cell.source) for cell in notebook.cells]
    code = [nbformat.v4.new_code_cell(text) for text in solutions(cells)]
    whole = nbformat.v4.new_notebook(metadata=notebook.metadata, cells=[*notebook.cells, *code])
    seconds = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(whole, timeout=600, resources={"metadata": {"path": folder}})
        with client.setup_kernel():
            for number, cell in enumerate(whole.cells):
                begin = time.monotonic()
                client.execute_cell(cell, number)
                seconds[number >= len(cells)] += time.monotonic() - begin
    return seconds


def main():
    """Writes the notebooks, and executes each in a folder of its own."""
    import nbformat

    if not address():
        print("No Colab badge: CITATION.cff has no repository-code.")
    for source in sources():
        name = name_of(source)
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        notebook = made(source)
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        cells, solved = execute(notebook)
        print(f"{name}: {cells:.0f} s, its solutions {solved:.0f} s", flush=True)


if __name__ == "__main__":
    main()
