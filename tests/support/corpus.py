"""How well `check` diagnoses: all loops of the corpus, or some, against what it should say.

    python tests/support/corpus.py                   # all
    python tests/support/corpus.py digits_guide      # this file, right and wrong
    python tests/support/corpus.py metrics_not_reset # this mistake, in all files
    python tests/support/corpus.py fresh/            # those that check was not mended with

`--write` puts the figures of each set that was run whole into docs/check.md. `--files DIR` also
writes the loops there, to try one with `fit-unfolded check`. Results: results/corpus.json.
TensorFlow is imported once; each loop is checked in a process forked from there, so that a crash or
a loop that never ends counts as one failure and does not end the run.
"""

import argparse
import concurrent.futures
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import corpus_manifest
from corpus_manifest import Mistake

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "check.md"
RESULTS = ROOT / "results" / "corpus.json"
PITFALLS = {path.stem for path in ROOT.glob("fit_unfolded/pitfalls/catalogue/*.py")}
NO_DIFFERENCE = ("equal", "rounding")


@dataclass
class Answer:
    """What `check` says of a loop; `verdict` is "failed" where it raised or did not end."""

    verdict: str
    stage: str | None = None
    causes: list[str] = field(default_factory=list)
    costs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""


# Checking -------------------------------------------------------------------------------------


def answer(text, name):
    """What `check` says of a loop.

    Args:
        text: of the file.
        name: of the file, without `.py`.
    """
    from fit_unfolded.check import check

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{Path(name).name}.py")
        path.write_text(text)
        report = check(path)
    return Answer(
        report.verdict,
        report.stage.name if report.stage else None,
        [cause.name.replace("-", "_") for cause in report.causes],
        [cost.name.replace("-", "_") for cost in report.costs],
        report.seconds["check"],
    )


def in_child(function, limit, *args):
    """What a function returns in a forked process; an `Answer` that failed if it does not.

    Args:
        limit: seconds.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def work():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        try:
            sender.send(function(*args))
        except BaseException as error:
            sender.send(Answer("failed", error=f"{type(error).__name__}: {error}"))

    process = fork.Process(target=work)
    process.start()
    sender.close()
    try:
        if receiver.poll(limit):
            return receiver.recv()
        return Answer("failed", error=f"not done after {limit} seconds")
    except EOFError:
        process.join()
        return Answer("failed", error=f"the process ended with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()
        receiver.close()


def checked(loops, jobs, limit):
    """Yields the name and the `Answer` of each loop, in their order."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:

        def one(item):
            name, mistake = item
            file = name if mistake is None else mistake.twin  # the name of the mistake tells it
            return in_child(answer, limit, corpus_manifest.source(name, mistake), file)

        yield from zip(loops, pool.map(one, loops.items()), strict=True)


# Judging --------------------------------------------------------------------------------------


def detected(mistake, found):
    """Whether a mistake that changes the numbers is found, or one that costs time is named."""
    if not mistake.stages:
        return mistake.name in found.costs + found.causes
    return found.verdict == "different"


def stage_right(mistake, found):
    return detected(mistake, found) and found.stage in mistake.stages


def cause_right(mistake, found):
    """Whether the first cause is that of the mistake; of one in no catalogue, no pitfall's."""
    accepted = {mistake.name, *mistake.also}
    if not mistake.stages:
        return detected(mistake, found)
    if mistake.in_catalogue:
        return detected(mistake, found) and found.causes[:1] != [] and found.causes[0] in accepted
    return not PITFALLS & set(found.causes) - accepted


def faults(mistake, found):
    """What of an answer is not as it should be; "" if nothing."""
    if found.verdict == "failed":
        return f"failed: {found.error}"
    if mistake is None or not mistake.stages:
        wrong = [] if found.verdict in NO_DIFFERENCE else ["false alarm"]
        if mistake is not None and not detected(mistake, found):
            wrong.append("cost not named")
        return ", ".join(wrong)
    if not detected(mistake, found):
        return "not detected"
    wrong = (
        [] if stage_right(mistake, found) else [f"stage should be {' or '.join(mistake.stages)}"]
    )
    if not cause_right(mistake, found):
        wrong.append(f"cause should be {mistake.name if mistake.in_catalogue else 'none'}")
    return ", ".join(wrong)


def line(name, mistake, found):
    """One line for the terminal."""
    says = " ".join(filter(None, [found.verdict, found.stage, *found.causes]))
    costs = f" (costs: {', '.join(found.costs)})" if found.costs else ""
    fault = faults(mistake, found)
    mark = f"  <- {fault}" if fault else ""
    return f"{found.seconds:5.1f} s  {name}: {says}{costs}{mark}"


# The page -------------------------------------------------------------------------------------


def share(part, whole):
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"


def figures(loops, answers):
    """The figures, in words: dict of row -> value."""
    right = [answers[name] for name, mistake in loops.items() if mistake is None]
    pairs = [(m, answers[name]) for name, m in loops.items() if m is not None]
    wrong = [(m, a) for m, a in pairs if m.stages]
    known = [(m, a) for m, a in wrong if m.in_catalogue]
    others = [(m, a) for m, a in wrong if not m.in_catalogue]
    costs = [(m, a) for m, a in pairs if not m.stages]
    unharmed = right + [a for _, a in costs]
    alarms = sum(a.verdict not in NO_DIFFERENCE for a in unharmed)
    seconds = [a.seconds for a in answers.values() if a.verdict != "failed"] or [0.0]
    return {
        "mistakes detected": share(sum(detected(*p) for p in wrong), len(wrong)),
        "false alarms": share(alarms, len(unharmed)),
        "stage right": share(sum(stage_right(*p) for p in wrong), len(wrong)),
        "cause right, of the known mistakes": share(
            sum(cause_right(*p) for p in known), len(known)
        ),
        "a known mistake named for another": share(
            sum(not cause_right(*p) for p in others), len(others)
        ),
        "costs named": share(sum(detected(*p) for p in costs), len(costs)),
        "checks that failed": share(
            sum(a.verdict == "failed" for a in answers.values()), len(answers)
        ),
        "seconds per check": f"{statistics.median(seconds):.1f} (median), {max(seconds):.1f} (max)",
    }


def summary(loops):
    """The sentence that says what the corpus has."""
    mistakes = [mistake for mistake in loops.values() if mistake is not None]
    costs = sum(not mistake.stages for mistake in mistakes)
    known = sum(mistake.in_catalogue for mistake in mistakes) - costs
    return (
        f"{len(loops)} loops: {len(loops) - len(mistakes)} right ones, {len(mistakes) - costs} "
        f"with one mistake ({known} with a known one) and {costs} that only cost time."
    )


def block(loops, answers):
    """The part of docs/check.md between the markers of a set."""
    versions = ", ".join(
        f"{title} {importlib.metadata.version(name)}"
        for title, name in (("TensorFlow", "tensorflow"), ("Keras", "keras"))
    )
    today = datetime.date.today()
    rows = [f"| {name} | {value} |" for name, value in figures(loops, answers).items()]
    groups: dict[tuple[str, bool], list[tuple[Mistake, Answer]]] = {}
    for name, mistake in loops.items():
        if mistake is not None:
            key = mistake.name, mistake.in_catalogue
            groups.setdefault(key, []).append((mistake, answers[name]))
    table = []
    for (name, in_catalogue), pairs in sorted(groups.items(), key=lambda g: (not g[0][1], g[0][0])):
        n = len(pairs)
        stages = dict.fromkeys(stage for mistake, _ in pairs for stage in mistake.stages)
        cells = [
            f"`{name}`" if in_catalogue else name,
            ", ".join(stages) or "(a cost)",
            f"{sum(detected(*p) for p in pairs)} of {n}",
            f"{sum(stage_right(*p) for p in pairs)} of {n}" if stages else "",
            f"{sum(cause_right(*p) for p in pairs)} of {n}" if in_catalogue else "",
        ]
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            summary(loops),
            f"Measured on {today.day} {today:%B %Y} with {versions}.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "| mistake | stage | detected | stage right | cause right |",
            "|---|---|---|---|---|",
            *table,
            "",
        ]
    )


def parts(name):
    """docs/check.md before, between and after the markers of a set, which are in the outer two."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = PAGE.read_text().partition(begin)
    between, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{PAGE}: the markers {begin.strip()} and {end.strip()} are missing.")
    return before + begin, between, end + after


def write(name, text):
    """Replace what stands between the markers of a set in docs/check.md."""
    before, _, after = parts(name)
    PAGE.write_text(f"{before}\n{text}\n{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of a loop's name; default: all loops")
    parser.add_argument("--jobs", type=int, default=1, help="checks at a time")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a check")
    parser.add_argument("--files", type=Path, help="directory to write the loops to")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/check.md")
    options = parser.parse_args()
    loops = {
        name: mistake
        for name, mistake in corpus_manifest.loops().items()
        if not options.names or any(part in name for part in options.names)
    }
    if not loops:
        parser.error(f"no loop has a name with {' or '.join(options.names)} in it")
    whole = {
        name: group
        for name, group in corpus_manifest.sets().items()
        if group.keys() <= loops.keys()
    }
    if options.write and not whole:
        parser.error("--write needs a run of all loops, or of all in fresh/")
    if options.files:
        options.files.mkdir(parents=True, exist_ok=True)
        for name, mistake in loops.items():
            path = options.files / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(corpus_manifest.source(name, mistake))

    from fit_unfolded.common.tf_import import import_tensorflow

    import_tensorflow()  # no operation may run before the fork: its threads would be lost

    answers = {}
    for name, found in checked(loops, options.jobs, options.limit):
        answers[name] = found
        print(line(name, loops[name], found), flush=True)
    for name, value in figures(loops, answers).items():
        print(f"{name}: {value}")
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | {n: asdict(a) for n, a in answers.items()}, indent=1))
    if options.write:
        for name, group in whole.items():
            write(name, block(group, answers))


if __name__ == "__main__":
    main()
