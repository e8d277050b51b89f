"""A page for each pitfall, and the index of all by symptom.

`python -m website.pitfalls FOLDER` measures all of them into a folder: pictures and figures.
"""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fit_unfolded.pitfalls import SYMPTOMS
from website import ROOT
from website.cache import kept, run
from website.keras_lines import KERAS, TAG, statement
from website.pages import Pages, fenced, slug

if TYPE_CHECKING:
    from fit_unfolded.pitfalls.experiment import Result

WIDTH = 100  # columns of what the command prints


# Measuring ------------------------------------------------------------------------------------


def measure_all(folder: Path) -> None:
    """Writes `NAME.png` for each pitfall, and `pitfalls.json`.

    Raises:
        RuntimeError: a mistake is not detected, or a right loop differs from fit.
    """
    from rich.console import Console

    from fit_unfolded.pitfalls import get, names, page, plot
    from fit_unfolded.pitfalls.experiment import References, measure

    results = []
    references: References = {}
    # a CPU can be divided into several only before it is used
    for pitfall in sorted(map(get, names()), key=lambda pitfall: -pitfall.replicas):
        result = measure(pitfall, references=references)
        if not (result.caught and result.right_holds):
            raise RuntimeError(f"{pitfall.name}: not detected, or its right loop differs from fit")
        plot.draw(folder / f"{pitfall.name}.png", result)
        results.append(result)
    results.sort(key=lambda result: result.pitfall.name)
    index = io.StringIO()
    page.print_index(Console(file=index, width=WIDTH), results)
    found = {"index": index.getvalue(), "pitfalls": [_figures(result) for result in results]}
    (folder / "pitfalls.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def _figures(result: "Result") -> dict[str, Any]:
    """What a page shows of one pitfall, as JSON can hold it."""
    import keras
    from rich.console import Console

    from fit_unfolded.pitfalls import page

    pitfall = result.pitfall
    printed = io.StringIO()
    page.print_pitfall(Console(file=printed, width=WIDTH), result)
    right, line = pitfall.edit.find(), pitfall.keras.find()
    return {
        "name": pitfall.name,
        "title": pitfall.title,
        "paragraph": pitfall.paragraph,
        "symptom": pitfall.symptom,
        "diff": list(page.mending_diff(pitfall)),
        "place": [right.file, right.first, right.function],
        "keras": [line.file, line.first, line.function, keras.__version__],
        "thread": [pitfall.thread.url, pitfall.thread.says] if pitfall.thread else None,
        "alternative": alternative(result),
        "printed": printed.getvalue(),
    }


def alternative(result: "Result") -> str:
    """What the picture shows, for those who do not see it."""
    from fit_unfolded.pitfalls.experiment import FIT, WRONG

    parts = []
    for metric in ("loss", "val_loss"):
        if metric in result.runs[FIT].history:
            fit, wrong = (result.runs[name].history[metric][-1] for name in (FIT, WRONG))
            parts.append(f"{metric} after the last epoch: fit {fit:.4g}, wrong loop {wrong:.4g}")
    if result.counts:
        counts = ", ".join(f"{name} {count:,}" for name, count in result.counts.items())
        parts.append(f"{result.pitfall.counted}: {counts}")
    if result.alive.get(FIT):
        alive = [result.alive[name][-1].tensors for name in (FIT, WRONG)]
        parts.append(f"tensors alive at the end: fit {alive[0]:,}, wrong loop {alive[1]:,}")
    return f"Fit, the right loop and the wrong loop, epoch by epoch. {'; '.join(parts)}."


# Pages ----------------------------------------------------------------------------------------


def write(pages: Pages, details: dict[str, list[int]]) -> dict[str, list[str]]:
    """Measures, unless it is done for the same code, and writes `pitfalls/*.md`.

    Args:
        details: by name of a pitfall, the numbers of the details that name it.

    Returns:
        By symptom, the names of the pitfalls.
    """
    folder = kept("pitfalls", _measure, [Path(__file__)])
    found = json.loads((folder / "pitfalls.json").read_text(encoding="utf-8"))
    for pitfall in found["pitfalls"]:
        pages.copy(folder / f"{pitfall['name']}.png", f"pitfalls/{pitfall['name']}.png")
        numbers = details.get(pitfall["name"], [])
        pages.write(f"pitfalls/{pitfall['name']}.md", _page(pages, pitfall, numbers))
    pages.write("pitfalls/index.md", _index(found["pitfalls"], found["index"]))
    shown = {
        _title(symptom): [p["name"] for p in found["pitfalls"] if p["symptom"] == symptom]
        for symptom in SYMPTOMS
    }
    return {title: names for title, names in shown.items() if names}


def _measure(folder: Path) -> None:
    run("website.pitfalls", str(folder))


def _page(pages: Pages, pitfall: dict[str, Any], details: list[int]) -> str:
    name = pitfall["name"]
    file, line, function = pitfall["place"]
    source = pages.source(file, f"pitfalls/{name}.md", line)
    keras_file, keras_line, keras_function, version = pitfall["keras"]
    thread = "No public thread was found."
    if pitfall["thread"]:
        url, says = pitfall["thread"]
        thread = f"<{url}>: {says}"
    links = ", ".join(f"[detail {number}](../details.md#detail-{number})" for number in details)
    diff = "\n".join(f"{sign} {text}".rstrip() for sign, text in pitfall["diff"])
    symptom = pitfall["symptom"]
    parts = [
        f"# {pitfall['title']}",
        f"Pitfall `{name}`. What you see first: [{symptom}](index.md#{slug(symptom)})."
        + (f" What `fit` does: {links}." if links else ""),
        pitfall["paragraph"],
        "## The lines",
        f"`-` wrong, `+` right, in [`{file}`, line {line}]({source}), `{function}`:",
        fenced(diff, "diff"),
        "## What it changes",
        f"![{pitfall['alternative']}]({name}.png)",
        '??? note "The figures, as the command prints them"\n\n'
        + _indented(f"`fit-unfolded pitfalls {name}`\n\n" + fenced(pitfall["printed"], "text")),
        "## In Keras",
        f"Keras {version}, Apache-2.0, [`{keras_file}`, line {keras_line}]"
        f"({TAG}{keras_file}#L{keras_line}), `{keras_function}`:",
        fenced(statement(KERAS / keras_file, keras_line), "python"),
        "## Reported in",
        thread,
    ]
    return "\n\n".join(parts) + "\n"


def _index(pitfalls: list[dict[str, Any]], printed: str) -> str:
    parts = [
        f"# {len(pitfalls)} mistakes in training loops",
        "Each was run against `fit` on this project's own loop, with the wrong lines in the place "
        "of the right ones, and measured. Look for what you see. Does your own loop make one of "
        "them? [`fit-unfolded check`](../check.md) names it.",
    ]
    for symptom in SYMPTOMS:
        found = [pitfall for pitfall in pitfalls if pitfall["symptom"] == symptom]
        if found:
            parts.append(f"## {_title(symptom)} {{ #{slug(symptom)} }}")
            items = (f"- [{p['title']}]({p['name']}.md), `{p['name']}`" for p in found)
            parts.append("\n".join(items))
    parts.append("## All figures")
    parts.append("As `fit-unfolded pitfalls` prints them:")
    parts.append(fenced(printed, "text"))
    return "\n\n".join(parts) + "\n"


def _title(symptom: str) -> str:
    # a name of the logs stays as it is
    return symptom if symptom.startswith(("loss", "val_loss")) else symptom.capitalize()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    measure_all(Path(sys.argv[1]))
