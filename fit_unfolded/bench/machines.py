"""The pages made from `benchmarks/results/`: the table of all machines, and the READMEs' figures.

`python -m fit_unfolded.bench.machines` writes them.
"""

from pathlib import Path
from typing import NamedTuple

from fit_unfolded.bench.measure import Ratio
from fit_unfolded.bench.report import Suite, is_busy, speedups, table
from fit_unfolded.bench.suite import BENCH, RESULTS, ROOT
from fit_unfolded.common.files import replacing

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
MODES, PEERS = ("default", "default, verbose=1", "best"), ("PyTorch", "JAX")


class Words(NamedTuple):
    """What the figures say in a language; `rows` are the labels of the table, in their order."""

    measured: str
    cores: str
    speedup: str
    rows: tuple[str, str, str, str, str]
    unstable: str
    busy: str
    refused: str
    time: str
    seconds: str
    loop: str


READMES = {
    ROOT / "README.md": Words(
        "Speedup, measured {date} on {machine} ([report]({path})). *default*: no argument about "
        "execution; *best*: whichever is fastest of one step per call and one call per epoch, with "
        "XLA or without, and of each peer's variants.",
        "{} cores",
        "speedup",
        (
            "loop / `fit`, default",
            "the same with `verbose=1`",
            "best loop / best `fit`",
            "best loop / best PyTorch",
            "best loop / best JAX",
        ),
        "`~`: the 95 % interval extends more than 5 % from the ratio ({unstable} of {count} ratios "
        "of the report).",
        "The machine was busy meanwhile.",
        "Without figures, for reasons in the report: {names}.",
        "Time to 97 % on digits, tracing included: {times}.",
        "s",
        "loop",
    ),
    ROOT / "README.ko.md": Words(
        "속도 향상. {date}에 {machine}에서 측정했습니다([보고서]({path})). *기본*: 실행 방식에 "
        "대한 인수가 없습니다. *최선*: 호출당 한 스텝과 에포크당 한 번 호출, XLA를 사용한 것과 "
        "사용하지 않은 것, 그리고 비교 대상의 여러 변형 가운데 가장 빠른 것입니다.",
        "코어 {}개",
        "속도 향상",
        (
            "루프 / `fit`, 기본",
            "`verbose=1`일 때",
            "최선의 루프 / 최선의 `fit`",
            "최선의 루프 / 최선의 PyTorch",
            "최선의 루프 / 최선의 JAX",
        ),
        "`~`: 95 % 구간이 비율에서 5 % 넘게 벗어납니다"
        "(보고서의 비율 {count}개 가운데 {unstable}개).",
        "측정하는 동안 컴퓨터가 다른 일로 바빴습니다.",
        "보고서에 적힌 이유로 수치가 없는 것: {names}.",
        "digits에서 97 %에 이르는 시간(트레이싱 포함): {times}.",
        "초",
        "루프",
    ),
}

PAGE = """\
# Results by machine

Speedup of the loop over `fit`, neither with an argument about execution (`default`). `~`: the 95 %
interval extends more than 5 % from the ratio. Each folder has the report, the hardware, versions,
flags and command, and every measured time as JSON.

{table}

## Send yours

1. Close other programs, and connect a laptop to its power supply.
2. `make bench` and `make bench-peers`, about 45 and 25 minutes. They run
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


def _machine(suite: Suite, cores: str = "{} cores") -> str:
    environment = suite.bench["environment"]
    parts = [environment["cpu"], cores.format(environment["cores"]), *environment["gpus"]]
    return ", ".join(parts)


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


def figures(words: Words, results: Path = RESULTS) -> str:
    """The figures of a README, from the newest results."""
    (directory, suite), *_ = folders(results).items()
    ratios, rivals = suite.ratios, suite.rival_ratios
    values = (
        *({name: found.get(mode) for name, found in ratios.items()} for mode in MODES),
        *({name: found.get(peer) for name, found in rivals.items()} for peer in PEERS),
    )
    rows = [
        [label, *(_mark(by_model.get(name)) for name in suite.models)]
        for label, by_model in zip(words.rows, values, strict=True)
        if any(by_model.values())
    ]
    parts = [
        words.measured.format(
            date=suite.bench["date"],
            machine=_machine(suite, words.cores),
            path=f"benchmarks/results/{directory.name}/report.md",
        ),
        table([words.speedup, *suite.models], rows),
    ]
    unstable, count = suite.unstable
    if unstable:
        parts.append(words.unstable.format(unstable=unstable, count=count))
    if any(file and is_busy(file) for file in (suite.bench, suite.peers)):
        parts.append(words.busy)
    if suite.refused:
        parts.append(words.refused.format(names=", ".join(suite.refused)))
    if suite.targets:
        parts.append(words.time.format(times=_times(suite, words)))
    return "\n\n".join(parts)


def _times(suite: Suite, words: Words) -> str:
    """The fastest variant of each implementation."""
    names = {"fit": "`fit`", "loop": words.loop}
    best: dict[str, Ratio] = {}
    for name, processes in suite.targets.items():
        family, _, _ = name.partition(" ")
        value = speedups(f"target {name}", processes).get("seconds")
        if value is not None and (family not in best or value.value < best[family].value):
            best[family] = value
    return ", ".join(
        f"{names.get(family, family)} {_mark(value)} {words.seconds}"
        for family, value in best.items()
    )


def with_figures(text: str, words: Words, results: Path = RESULTS) -> str:
    """A README with present figures between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures(words, results)}\n{END}{after}"


def write() -> list[Path]:
    """Writes all pages and returns their paths."""
    pages = {RESULTS / "README.md": page()}
    for readme, words in READMES.items():
        pages[readme] = with_figures(readme.read_text(encoding="utf-8"), words)
    for path, text in pages.items():
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return list(pages)


if __name__ == "__main__":
    for path in write():
        print(f"Written: {path.relative_to(ROOT)}")
