"""Several workers: what `clusters.py` saw in processes of its own; and the rendezvous alone."""

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cases import X, plain
from parity import covers, first_difference
from platforms import NO_FORK, interruptible, locked, needs_proc, needs_shebang
from rich.progress import Progress

import manual_loop
from fit_unfolded import cli
from fit_unfolded.common import launch as launch_module
from fit_unfolded.common.launch import cluster, free_addresses
from fit_unfolded.common.progress_bars import PROGRESS
from manual_loop.distribution.multi_worker import gone_from
from manual_loop.distribution.rendezvous import read_cluster, rendezvous
from manual_loop.saving.backup import Backup

SCRIPT = Path(__file__).parents[2] / "support" / "clusters.py"
LAUNCH = [sys.executable, "-m", "fit_unfolded", "launch", "--workers", "2"]
CASES = ["references", "compare", "two", "three", "die_chief", "die_worker", "resume", "fit"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "COLUMNS": "80"}
BOUND = 60  # seconds from the death of a worker to the error on the others
DIFFERENT = {
    "no seed": "without a seed draw different orders",
    "optimizers": "differ in optimizer: .*Adam.*worker 0.*SGD.*worker 1",
    "seeds": "differ in seed: 0 on worker 0, 1 on worker 1",
    "batch sizes": "differ in batch_size: 8 on worker 0, 9 on worker 1",
    "epochs": "differ in epochs: 1 on worker 0, 2 on worker 1",
    "data": "differ in data: .*checksum.*worker 0.*checksum.*worker 1",
    "methods": "differ in method: fit on worker 0, evaluate on worker 1",
    "predict": "differ in method: predict on worker 0, evaluate on worker 1",
    "steps": "differ in steps: 1 on worker 0, 2 on worker 1",
    "validation batches": "differ in validation_batch_size: 8 on worker 0, 9 on worker 1",
}


class AsEver(Exception):
    """Fit fails as it did in Keras 3.15.1."""


def run(folder):
    command = [sys.executable, SCRIPT, folder, *CASES]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    logs = [f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log"))]
    (folder / "all.txt").write_text("\n".join([done.stdout, done.stderr, *logs]))


def results(folder, case):
    return sorted(log.with_suffix(".pickle") for log in folder.glob(f"{case}-?.log"))


def read(file):
    return pickle.loads(file.read_bytes()) if file.exists() else None


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """dict: case -> list of what each worker found, None for one that was killed.

    Run once, also where several processes share the tests of this file.
    """
    if sys.platform != "linux":
        pytest.skip(NO_FORK)
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "clusters"
    with locked(shared / "clusters.lock"):
        if not folder.exists():
            folder.mkdir()
            run(folder)
    print((folder / "all.txt").read_text())  # pytest shows it where a test fails
    found = {case: [read(file) for file in results(folder, case)] for case in CASES}
    return found | {"page of compare": (folder / "compare-0.log").read_text()}


def apart(seen, other):
    """The largest difference of two trainings: of losses, metrics and variables."""
    pairs = [
        *zip(seen["history"].values(), other["history"].values(), strict=True),
        *zip(seen["weights"].values(), other["weights"].values(), strict=True),
    ]
    return max(np.max(np.abs(np.subtract(*pair))) for pair in pairs)


def without_calls(seen):
    """The logs of the callbacks that one worker has and another has not are no difference."""
    return {name: seen[name] for name in ("history", "weights", "optimizer variables")}


@covers("workers: all that a step does", promise="0 ULP between workers")
def test_workers_end_alike(found):
    for case in ("two", "three"):
        first, *others = found[case]
        for other in others:
            for name in {"trained", "plain", "blocks", "in order", "files of data"} & set(first):
                assert first_difference(first[name], other[name]) is None, (case, name)


@covers("workers: all that a step does", promise="0 ULP against fit on two replicas")
def test_two_workers_train_as_fit_on_two_replicas(found):
    """With Dropout, BatchNormalization, a partial batch, validation: every log and weight."""
    for seen in found["two"]:
        assert first_difference(seen["trained"], found["references"][0]["trained"]) is None


@covers("workers: against one device", promise="1e-6 after 9 steps of Adam")
@pytest.mark.parametrize(("case", "reference"), [("two", "plain"), ("three", "thirds")])
def test_workers_train_as_one_device(found, case, reference):
    assert apart(found[case][0]["plain"], found["references"][0][reference]) < 1e-6


@covers("workers: evaluate and predict", promise="0 ULP against fit on two replicas, rows in order")
def test_datasets_are_predicted_in_order(found):
    seen = found["two"][0]
    assert np.max(np.abs(seen["in order"] - seen["trained"]["predict"])) < 1e-6
    assert np.max(np.abs(np.subtract(*seen["files in order"]))) < 1e-6


@covers("workers: steps_per_execution", promise="0 ULP between blocks of any size")
def test_blocks_on_workers(found):
    for seen in found["two"]:
        a, b = (without_calls(seen[name]) for name in ("plain", "blocks"))
        assert first_difference(a, b) is None


@covers("workers: data shared out by files", promise="1e-6 against one device")
def test_each_worker_reads_its_own_files(found):
    first, second = found["two"]
    assert len(first["lines read"]) == len(second["lines read"]) == 8
    assert not first["lines read"] & second["lines read"]
    assert apart(first["files of data"], found["references"][0]["files of data"]) < 1e-6


@covers("workers: callbacks", promise="only the chief writes")
def test_only_the_chief_writes(found):
    chief, other = found["two"]
    assert chief["files"] == ["1.keras", "2.keras", "3.keras", "log.csv"]
    assert other["files"] == []


def test_workers_stop_at_the_same_time(found):
    for seen in found["two"]:
        assert len(seen["files of data"]["history"]["loss"]) == 2


@covers("workers: bad calls", promise="named at the start, on all workers")
@pytest.mark.parametrize("what", DIFFERENT)
def test_workers_that_were_told_different_things(found, what):
    for seen in found["two"]:
        assert re.search("[Ww]orkers " + DIFFERENT[what], seen[what])


@covers("workers: one dies", promise=f"a clear error on the others within {BOUND} s")
@pytest.mark.parametrize(("case", "dead", "alive"), [("die_worker", 1, 0), ("die_chief", 0, 1)])
def test_a_worker_that_dies_in_mid_epoch(found, case, dead, alive):
    assert found[case][dead] is None
    error = f"ConnectionError: worker {dead} is gone, and worker {alive} cannot go on"
    assert found[case][alive]["error"].startswith(error)
    assert "(TensorFlow: Collective ops is aborted by: " in found[case][alive]["error"]
    assert found[case][alive]["seconds"] < BOUND


def test_a_port_that_outlives_its_process_for_a_moment():
    addresses = free_addresses(2)
    host, port = addresses[1].split(":")
    with socket.create_server((host, int(port))) as server:
        timer = threading.Timer(0.5, server.close)
        timer.start()
        assert gone_from(read_cluster(cluster(addresses, 0))) == ["worker 1"]
        timer.join()


@covers("workers: one dies", promise="0 ULP: a restart ends with the weights of an undisturbed run")
def test_a_restart_goes_on_from_the_backup(found):
    for seen in found["resume"]:
        for name in ("weights", "optimizer variables", "epochs"):
            assert first_difference(seen[name], found["two"][0]["trained"][name]) is None
        assert seen["backup is left"] is False


@pytest.mark.xfail(raises=AsEver)
def test_fit_cannot_train_on_workers(found):
    """A pass here says that Keras has mended it: then hold the loop against fit in this, too."""
    errors = [seen.get("error", "") for seen in found["fit"]]
    if all("ValueError" in error and "PerReplica" in error for error in errors):
        raise AsEver(errors)
    assert errors == ["", ""]


# Before TensorFlow starts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{cluster", "TF_CONFIG is not JSON.*An example: {"),
        ("[1]", "must hold `cluster` and `task`"),
        (
            cluster(["a:1", "b:2"], 2),
            "`task` names worker 2, which is not in the cluster.*worker 1",
        ),
        ('{"cluster": {"worker": ["a:1"]}}', "`task` names None None"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "names ps 0"),
        (cluster(["a:1", "b"], 0), "the address of worker 1 must be host:port, not 'b'"),
        (cluster(["a:1", "b:99999"], 0), "the address of worker 1 must be host:port"),
        (cluster(["a:1", "a:1"], 0), "worker 0 and worker 1 have the same address"),
    ],
)
@covers("workers: TF_CONFIG", promise="one clear error for what cannot be used")
def test_an_unusable_tf_config(text, words):
    with pytest.raises(ValueError, match=words):
        read_cluster(text)


def test_a_tf_config_as_tensorflow_defines_it():
    text = (
        '{"cluster": {"worker": ["b:2"], "chief": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
    )
    found = read_cluster(text)
    assert found.addresses == {"chief 0": "a:1", "worker 0": "b:2"}
    assert (found.chief, found.is_chief, found.place) == ("chief 0", False, 1)
    assert read_cluster("{}") is None


def gather(*configurations, addresses=None, seconds=20):
    """The error of each worker in a rendezvous, as text, or None."""
    addresses = addresses or free_addresses(len(configurations))
    said = [None] * len(configurations)

    def worker(index):
        try:
            rendezvous(read_cluster(cluster(addresses, index)), configurations[index], seconds)
        except (ConnectionError, ValueError) as error:
            said[index] = str(error)

    threads = [
        threading.Thread(target=worker, args=[index])
        for index, its in enumerate(configurations)
        if its is not None
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_a_rendezvous():
    assert gather({"seed": 1}, {"seed": 1}, {"seed": 1}) == [None, None, None]


def test_workers_started_with_different_arguments():
    expected = "The workers differ in --seed: 1 on worker 0, 2 on worker 2. Start them all with the"
    for said in gather({"--seed": 1}, {"--seed": 1}, {"--seed": 2}):
        assert said.startswith(expected)


def test_a_worker_that_does_not_report():
    said, _, _ = gather({}, None, None, seconds=0.5)
    assert said.startswith("worker 1 and worker 2 did not report")


def test_a_chief_that_does_not_answer():
    _, said = gather(None, {}, seconds=0.5)
    assert said.startswith("worker 0, the chief, does not answer at 127.0.0.1:")


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use(index):
    addresses = free_addresses(2)
    host, port = addresses[index].split(":")
    configurations = [None, None]
    configurations[index] = {}
    with socket.create_server((host, int(port))):
        said = gather(*configurations, addresses=addresses)[index]
    assert said.startswith(f"TF_CONFIG: worker {index} cannot listen at {addresses[index]}")
    assert "Name a free port" in said


def test_another_process_at_the_port_of_the_chief():
    """Something else that connects to the chief's port is not a worker."""
    addresses = free_addresses(2)
    host, port = addresses[0].split(":")
    said = []
    chief = threading.Thread(target=lambda: said.extend(gather({}, None, addresses=addresses)))
    chief.start()
    with contextlib.closing(connect(host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert gather(None, {}, addresses=addresses) == [None, None]
        chief.join()
    assert said == [None, None]


def connect(host, port):
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port))
        time.sleep(0.01)
    raise AssertionError(f"nothing listens at {host}:{port}")


# The command line -----------------------------------------------------------------------------


def launch(folder, *arguments, **how):
    command = [*LAUNCH, "--logs", folder / "logs", "--", *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def children(process):
    """The processes that a process has started, by their numbers."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in found.split()]


def wait_for_children(process, count):
    for _ in range(600):
        if len(children(process)) == count:
            return children(process)
        time.sleep(0.05)
    raise AssertionError("the workers were not started")


def is_running(number):
    return Path(f"/proc/{number}").exists()


@covers("workers: compare --workers 2", promise="0 ULP against fit on two replicas")
def test_compare_with_workers(found):
    assert found["compare"][0]["status"] == 0
    names = ["compare.json", "compare.png", "worker-0.log", "worker-1.log"]
    assert found["compare"][0]["files"] == names
    page = found["page of compare"]
    assert "fit fails under several workers" in page
    assert "Worker 1 against worker 0: MATCH: 0 ULP" in page
    assert page.count("MATCH: 0 ULP apart") == 2
    assert max(map(len, page.splitlines())) <= 80


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """In the place of Python: workers that write a line each, and the chief its progress."""
    script = tmp_path / "stub"
    script.write_text(
        f"#!{sys.executable} -S\n"
        "import os\n"
        "print(os.environ['TF_CONFIG'])\n"
        f"if file := os.environ.get({PROGRESS!r}):\n"
        """    open(file, "a").write('{"completed": 1, "total": 2}\\n')\n"""
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@needs_shebang
def test_launch_gives_each_worker_a_place_and_a_log(stub, monkeypatch):
    shown = []
    monkeypatch.setattr(Progress, "update", lambda *_, **figures: shown.append(figures))
    assert launch_module.launch(["train"], 3, stub) == 0
    clusters = [read_cluster((stub / f"worker-{i}.log").read_text()) for i in range(3)]
    assert [found.place for found in clusters] == [0, 1, 2]
    assert len({tuple(found.addresses.values()) for found in clusters}) == 1
    assert shown == [{"completed": 1, "total": 2}]


@needs_proc
def test_launch_ends_all_when_one_dies(tmp_path):
    process = launch(tmp_path, "train", "digits-mlp")
    chief, other = wait_for_children(process, 2)
    os.kill(other, signal.SIGKILL)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.startswith("error: worker 1 ended with signal SIGKILL; see")
    assert not is_running(chief)


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_launch_ends_all_on_control_c(tmp_path, how):
    process = launch(tmp_path, "train", "digits-mlp", preexec_fn=interruptible)
    workers = wait_for_children(process, 2)
    process.send_signal(how)
    page, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert page == ""
    assert "Traceback" not in error
    assert not any(map(is_running, workers))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train", "digts"], 2, "did you mean digits"),
        (["compare", "digits"], 2, "launch: only `train` can be launched"),
        (["train", "--implementation", "keras_fit"], 2, "--implementation: Keras's own fit"),
    ],
)
def test_launch_shows_why_a_worker_failed(tmp_path, arguments, status, words):
    process = launch(tmp_path, *arguments)
    page, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert page == ""
    assert words in error


def test_train_with_an_unusable_tf_config(monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", "{cluster")
    monkeypatch.setattr(sys, "argv", ["fit-unfolded", "train", "digits-mlp"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: TF_CONFIG is not JSON")
    assert error.count("\n") == 1


def test_a_file_that_is_no_backup(tmp_path):
    trainer = manual_loop.Trainer(plain())
    trainer.compile("sgd", "mse")
    data = {"x": X, "y": X[:, :3], "verbose": 0}
    np.savez(tmp_path / "other.npz", epoch=1, weights=np.zeros(3))
    with pytest.raises(ValueError, match="is no backup"):
        trainer.fit(**data, callbacks=[Backup(tmp_path / "other.npz")])
