"""The command line as a whole: help, errors, interruption, and what is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import keras
import pytest
import tensorflow as tf
from platforms import interruptible, needs_signals
from typer.main import get_command

from fit_unfolded import cli, workloads

COMMANDS = list(get_command(cli.app).commands)
TINY = ["digits-mlp", "--epochs", "2", "--batch-size", "256"]
PROGRESS_LINE = r"\w[\w ]*: (\d+ of \d+, )?([^,]+, )?\d+ s"


# Help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_summaries_of_commands_are_not_cut(run, columns):
    status, page, error = run("-h", columns=columns)
    assert (status, error) == (0, "")
    assert "..." not in page.partition("Commands:")[2]
    assert "Train WORKLOAD with both implementations and compare every observable value." in (
        " ".join(page.split())
    )
    assert run(columns=columns) == (0, page, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_plain_and_fits_the_terminal(run, command):
    status, page, error = run(command, "-h")
    assert (status, error) == (0, "")
    assert run(command, "--help") == (0, page, "")
    assert not re.search(r"<\w|x>=|<=x|None", page)
    assert max(map(len, page.splitlines())) <= 80


def test_version(run):
    _, page, _ = run("--version")
    assert page == (
        f"fit-unfolded {version('fit-unfolded')} (tensorflow {tf.__version__}, "
        f"keras {keras.__version__})\n"
    )


# Errors ---------------------------------------------------------------------------------------

# For each: arguments, and words of the one line on standard error.
REFUSED_BEFORE_TENSORFLOW = [
    (["compare", "digts"], "WORKLOAD: there is no 'digts'; did you mean digits"),
    (["compare", "--epochs", "0"], "--epochs: must be an integer of at least 1, not '0'; see"),
    (["compare", "--epochs", "many"], "--epochs: must be an integer of at least 1, not 'many'"),
    (["compare", "--epochs"], "option '--epochs' requires an argument"),
    (["compare", "--batch-size", "-3"], "--batch-size: must be an integer of at least 1"),
    (["compare", "--seed", "-1"], "--seed: must be an integer from 0 to 2147483648, not '-1'"),
    (["compare", "--device", "tpu"], "--device: must be auto, cpu, gpu or gpu:N, not 'tpu'"),
    (["bench", "--quick", "--device", "gpu:"], "--device: must be"),
    (["gpu-check", "--device", "0"], "--device: must be"),
    (["compare", "--output", "{file}/out"], "--output: cannot write to"),
    (
        ["compare", "--output", "{none}/out"],
        "--output: the directory {none} does not exist; create",
    ),
    (["bench", "--quick", "--output", "{none}/out"], "--output: the directory"),
    (["pitfalls", "no-graph", "--output", "{none}/out"], "--output: the directory"),
    (["explain", "--html", "{none}/page.html"], "--html: the directory {none} does not exist"),
    (["explain", "--html", "{directory}"], "--html: {directory} is a directory; name a file"),
    (["gpu-check", "--out", "{none}/it.md"], "--out: the directory"),
    (["launch", "--logs", "{none}/logs", "--", "train"], "--logs: the directory"),
    (["launch"], "missing argument 'COMMAND'"),
    (["launch", "--", "compare"], "launch: only `train` can be launched"),
    (["compare", "--data", "{file}"], "--data: workload 'digits' brings its own data"),
    (["compare", "mnist", "--data", "{none}"], "--data: there is no file {none}"),
    (["compare", "--eager", "--jit"], "--eager: cannot be combined with --jit"),
    (["compare", "--replicas", "0"], "--replicas: must be an integer of at least 1"),
    (["compare", "--replicas", "33"], "--replicas: a batch of 32 cannot be divided among 33"),
    (["train", "--replicas", "33"], "--replicas: a batch of 32 cannot be divided among 33"),
    (["compare", "--replicas", "3"], "--batch-size: fit fails if a batch does not divide evenly"),
    (["compare", "--replicas", "2", "--jit"], "--jit: fit fails with it on several replicas"),
    (["compare", "--replicas", "2", "--steps-per-execution", "2"], "--steps-per-execution: "),
    (["compare", "--workers", "2", "--replicas", "2"], "--replicas: cannot be combined with"),
    (["compare", "--workers", "2", "--eager"], "--workers: the loop runs as a graph"),
    (["compare", "--workers", "2", "--device", "gpu"], "--workers: several workers of one machi"),
    (["compare", "--ways", "--full"], "--ways: cannot be combined with --workers, --replicas"),
    (["compare", "--ways", "--replicas", "2"], "--ways: cannot be combined with --workers"),
    (["compare", "--bogus"], "no such option: --bogus; see `fit-unfolded compare -h`."),
    (["train", "--implementation", "torch"], "--implementation: must be keras_fit or manual_loop"),
    (["train", "--save", "model.pt"], "--save: model.pt must end in .keras or .h5"),
    (["train", "--save", "{file}/m.h5"], "--save: cannot write to"),
    (["train", "--save", "{none}/m.h5"], "--save: the directory"),
    (["train", "--save", "{directory}"], "--save: {directory} is a directory"),
    (["train", "--backup", "b.h5"], "--backup: b.h5 must end in .npz"),
    (["bench", "digits", "--peers"], "--peers: measures models of its own; leave it or WORKLOAD"),
    (["bench", "{file}.py", "--quick"], "WORKLOAD: there is no file {file}.py"),
    (["explain", "{directory}/mine.py"], "WORKLOAD: there is no file {directory}/mine.py"),
    (["gap", "{file}.py"], "WORKLOAD: there is no file {file}.py"),
    (["gap", "--epoch", "0"], "--epoch: must be an integer of at least 1, not '0'"),
    (["gap", "--epoch", "11"], "--epoch: the workload trains epochs 1 to 10; use one of them, not"),
    (["gap", "--output", "{none}/out"], "--output: the directory {none} does not exist; create"),
    (["pitfalls", "no-grph"], "NAME: there is no pitfall 'no-grph'; did you mean no-graph"),
    (["pitfalls", "--output", "x"], "--output: only a single pitfall has a plot"),
    (["bench", "--quick", "--peers"], "--peers: not part of --quick"),
    (["bench", "--quick", "--submit"], "--submit: not part of --quick"),
    (["bench", "--submit", "--output", "x"], "--submit: has a directory of its own; leave it or"),
    (["fit"], "no such command 'fit'"),
    (["comp"], "no such command 'comp'. Did you mean 'compare'?"),
]


def test_invalid_arguments_are_one_line_before_tensorflow_is_imported(tmp_path):
    """All in one process, in which TensorFlow and Keras cannot be imported."""
    places = {name: tmp_path / name for name in ("file", "directory.h5", "none")}
    places["file"].write_text("text")
    places["directory.h5"].mkdir()
    names = {name.partition(".")[0]: path for name, path in places.items()}
    cases = [
        ([argument.format(**names) for argument in arguments], words.format(**names))
        for arguments, words in REFUSED_BEFORE_TENSORFLOW
    ]
    script = tmp_path / "script.py"
    script.write_text(
        "import contextlib, io, sys\n"
        "sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from fit_unfolded import cli\n"
        f"for arguments in {[arguments for arguments, _ in cases]!r}:\n"
        "    sys.argv = ['fit-unfolded', *arguments]\n"
        "    out, error = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):\n"
        "        try: cli.main()\n"
        "        except SystemExit as ended: status = ended.code\n"
        "    print(repr((status, out.getvalue(), error.getvalue())))\n"
    )
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for (arguments, words), line in zip(cases, lines, strict=True):
        status, page, error = eval(line)
        assert (status, page) == (2, ""), arguments
        assert error.startswith(f"error: {words}"), arguments
        assert error.count("\n") == 1, arguments
        assert error.endswith((".\n", "?\n")), arguments
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "mnist", "--data", "{file}"], "--data: {file} cannot be read as .npz"),
        (["train", "mnist", "--data", "{file}"], "--data: {file} cannot be read as .npz"),
        (["compare", "--memory-growth", "--device", "cpu"], "--memory-growth: applies to GPUs"),
        (["pitfalls", "no-graph", "--output", "{file}/out"], "--output: cannot write to"),
    ],
)
def test_a_command_that_fails_leaves_nothing_behind(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("text")
    status, page, error = run(*(argument.format(file=file) for argument in arguments))
    assert (status, page) == (2, "")
    assert error.startswith(f"error: {words.format(file=file)}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_gpu_that_is_not_there(run):
    gpus = len(keras.distribution.list_devices("gpu"))
    status, _, error = run("compare", "--device", f"gpu:{gpus}")
    assert status == 2
    assert error.startswith(f"error: --device: gpu:{gpus} is not available, TensorFlow sees ")


def test_fewer_gpus_than_replicas(run, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [f"{kind}:0"])
    status, _, error = run("compare", "--device", "gpu", "--replicas", "2")
    assert status == 2
    assert "--replicas: TensorFlow sees 1 of 2 GPUs from gpu:0 on; use fewer" in error


def test_former_names_work_with_a_warning(run, tmp_path):
    arguments = ["chapter", "--side", "keras_fit", "--epochs", "1", "--output", tmp_path / "new"]
    status, page, error = run("train", *arguments)
    assert status == 0
    assert page.startswith("lesson: ")
    assert sorted(error.splitlines()) == [
        "warning: the option --side is now called --implementation; the former name will be "
        "removed in the next version.",
        "warning: the workload 'chapter' is now called 'lesson'; the former name will be removed "
        "in the next version.",
    ]
    assert os.listdir(tmp_path / "new") == ["train.json"]


def test_workloads_are_listed(run):
    _, page, _ = run("workloads")
    assert [line.split()[0] for line in page.splitlines()] == workloads.names()


# A plain environment --------------------------------------------------------------------------


def test_explain_as_a_program_has_no_lines_of_tensorflow(program, tmp_path):
    done = program("explain", "lesson-onehot", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    assert all(re.fullmatch(PROGRESS_LINE, line) for line in done.stderr.splitlines()), done.stderr
    assert "EQUAL" in done.stdout
    assert "\x1b" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# Interruption ---------------------------------------------------------------------------------


def interrupted(command, until, tmp_path, **environment):
    """Starts a command, sends it SIGINT once it has written `until`; the seconds to its end."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=interruptible,
    )
    try:
        seen = ""
        deadline = time.monotonic() + 60
        while until not in seen and time.monotonic() < deadline:
            seen += process.stdout.read(1)
        assert until in seen
        time.sleep(0.3)  # until it is amid what comes next
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        seconds = time.monotonic() - begin
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert rest.endswith("interrupted\n")
    assert "Traceback" not in rest
    return seconds


@needs_signals
def test_control_c_amid_training(tmp_path):
    program = [sys.executable, "-m", "fit_unfolded", "compare", "lesson", "--epochs", "100000"]
    assert interrupted(program, "loss", tmp_path, FORCE_COLOR="1") < 2
    assert not list(tmp_path.iterdir())


@needs_signals
def test_control_c_amid_a_loop_that_never_returns(tmp_path):
    file = tmp_path / "endless.py"
    file.write_text(
        "import sys, time, keras\n"
        "COMPILE, FIT = {'loss': 'mse'}, {}\n"
        "def data():\n    return dict.fromkeys('xy', keras.ops.ones([4, 1]).numpy())\n"
        "def build():\n    return keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])\n"
        "def train(model):\n    print('begin', file=sys.stderr, flush=True)\n"
        "    while True:\n        time.sleep(0.1)\n"
    )
    program = [sys.executable, "-m", "fit_unfolded", "check", file]
    assert interrupted(program, "begin", tmp_path) < 2
    assert list(tmp_path.iterdir()) == [file]


@needs_signals
@pytest.mark.parametrize("package", ["typer", "tensorflow"])
def test_control_c_amid_an_import(tmp_path, package):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / f"{package}.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join([str(modules), *sys.path])
    program = [sys.executable, "-m", "fit_unfolded", "compare"]
    assert interrupted(program, "importing", tmp_path, PYTHONPATH=path) < 2
    assert list(tmp_path.iterdir()) == [modules]


@needs_signals
def test_control_c_amid_a_call_that_does_not_return(tmp_path):
    """As TensorFlow does, it lets other threads run and looks at no signal."""
    script = tmp_path / "script.py"
    script.write_text(
        "import hashlib\n"
        "from fit_unfolded.common.interruption import interruptible\n"
        "with interruptible():\n"
        "    print('begin', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    seconds = interrupted([sys.executable, script], "begin", tmp_path)
    assert 0.5 < seconds < 2


def test_nothing_of_the_interruption_stays():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    try:
        with cli.interruptible():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(descriptor) == descriptor
    finally:
        signal.signal(signal.SIGINT, before)
