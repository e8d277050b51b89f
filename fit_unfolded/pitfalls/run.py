"""`fit-unfolded pitfalls`: the index of all, or one in full."""

from pathlib import Path

from rich.console import Console

from fit_unfolded.common.files import created, replacing
from fit_unfolded.common.progress_bars import progress_bars
from fit_unfolded.pitfalls import get, names, page, plot
from fit_unfolded.pitfalls.experiment import References, measure

RUNS = 3  # fit, right loop, wrong loop


def index() -> bool:
    """Measures all pitfalls and prints the index; whether each was caught, and no right loop."""
    results = []
    references: References = {}
    with progress_bars() as bars:
        task = bars.add_task("pitfalls", total=RUNS * len(names()), note="")
        found = [get(name) for name in names()]
        # a CPU can be divided into several only before it is used
        for pitfall in sorted(found, key=lambda pitfall: -pitfall.replicas):
            bars.update(task, note=pitfall.name)
            results.append(measure(pitfall, lambda: bars.advance(task), references))
    results.sort(key=lambda result: result.pitfall.name)
    page.print_index(Console(), results)
    return all(result.caught and result.right_holds for result in results)


def one(name: str, directory: Path) -> bool:
    """Measures one pitfall, prints its page, writes `NAME.png`; the result as of `index`."""
    with progress_bars() as bars:
        task = bars.add_task("pitfall", total=RUNS, note=name)
        result = measure(get(name), lambda: bars.advance(task))
    console = Console()
    page.print_pitfall(console, result)
    with created(directory), replacing(directory / f"{name}.png") as partial:
        plot.draw(partial, result)
    console.print(f"Written: {directory}/{name}.png", markup=False, highlight=False)
    return result.caught and result.right_holds
