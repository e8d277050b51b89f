"""Mutation testing: small changes to the loop's code, and whether a test notices each.

    python tests/mutants.py 150 --seed 1

mutmut's operators make the mutants, and two of our own. TensorFlow is imported once; each mutant
runs in a process forked from there and is put in its place by an import hook: no file changes. It
meets the tests that reach its statement, those first that killed most, until one fails. What is
known is kept in results/mutants.json: a run that was stopped goes on where it was.
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
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from fit_unfolded.files import replacing

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "manual_loop"
MODULES = ["steps", "objective", "metrics", "batches", "trainer"]
PARITY = ["fit", "data", "weights", "compile", "models", "callbacks", "execution", "precision"]
TESTED_BY = ["errors", *(f"parity_{name}" for name in PARITY), "parity_saving", "tracing"]
TESTS = [ROOT / "tests" / f"test_{name}.py" for name in TESTED_BY]
SLOW = 5.0  # seconds: longer tests are left out
# imported before the fork: what takes long and is not mutated
IMPORTED = ["conftest", "cases", "keras_fit", "hypothesis", "scipy.sparse"]
SESSION = ROOT / "results" / "mutants.json"
LOG = SESSION.with_suffix(".log")  # of the last process
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
        self.function, self.function_lines, self.statement_lines = around(tree.code, self.line)
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
    """Yields `count` mutants drawn at random; all of them if `count` is 0.

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
    print(f"{len(found)} mutants; {count or 'all'} of them, seed {seed}", flush=True)
    seen = set()
    for module, tree, mutation in found:
        mutant = Mutant(module, tree, mutation)
        if mutant.source != tree.code and mutant.key not in seen:
            seen.add(mutant.key)
            yield mutant
        if len(seen) == count:
            return


def around(source, line):
    """What a line lies in: the name of the function, the lines of it, those of the statement.

    A function has the name of its class in front; outside all functions it is "".
    """
    name, function, statement = "", range(0), range(line, line + 1)

    def walk(node, names):
        nonlocal name, function, statement
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt):
                walk(child, names)
            elif child.lineno <= line <= child.end_lineno:
                last = child.body[0].lineno - 1 if hasattr(child, "body") else child.end_lineno
                statement = range(child.lineno, max(child.lineno, last) + 1)
                if isinstance(child, ast.FunctionDef):
                    name = ".".join([*names, child.name])
                    function = range(child.lineno, child.end_lineno + 1)
                inside = isinstance(child, ast.FunctionDef | ast.ClassDef)
                walk(child, [*names, child.name] if inside else names)

    walk(ast.parse(source), [])
    return name, function, statement


class Mutated(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports the mutant in place of its module."""

    def __init__(self, mutant):
        super().__init__(f"manual_loop.{mutant.module}", str(mutant.path))
        self.mutant = mutant

    def find_spec(self, name, path, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def get_code(self, name):
        return compile(self.mutant.source, self.path, "exec", dont_inherit=True)


def forked(limit, function, *args):
    """What a function returns in a forked process; None if that crashed or took too long."""
    receiver, sender = FORK.Pipe(duplex=False)

    def child():
        log = os.open(LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        sender.send(function(*args))

    process = FORK.Process(target=child)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


class Survey:
    """A pytest plugin: how long each test takes, and which lines of the modules it reaches.

    What is shared by the tests of a module (a model traced once) is reached by all that share it.
    """

    def __init__(self):
        self.coverage = coverage.Coverage(data_file=None, include=[str(PACKAGE / "*")])
        self.seconds = collections.Counter()
        self.shares = {}

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
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


def survey(path):
    """The tests of a file: dict of test -> seconds, and the lines that it reaches."""
    plugin = Survey()
    plugin.coverage.start()
    code = pytest.main([*PYTEST, str(path)], plugins=[plugin])
    plugin.coverage.stop()
    return plugin.result() if code == 0 else None


class Trial:
    """A pytest plugin: some tests in a given order, each with a limit of time.

    Args:
        limits: dict of test -> seconds.
    """

    def __init__(self, limits):
        self.limits = limits
        self.failed = None

    def pytest_collection_modifyitems(self, items):
        order = {test: i for i, test in enumerate(self.limits)}
        items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        signal.setitimer(signal.ITIMER_REAL, self.limits[item.nodeid])  # ends the process
        return (yield)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = "import"

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed = report.nodeid


def trial(mutant, limits):
    """The test that fails with this mutant in place; "" if none does."""
    sys.meta_path.insert(0, Mutated(mutant))
    plugin = Trial(limits)
    signal.setitimer(signal.ITIMER_REAL, 60)
    files = dict.fromkeys(str(ROOT / test.partition("::")[0]) for test in limits)
    code = pytest.main([*PYTEST, *files], plugins=[plugin])
    if code != 0 and plugin.failed is None:
        return f"pytest: {code!s}"
    return plugin.failed or ""


def tests_for(mutant, tests, kills, seconds):
    """dict: test that reaches the mutant's function -> its limit in seconds, in the best order.

    Chosen are those that reach the changed statement itself before the others, and of each test
    function the quickest case first, then its second quickest, and so on, until the seconds are
    used up. The few that killed most run first; then file by file, so that what the tests of a
    file share is made once.
    """
    cost, near = {}, {}
    for test, found in tests.items():
        lines = set(found["reaches"][mutant.module])
        if found["seconds"] < SLOW and (not mutant.function or lines & {*mutant.function_lines}):
            cost[test] = found["seconds"]
            near[test] = bool(lines & {*mutant.statement_lines})
    order = sorted(cost, key=lambda test: (not near[test], cost[test]))
    turn, turns = {}, collections.Counter()
    for test in order:
        function = test.partition("[")[0] if mutant.function else ""
        turns[function] += 1
        turn[test] = turns[function]
    best = sorted(order, key=lambda test: (not near[test], -kills[test] / (0.3 + cost[test])))[:5]
    chosen = []
    for test in sorted(order, key=lambda t: (t not in best, not near[t], turn[t], cost[t])):
        seconds -= cost[test]
        if seconds > 0:
            chosen.append(test)
    total = collections.Counter()
    for test in chosen:
        total[test.partition("::")[0]] += cost[test]

    def rank(test):
        file = test.partition("::")[0]
        return test not in best, total[file], file, cost[test]

    return {test: 15 + 5 * cost[test] for test in sorted(chosen, key=rank)}


def fingerprint(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


class Session:
    """What is known of these sources, kept in a file; of other sources, nothing is."""

    def __init__(self):
        self.sources = self._fingerprints()
        self.tests = {}  # file -> test -> seconds, and the lines it reaches
        self.results = {}  # key of a mutant -> what came of it
        if SESSION.exists():
            kept = json.loads(SESSION.read_text())
            unchanged = {
                n for n, sources in self.sources.items() if kept["sources"].get(n) == sources
            }
            if "manual_loop" in unchanged:
                self.tests = {n: tests for n, tests in kept["tests"].items() if n in unchanged}
                self.results = kept["results"]

    @staticmethod
    def _fingerprints():
        shared = [ROOT / "tests" / f"{name}.py" for name in ("cases", "parity", "conftest")]
        tests = {path.name: fingerprint(path, *shared) for path in TESTS}
        return {"manual_loop": fingerprint(*sorted(PACKAGE.glob("*.py"))), **tests}

    def save(self):
        if self._fingerprints() != self.sources:
            sys.exit("The code or its tests changed meanwhile: start again.")
        with replacing(SESSION) as temporary:
            temporary.write_text(json.dumps(vars(self), indent=1))


def run(count, seed, minutes, seconds):
    """Try the mutants that have no result yet; returns the results of all, in their order.

    Those that survived are tried again when there are more seconds for each.
    """
    SESSION.parent.mkdir(exist_ok=True)
    session = Session()
    end = time.monotonic() + 60 * minutes
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each child's collections would copy the parent's memory
    for path in TESTS:
        if path.name not in session.tests:
            print(f"{path.name}: which lines each test reaches", flush=True)
            session.tests[path.name] = forked(900, survey, path)
            if session.tests[path.name] is None:
                sys.exit(f"{path.name} fails without any mutant: see {LOG}")
            session.save()
            assert_time(end)
    tests = {test: known for file in session.tests.values() for test, known in file.items()}
    kills = collections.Counter(result["killer"] for result in session.results.values())

    wanted = []
    for mutant in sample(count, seed):
        result = session.results.get(mutant.key)
        if result is None or (not result["killer"] and seconds > result["budget"]):
            assert_time(end)
            result = examine(mutant, tests_for(mutant, tests, kills, seconds))
            session.results[mutant.key] = {**result, "budget": seconds}
            kills[result["killer"]] += 1
            session.save()
            print(
                f"{len(wanted) + 1:4} {result['seconds']:6.1f} s  {mutant.module}.py:{mutant.line}"
                f"  {result['killer'] or 'SURVIVED'}",
                flush=True,
            )
        wanted.append(session.results[mutant.key])
    return wanted


def assert_time(end):
    if time.monotonic() > end:
        sys.exit("The minutes are over: run it again to go on.")


def examine(mutant, limits):
    """dict: the mutant, the test that killed it or "", the number of tests, the seconds."""
    started = time.monotonic()
    killer = ""
    if limits:
        killer = forked(120 + sum(limits.values()), trial, mutant, limits)
    if killer is None:
        killer = "crash, or out of time"
    if killer.startswith("pytest"):
        sys.exit(f"{killer}: {mutant.described()}")
    seconds = round(time.monotonic() - started, 1)
    return {**mutant.described(), "killer": killer, "tests": len(limits), "seconds": seconds}


def report(results):
    """The score by module, and the survivors."""
    print(f"\n{'module':12} {'mutants':>8} {'killed':>8}")
    for module in (*MODULES, "all"):
        own = [result for result in results if module in (result["module"], "all")]
        killed = sum(bool(result["killer"]) for result in own)
        print(f"{module:12} {len(own):8} {killed:8} {killed / max(len(own), 1):8.1%}")
    survivors = [result for result in results if not result["killer"]]
    print(f"\n{len(survivors)} survivors")
    for result in sorted(survivors, key=lambda r: (r["module"], r["line"])):
        print(
            f"\n{result['module']}.py:{result['line']} {result['function']}, "
            f"{result['tests']} tests, {result['seconds']} s"
        )
        for sign, lines in (("-", result["before"]), ("+", result["after"])):
            print("\n".join(f"  {sign} {line}" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mutants", type=int, help="how many, drawn at random; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then; go on later")
    options = parser.parse_args()
    report(run(options.mutants, options.seed, options.minutes, options.seconds))


if __name__ == "__main__":
    main()
