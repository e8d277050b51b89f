"""The pages made from `benchmarks/results/`: the table of all machines, and README.md's figures.

`python -m fit_unfolded.bench.machines` writes both.
"""

from pathlib import Path

from fit_unfolded.bench.measure import Ratio
from fit_unfolded.bench.report import Suite, is_busy, speedups, table
from fit_unfolded.bench.suite import BENCH, RESULTS, ROOT
from fit_unfolded.common.files import replacing

README = ROOT / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

PAGE = """\
# Results by machine

Speedup of the loop over `fit`, neither with an argument about execution (`default`). `~`: the 95 %
interval extends more than 5 % from the ratio. Each folder has the report, the hardware, versions,
flags and command, and every measured time as JSON.

{table}

## Send yours

1. Close other programs, and connect a laptop to its power supply.
2. `make bench` and `make bench-peers`, each about half an hour. They run
   `fit-unfolded bench --submit`, which writes one folder here, named after the processor, and this
   table.
3. Look at `report.md`, commit, and open a pull request with the folder and this table.

No user name, path or host name is written. Results whose losses differed, whose intervals are wide
or whose machine was busy are welcome, too: the last column says so.
"""


def folders(results: Path = RESULTS) -> dict[Path, Suite]:
    """All results, the newest first."""
    found = {path.parent: Suite.read(path.parent) for path in results.glob(f"*/{BENCH}")}
    return dict(sorted(found.items(), key=lambda item: item[1].bench["date"], reverse=True))


def page(results: Path = RESULTS) -> str:
    """`benchmarks/results/README.md`."""
    suites = folders(results)
    models = list(dict.fromkeys(name for suite in suites.values() for name in suite.models))
    rows = [
        [
            f"[{_machine(suite)}]({directory.name}/report.md)",
            suite.bench["date"],
            *(_mark(suite.ratios.get(model, {}).get("default")) for model in models),
            marks(suite),
        ]
        for directory, suite in suites.items()
    ]
    return PAGE.format(table=table(["machine", "date", *models, "marks"], rows))


def _machine(suite: Suite) -> str:
    environment = suite.bench["environment"]
    return ", ".join([environment["cpu"], f"{environment['cores']} cores", *environment["gpus"]])


def marks(suite: Suite) -> str:
    """What a reader of the figures has to know, in a few words."""
    words = []
    if suite.refused:
        words.append(f"**refused: {', '.join(suite.refused)}**")
    unstable, count = suite.unstable
    if unstable:
        words.append(f"unstable: {unstable} of {count}")
    if is_busy(suite.bench) or (suite.peers and is_busy(suite.peers)):
        words.append("the machine was busy")
    if any(file and file.get("interrupted") for file in (suite.bench, suite.peers)):
        words.append("interrupted")
    if suite.peers is None:
        words.append("no peers")
    return "; ".join(words) or "none"


def _mark(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{'~' * ratio.unstable}{ratio.value:.{1 if ratio.value >= 9.95 else 2}f}"


def figures(results: Path = RESULTS) -> str:
    """The figures of README.md, from the newest results."""
    (directory, suite), *_ = folders(results).items()
    ratios, rivals = suite.ratios, suite.rival_ratios
    lines = {
        "loop / `fit`, default": {name: found.get("default") for name, found in ratios.items()},
        "the same with `verbose=1`": {
            name: found.get("default, verbose=1") for name, found in ratios.items()
        },
        "best loop / best `fit`": {name: found.get("best") for name, found in ratios.items()},
        "best loop / best PyTorch": {name: found.get("PyTorch") for name, found in rivals.items()},
        "best loop / best JAX": {name: found.get("JAX") for name, found in rivals.items()},
    }
    rows = [
        [line, *(_mark(values.get(name)) for name in suite.models)]
        for line, values in lines.items()
        if any(values.values())
    ]
    path = f"benchmarks/results/{directory.name}/report.md"
    unstable, count = suite.unstable
    parts = [
        f"Speedup, measured {suite.bench['date']} on {_machine(suite)} ([report]({path})). "
        "*default*: no argument about execution; *best*: whichever is fastest of one step per call "
        "and one call per epoch, with XLA or without, and of each peer's variants.",
        table(["speedup", *suite.models], rows),
    ]
    if unstable:
        parts.append(
            f"`~`: the 95 % interval extends more than 5 % from the ratio ({unstable} of {count} "
            "ratios of the report)."
        )
    if suite.targets:
        parts.append(f"Time to 97 % on digits, tracing included: {_times(suite)}.")
    return "\n\n".join(parts)


def _times(suite: Suite) -> str:
    """The fastest variant of each implementation."""
    best: dict[str, Ratio] = {}
    for name, processes in suite.targets.items():
        family = "loop" if name.startswith("loop") else name.partition(" ")[0]
        value = speedups(f"target {name}", processes).get("seconds")
        if value is not None and (family not in best or value.value < best[family].value):
            best[family] = value
    return ", ".join(
        f"{'`fit`' if family == 'fit' else family} {_mark(value)} s"
        for family, value in best.items()
    )


def with_figures(text: str, results: Path = RESULTS) -> str:
    """README.md with present figures between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures(results)}\n{END}{after}"


def write() -> list[Path]:
    """Writes both pages and returns their paths."""
    pages = {RESULTS / "README.md": page()}
    if README.exists():
        pages[README] = with_figures(README.read_text(encoding="utf-8"))
    for path, text in pages.items():
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return list(pages)


if __name__ == "__main__":
    for path in write():
        print(f"Written: {path.relative_to(ROOT)}")
