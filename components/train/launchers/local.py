"""Runs the workers of a training job as processes of this machine."""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.environment import own_environment
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.process_owner import OWNER_VARIABLE
from kfp_image_classification.components.train.attempts import note_end
from kfp_image_classification.components.train.job_folder import claim_directory
from kfp_image_classification.components.train.launchers.base import Launcher, Verdict
from kfp_image_classification.components.train.launchers.chatter import is_chatter
from kfp_image_classification.components.train.launchers.gpus import (
    VISIBLE,
    check_devices,
    installed_gpus,
    plan,
    visible_gpus,
)
from kfp_image_classification.components.train.launchers.machine import lock_cores, lock_folder, on_cores, worker_ports
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.worker.worker_report import JoiningStage, WorkerReport
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

RETRYABLE_EXIT_CODE = 128
EVERY_CORE = sys.maxsize
LAST_LINES = 15
POLL_SECONDS = 0.1
# Between a worker's failure and stopping its peers: time for them to notice, and to say what they saw.
GRACE_SECONDS = 5.0
# Beside peer_seconds: for loading TensorFlow, on a busy machine, and for the first message between the workers.
START_SECONDS = 180.0
FIRST_MESSAGE_SECONDS = 20.0


@dataclass
class _Worker:
    index: int
    process: subprocess.Popen[str]
    reader: threading.Thread
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))


def verdict(exit_codes: Sequence[int | None]) -> Verdict:
    """Judges a job by its workers' exit codes: None while one runs, negative when a signal ended it.

    The worker that failed for a reason of its own is named, before those that only lost their peer.
    """
    failed = [(index, code) for index, code in enumerate(exit_codes) if code]
    if not failed:
        return Verdict("running" if None in exit_codes else "succeeded")
    permanent = [(index, code) for index, code in failed if 0 < code < RETRYABLE_EXIT_CODE]
    killed = [(index, code) for index, code in failed if code < 0]
    index, code = (permanent or killed or failed)[0]
    how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    return Verdict("failed", f"worker-{index} {how}", retryable=not permanent)


class LocalLauncher(Launcher):
    """Starts one process a worker, restarts all of them when one is lost, and leaves none behind.

    A lock in the job's folder, which the workers inherit, keeps a second launcher out until the last worker of the
    first is gone, even when the first was killed. Each worker has a core to itself where there are enough, and jobs
    wait for each other's cores: workers that share one keep their peers waiting in every step. Workers with GPUs have
    all cores of the machine between them.
    """

    def __init__(self, job: TrainingJob, log: logging.Logger) -> None:
        self._job = job
        self._log = log
        self._directory = Path(job.directory)
        # Workers end at once, with none of TensorFlow's destructors, and leave what these would remove.
        self._scratch = self._directory / "scratch"
        self._workers: list[_Worker] = []
        self._locks: list[IO[str]] = []
        self._gpus: list[str] = []
        self._lost_at = 0.0
        self._started = 0.0

    def submit(self) -> str:
        """Starts the workers, after those of a launcher that was killed are gone; they continue from its checkpoint.

        Raises:
            InvalidInput: When the job's folder holds another job's state, there is no TensorFlow here, or no GPU where
                one is asked for.
            StageFailed: When another launcher's workers hold the job's folder.
        """
        self._gpus = self._usable_gpus()
        self._directory.mkdir(parents=True, exist_ok=True)
        if importlib.util.find_spec("tensorflow") is None:
            raise InvalidInput(
                "backend = 'local': there is no TensorFlow here; on a cluster use tfjob or trainjob, whose workers "
                "have an image of their own"
            )
        claim_directory(self._job)
        self._start_workers()
        return self._directory.name

    def _usable_gpus(self) -> list[str]:
        devices = self._job.options.devices
        if devices == "cpu":
            return []
        installed = installed_gpus()
        gpus = visible_gpus(installed, os.environ)
        check_devices(devices, gpus, len(installed), os.environ)
        return gpus

    def wait(self) -> Verdict:
        restarts = 0
        while True:
            result = self._wait_for_workers()
            if result.state == "succeeded":
                return result
            tail = self._last_lines(result)
            self.cancel()
            note_end(self._directory, result.reason)
            if not result.retryable or restarts >= self._job.options.max_restarts:
                return Verdict("failed", f"{result.reason}; its last lines:\n{tail}", result.retryable)
            restarts += 1
            self._lost_at = time.monotonic()
            self._log.info(
                "%s; restart %d of %d from the last checkpoint", result.reason, restarts, self._job.options.max_restarts
            )
            self._start_workers()

    def cancel(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.reader.join()
        self._workers = []
        if self._locks:
            shutil.rmtree(self._scratch, ignore_errors=True)
        for lock in self._locks:
            lock.close()
        self._locks = []

    def _wait_for_workers(self) -> Verdict:
        failed_since: float | None = None
        while True:
            codes = [worker.process.poll() for worker in self._workers]
            result = verdict(codes)
            if result.state == "running":
                result = self._judged_by_signs(result)
                failed_since = 0.0 if result.state == "failed" else None  # those that hang have had their time
            if result.state == "failed":
                failed_since = time.monotonic() if failed_since is None else failed_since
                if None in codes and time.monotonic() - failed_since < GRACE_SECONDS:
                    time.sleep(POLL_SECONDS)
                    continue
            if result.state != "running":
                for worker in self._workers:
                    # They have had their time: one that hangs, or is stopped, does not answer a gentler signal either.
                    worker.process.kill()
                for worker in self._workers:
                    worker.process.wait()
                    worker.reader.join()
                return result
            time.sleep(POLL_SECONDS)

    def _judged_by_signs(self, running: Verdict) -> Verdict:
        """Fails a job whose workers do not come together, and do not notice: TensorFlow may let none of them run on."""
        if not self._started:
            return running
        workers = range(self._job.options.workers)
        joining, joined = ({index: self._signed(index, stage) for index in workers} for stage in ("joining", "joined"))
        if all(joined.values()):
            self._started = 0.0
            return running
        peer_seconds = self._job.options.peer_seconds
        deadline = self._started + START_SECONDS + peer_seconds
        if all(joining.values()):
            deadline = min(deadline, max(joining.values()) + peer_seconds + FIRST_MESSAGE_SECONDS)
        if time.time() < deadline:
            return running
        missing = [index for index in workers if not joined[index]]
        names = ", ".join(f"worker-{index}" for index in missing)
        return Verdict(
            "failed",
            f"worker-{missing[0]} hangs: no answer within peer_seconds = {peer_seconds} from {names}, which run, but "
            "have not joined each other",
        )

    def _signed(self, index: int, stage: JoiningStage) -> float:
        try:
            return WorkerReport.sign(self._job.directory, index, stage).stat().st_mtime
        except OSError:
            return 0.0

    def _last_lines(self, result: Verdict) -> str:
        worker = next(worker for worker in self._workers if result.reason.startswith(f"worker-{worker.index} "))
        return "\n".join(f"  {line}" for line in worker.last_lines)

    def _start_workers(self) -> None:
        count = self._job.options.workers
        self._locks = [lock_folder(self._directory, self._log.info)]
        cores = lock_cores(EVERY_CORE if self._gpus else count, str(self._directory), self._log.info)
        self._locks += cores.locks
        shares = plan(count, self._gpus, cores.numbers)
        self._log.info("devices = %s: %s", self._job.options.devices, shares.words)
        job = self._job.model_copy(update={"gpus": 1 if self._gpus else 0, "shares_gpu": shares.shared})
        if not self._gpus:
            job = job.model_copy(update={"options": job.options.model_copy(update={"devices": "cpu"})})
        for index in range(count):
            for stage in ("joining", "joined"):
                WorkerReport.sign(self._job.directory, index, stage).unlink(missing_ok=True)
        self._started = time.time()
        addresses = [f"127.0.0.1:{port}" for port in worker_ports(count)]
        logs = self._directory / "logs"
        logs.mkdir(exist_ok=True)
        self._scratch.mkdir(exist_ok=True)
        for index in range(count):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            with on_cores(shares.cores[index] if shares.cores else ()):
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "kfp_image_classification.components.train.worker",
                        "--job",
                        job.model_dump_json(),
                    ],
                    env={
                        **WORKER_ENVIRONMENT,
                        **own_environment(os.environ, usable_cores()),
                        **({VISIBLE: shares.gpus[index]} if shares.gpus else {}),
                        "TF_CONFIG": json.dumps(config),
                        OWNER_VARIABLE: str(os.getpid()),
                        "TMPDIR": str(self._scratch),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    pass_fds=[lock.fileno() for lock in self._locks],
                    encoding="utf-8",
                )
            lines: deque[str] = deque(maxlen=LAST_LINES)
            reader = threading.Thread(
                target=self._pass_on, args=(index, process, lines, logs / f"worker-{index}.log"), daemon=True
            )
            reader.start()
            self._workers.append(_Worker(index, process, reader, lines))

    def _pass_on(self, index: int, process: subprocess.Popen[str], last_lines: deque[str], path: Path) -> None:
        assert process.stdout is not None
        with path.open("a", encoding="utf-8") as file:
            for line in _lines(process.stdout):
                file.write(line + "\n")
                file.flush()
                if not is_chatter(line):
                    last_lines.append(line)
                    self._log.info("worker-%d | %s", index, line)
                if index == 0 and self._lost_at and line.startswith("resumed after step"):
                    self._log.info("back in training %.1f s after the loss", time.monotonic() - self._lost_at)


def _lines(stream: IO[str]) -> Iterator[str]:
    for line in stream:
        if line.strip():
            yield line.rstrip()
