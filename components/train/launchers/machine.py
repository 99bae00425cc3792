"""What the training jobs of one machine share: cores, ports, and the right to train in a folder.

Locks are `flock`s on open files. Workers inherit the files, so a lock is held until the last worker is gone, even when
the launcher was killed; and the kernel frees it then, so none is ever left over.
"""

import fcntl
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.launchers.lock_holders import Holder, holders

POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0
FOLDER_SECONDS = 30.0
# How long cores are waited for that nobody uses for training, as far as can be seen.
IDLE_SECONDS = 30.0
REMINDER_SECONDS = 600.0
# Below the range from which the kernel takes ports for outgoing connections: a worker binds its port only seconds
# after it was chosen, when TensorFlow is loaded.
PORTS = range(20_000, 32_768)

# The folder of the locks, where short-lived files of this process lie elsewhere than those of others.
LOCKS_VARIABLE = "TRAINING_LOCKS"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Cores:
    """Cores for the workers of a job, and the locks that keep other jobs from them.

    Attributes:
        numbers: As the kernel counts them; none on systems that cannot pin a process to a core.
        locks: To be held while the job runs.
    """

    numbers: list[int]
    locks: list[IO[str]]


def free_ports(count: int) -> list[int]:
    """Chooses ports that nobody listens on."""
    return list(islice(filter(_is_free, _shuffled(PORTS)), count))


def worker_ports(count: int) -> list[int]:
    """Chooses ports for workers: nobody listens on them, nor on the ones above, where workers sum."""
    pairs = _shuffled(PORTS[::2])
    return list(islice((port for port in pairs if _is_free(port) and _is_free(port + 1)), count))


def _shuffled(ports: range) -> list[int]:
    return random.SystemRandom().sample(ports, len(ports))


def lock_folder(folder: Path, tell: Tell) -> IO[str]:
    """Takes the right to train in a folder; ends workers whose launcher is gone, and waits a while for others.

    Args:
        folder: The job's.
        tell: Told about workers that were ended.

    Raises:
        StageFailed: When another launcher's workers keep it; names them.
    """
    path = folder / "lock"
    deadline, look_at = time.monotonic() + FOLDER_SECONDS, 0.0
    while (lock := _lock(path, str(folder))) is None:
        now = time.monotonic()
        if now >= min(look_at, deadline):
            look_at = now + LOOK_SECONDS
            found = holders(path)
            _end_left_over(found, tell)
            if now >= deadline:
                raise StageFailed(
                    f"{folder}: is trained in by another job: {_named(found)}; end it, or use another folder"
                )
        time.sleep(POLL_SECONDS)
    return lock


def lock_cores(count: int, job: str, tell: Tell) -> Cores:
    """Takes cores that no other training job uses; waits until there are enough.

    Workers that share a core keep their peers waiting in every step: two jobs at once took twice as long as one after
    the other. So a job that trains is waited for, however long it takes: it cannot hang, as its launcher sees to that.
    Nobody waits for others: workers whose launcher is gone are ended, and cores that something else holds, or a job
    that was stopped (Ctrl-Z), are shared after half a minute.

    Args:
        count: How many cores; where the machine has fewer, all of them.
        job: What the cores are for, to be shown to those who wait for them.
        tell: Told who has the cores, as soon as this has to wait and every ten minutes.
    """
    if not hasattr(os, "sched_getaffinity"):
        return Cores([], [])
    usable = sorted(os.sched_getaffinity(0))
    wanted = min(count, len(usable))
    idle_since, look_at, told_at = time.monotonic(), 0.0, -REMINDER_SECONDS
    while True:
        try:
            locks = _free_cores(usable, wanted, job)
        except OSError as error:
            tell(f"the cores of this machine cannot be shared out with other jobs: {error}")
            return Cores(usable[:wanted], [])
        if len(locks) == wanted:
            return Cores(list(locks), list(locks.values()))
        now = time.monotonic()
        if now >= look_at:
            look_at = now + LOOK_SECONDS
            found = [holder for core in usable if core not in locks for holder in holders(_core_lock(core))]
            _end_left_over(found, tell)
            if any(holder.trains for holder in found):
                idle_since = now
            if now - told_at >= REMINDER_SECONDS:
                tell(f"waiting for the cores that another training job uses: {_named(found)}")
                told_at = now
            if now - idle_since > IDLE_SECONDS:
                tell(f"no training job uses the cores that are locked ({_named(found)}): sharing them")
                others = [core for core in usable if core not in locks]
                return Cores([*locks, *others][:wanted], list(locks.values()))
        for lock in locks.values():
            lock.close()
        # Not in step with another that waits, or both would take half of the cores again and again.
        time.sleep(POLL_SECONDS * (1 + random.random()))


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Processes that this thread starts meanwhile run on these cores alone, from their first instruction on.

    Args:
        cores: Empty for all that there are.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_cores(usable: list[int], wanted: int, job: str) -> dict[int, IO[str]]:
    locks: dict[int, IO[str]] = {}
    for core in usable:
        if len(locks) < wanted and (lock := _lock(_core_lock(core), job)):
            locks[core] = lock
    return locks


def _named(found: list[Holder]) -> str:
    return "; ".join(dict.fromkeys(str(holder) for holder in found)) or "by a process that cannot be seen from here"


def _end_left_over(found: list[Holder], tell: Tell) -> None:
    for holder in found:
        if holder.is_left_over:
            tell(f"ending {holder}: its launcher is gone")
            holder.end()


def _core_lock(core: int) -> Path:
    # By number: a user of a container may have no name.
    folder = Path(os.environ.get(LOCKS_VARIABLE) or tempfile.gettempdir(), f"training-jobs-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"core-{core}.lock"


def _lock(path: Path, job: str) -> IO[str] | None:
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()} {job}\n")
    file.flush()
    return file


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
