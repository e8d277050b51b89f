"""Mutation testing: small changes to the loop's code, and whether a test notices each.

    python tests/support/mutants.py 150 --seed 1

mutmut's operators make the mutants, and two of our own. TensorFlow is imported once; each mutant
runs in a process forked from there and is put in its place by an import hook: no file changes. It
meets the tests that reach its statement, those first that killed most, until one fails. The tests
of replicas and workers train in processes of their own: they run file by file, in a copy of the
project with the mutant in it, first if its line is about them and else last. What is
known is kept in results/mutants.json: a run that was stopped goes on where it was, and when tests
are added, only the survivors meet them. The report is also written to results/mutants.md.
"""

import argparse
import ast
import collections
import difflib
import gc
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from fit_unfolded.common.files import replacing
from fit_unfolded.common.tf_import import import_tensorflow

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "manual_loop"
MODULES = ["steps", "compiled/loss", "compiled/metrics", "data/epoch_iterator", "trainer"]
TESTS = sorted(
    [
        *ROOT.glob("tests/manual_loop/**/test_parity_*.py"),
        *ROOT.glob("tests/manual_loop/**/test_[et]r*.py"),
    ]
)
PROCESSES = sorted(ROOT.glob("tests/manual_loop/distribution/test_*.py"))
ABOUT_PROCESSES = re.compile("strategy|distribution|workers|replica")
# imported before the fork: what takes long and is not mutated
IMPORTED = ["cases", "keras_fit", "hypothesis", "scipy.sparse"]
SESSION = ROOT / "results" / "mutants.json"
REPORT = SESSION.with_suffix(".md")
LOG = str(SESSION.with_suffix(".{}.log"))  # of the last process in each place
FORK = multiprocessing.get_context("fork")
PYTEST = ["-xq", "-pno:cacheprovider", "--assert=plain", f"--rootdir={ROOT}"]


def negate(node):
    """`if x` -> `if not (x)`, a change that mutmut does not make."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


def empty(node):
    """`for x in xs` -> `for x in ()`, another."""
    yield node.with_changes(iter=cst.Tuple([]))


OPERATORS = [*mutation_operators, (cst.If, negate), (cst.While, negate), (cst.For, empty)]


class Mutant:
    """A change to one module.

    Args:
        module: name of a module of `manual_loop`.
        tree: its `libcst.Module`.
        mutation: mutmut's: a node of the tree, and the one to put in its place.
    """

    def __init__(self, module, tree, mutation):
        self.module = module
        self.path = PACKAGE / f"{module}.py"
        self.source = tree.deep_replace(mutation.original_node, mutation.mutated_node).code
        before, after = tree.code.splitlines(), self.source.splitlines()
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        changed = [block for block in matcher.get_opcodes() if block[0] != "equal"]
        self.line = changed[0][1] + 1 if changed else 0
        self.before = [line.strip() for _, a, b, _, _ in changed for line in before[a:b]]
        self.after = [line.strip() for _, _, _, a, b in changed for line in after[a:b]]
        self.function, self.statement_lines, self.on_import = around(tree.code, self.line)
        statement = [before[i - 1] for i in self.statement_lines if i <= len(before)]
        self.is_about_processes = any(map(ABOUT_PROCESSES.search, statement))
        self.key = hashlib.sha256(f"{module}\n{self.source}".encode()).hexdigest()[:16]

    def described(self):
        return {
            "module": self.module,
            "function": self.function,
            "line": self.line,
            "before": self.before,
            "after": self.after,
        }


def sample(count, seed):
    """`count` mutants drawn at random, all of them if it is 0; and of how many.

    Text for a reader, which is a string with a space in it, is not changed.
    """
    found = []
    for module in MODULES:
        visitor = MutationVisitor(OPERATORS, IgnoredCode(set(), set(), set()))
        tree = cst.parse_module((PACKAGE / f"{module}.py").read_text())
        tree = MetadataWrapper(tree).visit(visitor)
        for mutation in visitor.mutations:
            node = mutation.original_node
            if not (isinstance(node, cst.SimpleString) and " " in node.value):
                found.append((module, tree, mutation))
    random.Random(seed).shuffle(found)
    mutants = {}
    for module, tree, mutation in found:
        mutant = Mutant(module, tree, mutation)
        if mutant.source != tree.code:
            mutants[mutant.key] = mutant
        if len(mutants) == count:
            break
    return list(mutants.values()), len(found)


def around(source, line):
    """What a line lies in: the name of the function, the lines of the statement, and whether that
    runs on import.

    A function has the name of its class in front; outside all functions it is "".
    """
    name, statement, on_import = "", range(line, line + 1), True

    def walk(node, names):
        nonlocal name, statement, on_import
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt):
                walk(child, names)
            elif child.lineno <= line <= child.end_lineno:
                last = child.body[0].lineno - 1 if hasattr(child, "body") else child.end_lineno
                statement = range(child.lineno, max(child.lineno, last) + 1)
                if isinstance(child, ast.FunctionDef):
                    name = ".".join([*names, child.name])
                inside = isinstance(child, ast.FunctionDef | ast.ClassDef)
                on_import = inside or not name
                walk(child, [*names, child.name] if inside else names)

    walk(ast.parse(source), [])
    return name, statement, on_import


class Mutated(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant):
        name = mutant.module.replace("/", ".")
        super().__init__(f"manual_loop.{name}", str(mutant.path))
        self.mutant = mutant

    def find_spec(self, name, path, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def get_code(self, name):
        return compile(self.mutant.source, self.path, "exec", dont_inherit=True)


class Child:
    """A forked process that works out a function.

    Args:
        name: what for.
        place: of those that run at a time, which; it has a log of its own. None for no new log.
        limit: seconds.
        function, *args: is called with the arguments and with `tell`, a function of the test that
            is begun.
    """

    def __init__(self, place, name, limit, function, *args):
        self.name, self.place = name, place
        self.end = time.monotonic() + limit
        self.result = None
        self.last_words = "start"
        self.receiver, sender = FORK.Pipe(duplex=False)

        def work():
            if place is not None:
                log = os.open(LOG.format(place), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                for stream in (1, 2):
                    os.dup2(log, stream)
            sender.send((True, function(*args, lambda test: sender.send((False, test)))))

        self.process = FORK.Process(target=work)
        self.process.start()
        sender.close()

    def killer(self):
        """Of a `trial` that has ended: what killed the mutant; "" if nothing did."""
        return self.outcome if self.result is None else self.result

    def ended(self):
        """Whether it has; then `result` is what it returned, or None, and `outcome` says why."""
        done = time.monotonic() > self.end
        try:
            while not done and self.receiver.poll():
                done, words = self.receiver.recv()
                if done:
                    self.result = words
                else:
                    self.last_words = words
        except EOFError:
            done = True
            self.process.join()
        if done:
            late = self.process.exitcode in (None, -signal.SIGALRM)
            self.outcome = f"{'out of time' if late else 'crash'} in {self.last_words}"
            self.process.kill()
            self.process.join()
            self.receiver.close()
        return done


def in_children(tasks, jobs):
    """Does tasks in forked processes, `jobs` at a time; yields each `Child` as it ends.

    Args:
        tasks: an iterator of the arguments of `Child`, after the place.
    """
    running = []
    try:
        while True:
            free = set(range(jobs)) - {child.place for child in running}
            begun = zip(sorted(free), tasks, strict=False)
            running += [Child(place, *task) for place, task in begun]
            if not running:
                return
            wait = max(0, min(child.end for child in running) - time.monotonic())
            multiprocessing.connection.wait([child.receiver for child in running], wait)
            for child in [child for child in running if child.ended()]:
                running.remove(child)
                yield child
    finally:
        for child in running:
            child.process.kill()


class Survey:
    """A pytest plugin: how long each test takes, and which lines of the modules it reaches.

    What is shared by the tests of a module (a model traced once) is reached by all that share it.
    """

    def __init__(self, tell):
        self.tell = tell
        self.coverage = coverage.Coverage(data_file=None, include=[str(PACKAGE / "*")])
        self.seconds = collections.Counter()
        self.shares = {}

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.tell(item.nodeid)
        self.coverage.switch_context(item.nodeid)
        shared = [
            f"{item.path.name}: {name}"
            for name, (*_, definition) in item._fixtureinfo.name2fixturedefs.items()
            if definition.scope == "module"
        ]
        self.shares[item.nodeid] = shared
        return (yield)

    def result(self):
        data = self.coverage.get_data()
        reached = collections.defaultdict(set)
        for module in MODULES:
            for line, contexts in data.contexts_by_lineno(str(PACKAGE / f"{module}.py")).items():
                for test in contexts:
                    reached[test].add((module, line))
        together = collections.defaultdict(set)
        for test, shared in self.shares.items():
            for name in shared:
                together[name] |= reached[test]
        return {
            test: {
                "seconds": round(self.seconds[test], 3),
                "reaches": by_module(reached[test].union(*(together[name] for name in shared))),
            }
            for test, shared in self.shares.items()
        }


def by_module(lines):
    return {name: sorted(n for module, n in lines if module == name) for name in MODULES}


def survey(path, tell):
    """The tests of a file: dict of test -> seconds, and the lines that it reaches."""
    plugin = Survey(tell)
    plugin.coverage.start()
    code = pytest.main([*PYTEST, str(path)], plugins=[plugin])
    plugin.coverage.stop()
    return plugin.result() if code == 0 else None


def survey_whole(path, tell):
    """As `survey`, for a file that runs as a whole."""
    file, begin = str(path.relative_to(ROOT)), time.monotonic()
    if in_copy(None, file, 900):
        return None
    return {file: {"seconds": time.monotonic() - begin, "reaches": by_module(())}}


class Trial:
    """A pytest plugin: some tests in a given order, each with a limit of time.

    Args:
        limits: dict of test -> seconds.
    """

    def __init__(self, limits, tell):
        self.limits = limits
        self.tell = tell
        self.failed = None

    @pytest.hookimpl(tryfirst=True)  # then pytest moves those together that share something
    def pytest_collection_modifyitems(self, items):
        order = {test: i for i, test in enumerate(self.limits)}
        items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.tell(item.nodeid)
        signal.setitimer(signal.ITIMER_REAL, self.limits[item.nodeid])  # ends the process
        return (yield)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = "import"

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed = report.nodeid


def confirmed(mutant, limits, tell):
    """The test that fails with this mutant, and fails alone as well; "" if none does."""
    ways = [by_test, by_file]
    if mutant.is_about_processes:
        ways.reverse()
    return ways[0](mutant, limits, tell) or ways[1](mutant, limits, tell)


def by_file(mutant, limits, tell):
    """`confirmed` of the tests that are whole files."""
    for file, limit in limits.items():
        if "::" not in file:
            tell(file)
            killer = in_copy(mutant, file, limit)
            if killer and in_copy(mutant, killer if killer.startswith(file) else file, limit):
                return killer
    return ""


def in_copy(mutant, tests, limit):
    """The test that fails in a copy of the project, with a mutant in it or None; "" if none does.

    Args:
        mutant: a `Mutant`, or None.
        tests: a file, or one test of it.
        limit: seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
        if mutant is not None:
            (copy / mutant.path.relative_to(ROOT)).write_text(mutant.source)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-xq", "-pno:cacheprovider", tests],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            page, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"out of time in {tests}"
    print(page)
    failed = re.search("^(?:FAILED|ERROR) (.+?)(?: - .*)?$", page, re.MULTILINE)
    return failed[1] if failed else f"pytest: {process.returncode}" if process.returncode else ""


def by_test(mutant, limits, tell):
    """`confirmed` of single tests, each of which also fails in a process of its own."""
    left = {test: limit for test, limit in limits.items() if "::" in test}
    while left:
        killer = in_process(mutant, left)
        if killer not in left or in_process(mutant, {killer: left[killer]}):
            return killer
        tests = list(left)
        left = {test: left[test] for test in tests[tests.index(killer) + 1 :]}
    return ""


def in_process(mutant, limits):
    child = Child(None, "", 120 + sum(limits.values()), trial, mutant, limits)
    while not child.ended():
        multiprocessing.connection.wait([child.receiver], 1)
    return child.killer()


def trial(mutant, limits, tell):
    """The test that fails with this mutant in place; "" if none does."""
    sys.meta_path.insert(0, Mutated(mutant))
    plugin = Trial(limits, tell)
    signal.setitimer(signal.ITIMER_REAL, 120)
    files = dict.fromkeys(str(ROOT / test.partition("::")[0]) for test in limits)
    code = pytest.main([*PYTEST, *files], plugins=[plugin])
    if code != 0 and plugin.failed is None:
        return f"pytest: {code!s}"
    return plugin.failed or ""


def tests_for(mutant, tests, met, changed, kills, seconds):
    """dict: test that reaches the mutant's statement -> its cost in seconds, in the best order.

    One that runs on import, such as the head of a function, meets all tests. Quick tests are chosen
    first, and few of each test function before more of it, until the seconds are used up. New ones
    run first, then those that killed most; then file by file, so that what the tests of a file
    share is made once.

    Args:
        mutant: the `Mutant`.
        tests: dict: test -> what `survey` found.
        met: tests that it has met already, as they are.
        changed: tests that it has met, in files that were changed since.
        kills: `Counter`: test -> how many mutants it killed.
        seconds: the sum of the costs at most.

    Returns:
        That dict, and how many tests were left out.
    """
    statement = {*mutant.statement_lines}
    near = [
        test
        for test, found in tests.items()
        if "::" in test
        and test not in met
        and (mutant.on_import or statement & {*found["reaches"][mutant.module]})
    ]
    cost = {test: tests[test]["seconds"] for test in near}
    turn, turns = {}, collections.Counter()
    for test in sorted(near, key=cost.get):
        function = test.partition("[")[0]
        turns[function] += 1
        turn[test] = turns[function]
    best = sorted(near, key=lambda test: -kills[test] / (0.3 + cost[test]))[:5]
    chosen = []
    late = {test: (test in changed, test not in best) for test in near}
    for test in sorted(near, key=lambda t: (late[t], turn[t] ** 0.5 * cost[t])):
        if cost[test] < seconds:
            seconds -= cost[test]
            chosen.append(test)
    total = collections.Counter()
    for test in chosen:
        total[file_of(test)] += cost[test]

    def rank(test):
        file = file_of(test)
        return late[test], total[file], file, cost[test]

    whole = {test: found["seconds"] for test, found in tests.items() if "::" not in test}
    costs = {test: cost[test] for test in sorted(chosen, key=rank)}
    costs |= {test: seconds for test, seconds in whole.items() if test not in met}
    return costs, len(near) - len(chosen)


def file_of(test):
    return test.partition("::")[0].rpartition("/")[2]


def fingerprint(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


class Session:
    """What is known of these sources, kept in a file; of other sources, only who killed most."""

    def __init__(self):
        self.sources = self._fingerprints()
        self.tests = {}  # file -> test -> seconds, and the lines it reaches
        self.results = {}  # key of a mutant -> what came of it
        self.kills = {}  # test -> how many mutants it killed
        if SESSION.exists():
            kept = json.loads(SESSION.read_text())
            self.kills = kept["kills"]
            unchanged = {
                n for n, sources in self.sources.items() if kept["sources"].get(n) == sources
            }
            if "manual_loop" in unchanged:
                self.tests = {n: tests for n, tests in kept["tests"].items() if n in unchanged}
                self.results = kept["results"]

    @staticmethod
    def _fingerprints():
        support = ROOT / "tests" / "support"
        shared = [ROOT / "tests" / "conftest.py", support / "cases.py", support / "parity.py"]
        tests = {path.name: fingerprint(path, *shared) for path in TESTS}
        scripts = [support / f"{name}.py" for name in ("replicas", "clusters")]
        whole = {path.name: fingerprint(path, *shared, *scripts) for path in PROCESSES}
        return {"manual_loop": fingerprint(*sorted(PACKAGE.rglob("*.py"))), **tests, **whole}

    def save(self):
        if self._fingerprints() != self.sources:
            sys.exit("The code or its tests changed meanwhile: start again.")
        with replacing(SESSION) as temporary:
            temporary.write_text(json.dumps(vars(self), indent=1))

    def met(self, mutant):
        """The tests that the mutant has met as they are now, and those in files changed since."""
        met = self.results.get(mutant.key, {}).get("met", {})
        now = {test for test, source in met.items() if source == self.sources[file_of(test)]}
        return now, met.keys() - now

    def add(self, mutant, limits, left_out, killer, seconds):
        before = self.results.get(mutant.key, {"met": {}, "seconds": 0})
        met = {test: self.sources[file_of(test)] for test in limits}
        self.results[mutant.key] = {
            **mutant.described(),
            "killer": killer,
            "seconds": round(before["seconds"] + seconds, 1),
            "left_out": left_out,
            "met": {} if killer else {**before["met"], **met},
        }
        if killer:
            self.kills[killer] = self.kills.get(killer, 0) + 1


def run(count, seed, minutes, seconds, jobs):
    """Try the mutants that have no result yet; returns the results of all, and of how many.

    Those that survived meet the tests that they have not met, if there are any.
    """
    SESSION.parent.mkdir(exist_ok=True)
    session = Session()
    end = time.monotonic() + 60 * minutes
    import_tensorflow()
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each child's collections would copy the parent's memory
    tasks = (
        (path.name, 900, survey if path in TESTS else survey_whole, path)
        for path in [*TESTS, *PROCESSES]
        if path.name not in session.tests
    )
    for child in in_children(before(end, tasks), jobs):
        if child.result is None:
            log = LOG.format(child.place)
            sys.exit(f"{child.name} fails without any mutant, in {child.last_words}: see {log}")
        session.tests[child.name] = child.result
        session.save()
        print(f"{child.name}: {len(child.result)} tests", flush=True)

    mutants, total = sample(count, seed)
    for child in in_children(before(end, trials(mutants, session, seconds)), jobs):
        mutant, limits, left_out, started = child.name
        killer = child.killer()
        if killer.startswith("pytest"):
            sys.exit(f"{killer}: {mutant.described()}")
        session.add(mutant, limits, left_out, killer, time.monotonic() - started)
        session.save()
        result = session.results[mutant.key]
        survived = f"SURVIVED {len(result['met'])} tests, {left_out} left out"
        print(
            f"{mutants.index(mutant) + 1:4} {result['seconds']:6.1f} s  "
            f"{mutant.module}.py:{mutant.line}  {killer or survived}",
            flush=True,
        )
    if time.monotonic() > end:
        sys.exit("The minutes are over: run it again to go on.")
    return [session.results[mutant.key] for mutant in mutants], total


def before(end, tasks):
    """The tasks, as long as there is time."""
    return itertools.takewhile(lambda _: time.monotonic() < end, tasks)


def trials(mutants, session, seconds):
    """Tasks: each mutant that is not killed, and tests that it has not met.

    A test that takes longer than half a minute and five times what it takes without a mutant has
    failed.
    """
    for mutant in mutants:
        result = session.results.get(mutant.key)
        if result is not None and result["killer"]:
            continue
        tests = {test: found for tests in session.tests.values() for test, found in tests.items()}
        kills = collections.Counter(session.kills)
        costs, left_out = tests_for(mutant, tests, *session.met(mutant), kills, seconds)
        limits = {test: 30 + 5 * cost for test, cost in costs.items()}
        if limits:
            name = mutant, limits, left_out, time.monotonic()
            yield name, 2 * (120 + sum(limits.values())), confirmed, mutant, limits
        elif result is None:
            session.add(mutant, {}, 0, "", 0)


def report(results, heading):
    """The score by module, and the survivors, in Markdown."""
    rows = [heading, "", "| module | mutants | killed | survived | not all tests met |"]
    rows.append("|---|---|---|---|---|")
    for module in (*MODULES, "all"):
        own = [result for result in results if module in (result["module"], "all")]
        killed = sum(bool(result["killer"]) for result in own)
        partly = sum(not result["killer"] and result["left_out"] > 0 for result in own)
        rows.append(
            f"| `{module}` | {len(own)} | {killed} ({killed / max(len(own), 1):.1%}) | "
            f"{len(own) - killed - partly} | {partly} |"
        )
    by_test = [result for result in results if result["killer"].startswith("tests")]
    others = [result for result in results if result["killer"] and result not in by_test]
    rows.append(f"\n{len(by_test)} were killed by a test that failed.")
    rows += [f"{r['module']}.py:{r['line']}: {r['killer']}." for r in others]
    survivors = [result for result in results if not result["killer"]]
    for result in sorted(survivors, key=lambda r: (r["module"], r["line"])):
        changed = (f"- {line}" for line in result["before"]), (f"+ {x}" for x in result["after"])
        met = f"{len(result['met'])} tests met, {result['left_out']} left out"
        rows.append(f"\n`{result['module']}.py`, `{result['function']}` ({met})\n\n```diff")
        rows += [*itertools.chain(*changed), "```"]
    with replacing(REPORT) as temporary:
        temporary.write_text("\n".join(rows) + "\n")
    print("\n" + "\n".join(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, help="how many, drawn at random; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=250, help="of tests for each mutant")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then; go on later")
    options = parser.parse_args()
    results, total = run(**vars(options))
    report(results, f"{len(results)} of {total} mutants, seed {options.seed}")


if __name__ == "__main__":
    main()
