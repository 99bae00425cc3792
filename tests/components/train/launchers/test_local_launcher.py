import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from skips import Need, skip_unless

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers import Verdict
from kfp_image_classification.components.train.launchers.local import verdict
from kfp_image_classification.components.train.launchers.machine import free_ports, lock_cores, lock_folder
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


def test_bad_input_starts_no_worker(digits: Dataset, train_options: TrainOptions, tmp_path: Path) -> None:
    options = train_options.model_copy(update={"batch_size": 5000})
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    with pytest.raises(InvalidInput, match="batch_size = 5000"):
        run_job(job, tmp_path / "model", LOG)
    assert not (tmp_path / "job").exists()


def test_folder_is_locked_until_the_last_process_that_holds_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.machine.FOLDER_SECONDS", 0.3)
    lock = lock_folder(tmp_path)
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    lock.close()  # as if the launcher had been killed
    with pytest.raises(StageFailed, match="another launcher's workers train there"):
        lock_folder(tmp_path)
    worker.kill()
    worker.wait()
    lock_folder(tmp_path).close()


@skip_unless(hasattr(os, "sched_getaffinity"), Need.SYSTEM, "this system cannot pin processes to cores")
def test_jobs_wait_for_each_others_cores() -> None:
    everything = len(os.sched_getaffinity(0))
    held = lock_cores(everything, lambda: None)
    assert sorted(held) == sorted(os.sched_getaffinity(0))
    waiting = threading.Event()
    got: list[dict] = []
    other = threading.Thread(target=lambda: got.append(lock_cores(1, waiting.set)))
    other.start()
    assert waiting.wait(5)
    assert got == []
    for lock in held.values():
        lock.close()
    other.join(5)
    assert len(got[0]) == 1
    for lock in got[0].values():
        lock.close()


def test_ports_are_different() -> None:
    assert len(set(free_ports(50))) == 50
