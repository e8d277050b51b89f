"""The pages of `explain` and `check` to step through, and the page that lists them."""

import functools
from pathlib import Path

from website import ROOT
from website.cache import kept, run
from website.pages import Pages

HERE = Path(__file__)
DETAILS = "../details.html"
# By workload of `explain`: what the walk shows.
WORKLOADS = {
    "lesson": "The lesson's own example: integer labels, one output, a validation split.",
    "digits": "A small convolutional network with Dropout and BatchNormalization.",
    "segmentation": "Labels that are images: a loss for every pixel.",
}
# By file of examples/: the mistake that `check` names.
BROKEN = {
    "mean_of_batches": "The loss of an epoch is a mean over batches, the last of which is smaller.",
    "dropout_without_training": "The model is called without `training=True`, so Dropout is off.",
}


def write(pages: Pages) -> None:
    """Makes the walks, unless they are there from the same code, and lists them in `walks.md`."""
    for workload in WORKLOADS:
        folder = kept(f"explain-{workload}", functools.partial(_explain, workload), [HERE])
        pages.copy(folder / "page.html", f"walks/{workload}.html")
    for name in BROKEN:
        file = ROOT / "examples" / f"{name}.py"
        folder = kept(f"check-{name}", functools.partial(_check, file), [HERE, file])
        pages.copy(folder / "page.html", f"walks/{name}.html")
    pages.write("walks.md", _page(pages))


def _explain(workload: str, to: Path) -> None:
    run("fit_unfolded", "explain", workload, *_html(to))


def _check(file: Path, to: Path) -> None:
    # exit status 1: the loop differs from fit
    run("fit_unfolded", "check", str(file), *_html(to), status=1)


def _html(to: Path) -> tuple[str, ...]:
    """The options for a page in `walks/`, with links to the site's page of details."""
    return "--html", str(to / "page.html"), "--details", DETAILS


def _page(pages: Pages) -> str:
    explained = "\n".join(
        f"| [{name}](walks/{name}.html) | {words} |" for name, words in WORKLOADS.items()
    )
    checked = "\n".join(
        f"| [{name}](walks/{name}.html) | {words} | [`{name}.py`]"
        f"({pages.source(f'examples/{name}.py', 'walks.md')}) |"
        for name, words in BROKEN.items()
    )
    return f"""# Walks: one training, step by step

Each walk is a page of its own, made by running the command that is named below. Press Next, or `j`
and `k`: every call of the training comes up with the line of Keras that makes it and the line of
the loop that makes the same call. Your browser's Back leads here again.

## What `compile` and `fit` do

Made by `fit-unfolded explain WORKLOAD --html FILE`.

| walk | what it shows |
|---|---|
{explained}

## Two broken loops under `check`

Made by `fit-unfolded check FILE --html FILE`: your line, Keras's line and this project's line, and
the [known mistake](check.md) that makes the same numbers.

| walk | the mistake that `check` finds | the file |
|---|---|---|
{checked}

## Your own

`fit-unfolded explain my_model.py --html page.html` makes the same page of
[your own model](your-own-model.md), and `fit-unfolded check my_loop.py --html page.html` of your
own [loop](check.md).
"""
