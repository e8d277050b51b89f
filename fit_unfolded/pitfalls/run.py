"""`fit-unfolded pitfalls`: the table of all, or one in full."""

from pathlib import Path

from rich.console import Console

from fit_unfolded.common.files import created, replacing
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.pitfalls import get, names, page, plot
from fit_unfolded.pitfalls.experiment import measure

RUNS = 3  # fit, right loop, wrong loop


def table() -> bool:
    """Measures all pitfalls and prints the table; whether each was caught, and no right loop."""
    results = []
    with progress_bars() as bars:
        task = bars.add_task("pitfalls", total=RUNS * len(names()), note="")
        for name in names():
            bars.update(task, note=name)
            results.append(measure(get(name), lambda: bars.advance(task)))
    page.print_table(Console(), results)
    return all(result.caught and result.right_holds for result in results)


def one(name: str, directory: Path) -> bool:
    """Measures one pitfall, prints its page, writes `NAME.png`; the result as of `table`."""
    with progress_bars() as bars:
        task = bars.add_task("pitfall", total=RUNS, note=name)
        result = measure(get(name), lambda: bars.advance(task))
    console = Console()
    page.print_pitfall(console, result)
    with created(directory), replacing(directory / f"{name}.png") as partial:
        plot.draw(partial, result)
    console.print(f"Written: {directory}/{name}.png", markup=False, highlight=False)
    return result.caught and result.right_holds
