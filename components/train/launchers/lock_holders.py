"""Who holds a lock of this machine's training jobs: which process, for which job, and whether it still trains."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from kfp_image_classification.components.step.process_owner import owner_is_gone

WORKER_MODULE = "kfp_image_classification.components.train.worker"
COMMAND_LENGTH = 90


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        process: The process.
        job: What the lock is for, as the one who took it wrote down.
        is_left_over: Whether it is a worker whose launcher is gone.
        trains: Whether it is a launcher or a worker, and is not stopped.
    """

    process: psutil.Process
    job: str
    is_left_over: bool
    trains: bool

    def __str__(self) -> str:
        try:
            command = " ".join(self.process.cmdline())
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.process.create_time()))
            state = self.process.status()
        except psutil.Error:
            return f"process {self.process.pid}, which is about to end"
        shown = command if len(command) <= COMMAND_LENGTH else command[:COMMAND_LENGTH] + " ..."
        stopped = ", stopped" if state == psutil.STATUS_STOPPED else ""
        return (
            f"process {self.process.pid} ({shown}) since {since}{stopped}, for {self.job or 'a job that is not known'}"
        )

    def end(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.process.kill()
            self.process.wait(5)


def holders(path: Path) -> list[Holder]:
    """The processes that hold the lock on a file; none where the system does not tell, or not of other users'."""
    try:
        launcher, _, job = path.read_text(encoding="utf-8").strip().partition(" ")
    except OSError:
        return []
    found = []
    for process in psutil.process_iter():
        if _holds(process.pid, path):
            with contextlib.suppress(psutil.Error):
                found.append(_holder(process, job, is_launcher=str(process.pid) == launcher))
    return found


def _holder(process: psutil.Process, job: str, is_launcher: bool) -> Holder:
    is_worker = WORKER_MODULE in process.cmdline()
    is_left_over = is_worker and owner_is_gone(process.environ())
    stopped = process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    return Holder(process, job, is_left_over, trains=(is_worker or is_launcher) and not is_left_over and not stopped)


def _holds(pid: int, path: Path) -> bool:
    """Whether a process has the very opening of the file to which the lock belongs: others only look at it."""
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.readlink() == path.resolve():
                    info = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text(encoding="ascii")
                    if "FLOCK" in info:
                        return True
    except OSError:
        pass
    return False
