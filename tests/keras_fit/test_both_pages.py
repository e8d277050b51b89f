"""Each way to train on one page: they print the same bytes, and nothing else."""

import ast
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parity import needs_keras

import keras_fit

PAGE = Path(keras_fit.__file__).with_name("one_page.py")
MODULES = "keras_fit.one_page", "manual_loop.one_page"


@pytest.fixture(scope="module")
def printed():
    """Standard output and standard error of each page, in an environment without TF_ settings."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": plain}
    processes = [subprocess.Popen([sys.executable, "-m", name], **pipes) for name in MODULES]
    return [process.communicate(timeout=120) for process in processes]


def test_both_pages_print_the_same_bytes(printed):
    fit, loop = printed
    assert fit == loop
    assert len(fit[0].splitlines()) == 100
    assert fit[1] == b""


def run_page(name, *edits):
    """The lines that a page prints in this process, and its names; `edits` are `(old, new)`."""
    path = PAGE.with_name(name)
    source = path.read_text()
    for old, new in edits:
        assert source.count(old) == 1
        source = source.replace(old, new)
    output, names = io.StringIO(), {}
    with contextlib.redirect_stdout(output):
        exec(compile(source, path, "exec"), names)
    return output.getvalue().splitlines(), names


def test_a_custom_step_prints_the_same_lines(printed):
    lines, _ = run_page("custom_step_page.py", ("epochs=100", "epochs=2"))
    (expected, _), _ = printed
    assert lines == expected.decode().splitlines()[:2]


@needs_keras("3.15", "does not reset the metrics before each batch")
def test_train_on_batch_prints_the_same_lines_from_the_sums_of_its_metrics(printed):
    lines, page = run_page("on_batch_page.py", ("SPLIT = 100,", "SPLIT = 2,"))
    (expected, _), _ = printed
    assert lines == expected.decode().splitlines()[:2]

    logs, sizes = [], []  # what the page says of the logs of one batch

    def on_batch(x, y):
        logs.append(page["model"].train_on_batch(x, y, return_dict=True)["loss"])
        sizes.append(len(x))

    loss = page["run"](on_batch, page["x_train"], page["y_train"], np.arange(70))["loss"]
    assert sizes == [16, 16, 16, 16, 6]
    np.testing.assert_allclose(np.average(logs, weights=sizes), loss, rtol=1e-6)
    assert abs(np.mean(logs) - loss) > 1e-3 * loss


def test_with_another_seed_the_first_line_differs(printed):
    (line,), _ = run_page(
        "one_page.py", ("set_random_seed(0)", "set_random_seed(1)"), ("epochs=100", "epochs=1")
    )
    (expected, _), _ = printed
    assert line.startswith("epoch   1  loss ")
    assert line != expected.decode().splitlines()[0]


def test_the_page_is_short_and_imports_nothing_of_this_project():
    source = PAGE.read_text()
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert modules == {"keras", "numpy", "os"}
    assert len(source.splitlines()) <= 45


def test_the_package_imports_nothing_until_its_trainer_is_used():
    code = "import sys, keras_fit; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert keras_fit.Trainer.__module__ == "keras_fit.trainer"
    with pytest.raises(AttributeError, match=r"keras_fit.*no attribute 'Trainr'"):
        keras_fit.Trainr  # noqa: B018
