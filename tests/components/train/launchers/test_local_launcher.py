import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from patched_workers import started_with
from skips import Need, skip_unless

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers import Verdict
from kfp_image_classification.components.train.launchers.local import verdict
from kfp_image_classification.components.train.launchers.machine import Cores, free_ports, lock_cores, lock_folder
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job

LOG = stage_log("test")


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [
        ([None, None], Verdict("running")),
        ([0, None], Verdict("running")),
        ([0, 0], Verdict("succeeded")),
        ([138, 2], Verdict("failed", "worker-1 exited with code 2")),
        ([None, 1], Verdict("failed", "worker-1 exited with code 1")),
        ([138, None], Verdict("failed", "worker-0 exited with code 138", retryable=True)),
        ([138, -9], Verdict("failed", "worker-1 was ended by signal 9", retryable=True)),
        ([0, -15], Verdict("failed", "worker-1 was ended by signal 15", retryable=True)),
        ([3, -9], Verdict("failed", "worker-0 exited with code 3")),
    ],
)
def test_verdict(exit_codes: list[int | None], expected: Verdict) -> None:
    assert verdict(exit_codes) == expected


def test_failed_worker_is_named_with_its_last_lines_and_nobody_is_left(
    digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> None:
    shutil.copytree(digits.directory, tmp_path / "shards")
    # The second worker's share: the first finds nothing wrong, and must be stopped all the same.
    shard = tmp_path / "shards" / digits.manifest.splits["train"].shards[1].file
    shard.write_bytes(shard.read_bytes()[:100])
    job = TrainingJob(options=train_options, dataset=str(tmp_path / "shards"), directory=str(tmp_path / "job"))
    with pytest.raises(StageFailed) as error:
        run_job(job, tmp_path / "model", LOG)
    first, *lines = str(error.value).splitlines()
    assert first == "worker-1 exited with code 2; its last lines:"
    assert any(f"{shard.name}: 100 bytes, the manifest says" in line for line in lines)
    assert not (tmp_path / "model").exists()
    left = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    assert not any("kfp_image_classification.components.train.worker" in process.cmdline() for process in left)


def test_folder_is_locked_until_the_last_process_that_holds_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.machine.FOLDER_SECONDS", 0.3)
    lock = lock_folder(tmp_path, LOG.info)
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    lock.close()  # as if the launcher had been killed
    with pytest.raises(StageFailed, match="is trained in by another job: process"):
        lock_folder(tmp_path, LOG.info)
    worker.kill()
    worker.wait()
    lock_folder(tmp_path, LOG.info).close()


@skip_unless(hasattr(os, "sched_getaffinity"), Need.SYSTEM, "this system cannot pin processes to cores")
def test_jobs_wait_for_each_others_cores() -> None:
    everything = len(os.sched_getaffinity(0))
    held = lock_cores(everything, "the first job", LOG.info)
    assert sorted(held.numbers) == sorted(os.sched_getaffinity(0))
    waiting = threading.Event()
    told: list[str] = []
    got: list[Cores] = []
    other = threading.Thread(
        target=lambda: got.append(lock_cores(1, "the second", lambda line: (told.append(line), waiting.set())))
    )
    other.start()
    assert waiting.wait(5)
    assert got == []
    for lock in held.locks:
        lock.close()
    other.join(5)
    assert len(got[0].numbers) == 1
    for lock in got[0].locks:
        lock.close()


def test_ports_are_different() -> None:
    assert len(set(free_ports(50))) == 50


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
file.truncate(0)
file.write(sys.argv[2].replace("PID", str(__import__("os").getpid())))
file.flush()
print("held", flush=True)
time.sleep(60)
"""
# What a worker's command line looks like, to those who only see it.
AS_WORKER = ["-m", "kfp_image_classification.components.train.worker"]


@contextlib.contextmanager
def holding(core: int, written: str, *arguments: str, owner: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds a core's lock."""
    path = Path(tempfile.gettempdir(), f"training-jobs-{os.getuid()}", f"core-{core}.lock")
    path.parent.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), written, *arguments],
        env={**os.environ, "RUN_OWNER_PID": owner},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """The only core that jobs may use, in a place where no other job looks for locks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.machine.IDLE_SECONDS", 1.0)
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.machine.LOOK_SECONDS", 0.2)
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    return core


def dead_process() -> str:
    process = subprocess.Popen(["true"])
    process.wait()
    return str(process.pid)


def test_job_that_trains_is_waited_for_and_named(core: int) -> None:
    told: list[str] = []
    with holding(core, "PID /runs/first/job") as holder:
        got: list[Cores] = []
        waiting = threading.Thread(target=lambda: got.append(lock_cores(1, "the second", told.append)))
        waiting.start()
        waiting.join(3)
        assert got == []
    waiting.join(5)
    assert got[0].numbers == [core]
    assert len(told) == 1
    assert told[0].startswith("waiting for the cores that another training job uses: process ")
    since = time.strftime("%Y-%m-%d %H:")
    assert f"process {holder.pid} ({sys.executable} -c" in told[0]
    assert f" since {since}" in told[0]
    assert told[0].endswith(", for /runs/first/job")
    got[0].locks[0].close()


def test_worker_whose_launcher_is_gone_is_ended(core: int) -> None:
    told: list[str] = []
    with holding(core, "1 /runs/first/job", *AS_WORKER, owner=dead_process()) as holder:
        cores = lock_cores(1, "the second", told.append)
        assert not psutil.pid_exists(holder.pid)
    assert cores.numbers == [core]
    assert len(cores.locks) == 1
    assert told[0].startswith(f"ending process {holder.pid} (")
    assert told[0].endswith("for /runs/first/job: its launcher is gone")
    cores.locks[0].close()


@pytest.mark.parametrize("stopped", [True, False], ids=["a job that was stopped", "something else"])
def test_cores_that_nobody_trains_on_are_shared(stopped: bool, core: int) -> None:
    told: list[str] = []
    with holding(core, "PID /runs/first/job" if stopped else "1 x") as holder:
        if stopped:
            holder.send_signal(signal.SIGSTOP)
        cores = lock_cores(1, "the second", told.append)
        assert holder.poll() is None
        holder.send_signal(signal.SIGCONT)
    assert cores.numbers == [core]
    assert cores.locks == []
    assert f"no training job uses the cores that are locked (process {holder.pid} (" in told[-1]
    assert (", stopped" in told[-1]) == stopped


def test_another_users_lock_does_not_matter(core: int, tmp_path: Path) -> None:
    (tmp_path / f"training-jobs-{os.getuid()}").write_text("no folder")
    told: list[str] = []
    assert lock_cores(1, "job", told.append).numbers == [core]
    assert told[0].startswith("the cores of this machine cannot be shared out with other jobs: ")


def test_workers_that_hang_before_they_have_met_are_ended_by_the_launcher(
    digits: Dataset, train_options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorFlow hangs where a proxy has no way to a peer: in C, so that no thread of Python runs."""
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.local.FIRST_MESSAGE_SECONDS", 1.0)
    started_with(
        tmp_path,
        monkeypatch,
        "import ctypes, socket, sys\n"
        "if 'kfp_image_classification.components.train.worker' in sys.orig_argv:\n"
        "    socket.socket.listen = lambda *_, **__: ctypes.PyDLL(None).sleep(600)\n",
    )
    options = train_options.model_copy(update={"peer_seconds": 2})
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    with pytest.raises(
        StageFailed, match="worker-0 hangs: no answer within peer_seconds = 2 from worker-0, worker-1, which run, but"
    ):
        run_job(job, tmp_path / "model", LOG)
    left = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    assert not any("kfp_image_classification.components.train.worker" in process.cmdline() for process in left)


def test_workers_reach_each_other_whatever_the_proxy_variables_say(
    digits: Dataset, train_options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    options = train_options.model_copy(update={"epochs": 1, "batch_size": 300, "peer_seconds": 20})
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    assert len(run_job(job, tmp_path / "model", LOG).history) == 1
