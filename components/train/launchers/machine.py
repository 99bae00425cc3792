"""What the training jobs of one machine share: cores, ports, and the right to train in a folder.

Locks are `flock`s on open files. Workers inherit the files, so a lock is held until the last worker is gone, even when
the launcher was killed; and the kernel frees it then, so none is ever left over.
"""

import fcntl
import getpass
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kfp_image_classification.components.step.errors import StageFailed

POLL_SECONDS = 0.1
FOLDER_SECONDS = 30.0
# Below the range from which the kernel takes ports for outgoing connections: a worker binds its port only seconds
# after it was chosen, when TensorFlow is loaded.
PORTS = range(20_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Chooses ports that nobody listens on."""
    candidates = random.SystemRandom().sample(PORTS, len(PORTS))
    return [port for port, _ in zip(filter(_is_free, candidates), range(count), strict=False)]


def lock_folder(folder: Path) -> IO[str]:
    """Takes the right to train in a folder; waits a while for the workers of a launcher that was killed.

    Raises:
        StageFailed: When another launcher's workers keep it.
    """
    deadline = time.monotonic() + FOLDER_SECONDS
    while (lock := _lock(folder / "lock")) is None:
        if time.monotonic() > deadline:
            raise StageFailed(f"{folder}: another launcher's workers train there; end them, or use another folder")
        time.sleep(POLL_SECONDS)
    return lock


def lock_cores(count: int, on_waiting: Callable[[], None]) -> dict[int, IO[str]]:
    """Takes cores that no other training job uses; waits until there are enough.

    Workers that share a core keep their peers waiting in every step: two jobs at once took twice as long as one after
    the other.

    Args:
        count: How many cores; where the machine has fewer, all of them.
        on_waiting: Called once when there are not enough at first.

    Returns:
        Cores and their locks; empty on systems that cannot pin a process to a core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return {}
    usable = sorted(os.sched_getaffinity(0))
    told = False
    while True:
        locks: dict[int, IO[str]] = {}
        for core in usable:
            if len(locks) < count and (lock := _lock(_shared_folder() / f"core-{core}.lock")):
                locks[core] = lock
        if len(locks) == min(count, len(usable)):
            return locks
        for lock in locks.values():
            lock.close()
        if not told:
            on_waiting()
            told = True
        # Not in step with another that waits, or both would take half of the cores again and again.
        time.sleep(POLL_SECONDS * (1 + random.random()))


def _shared_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"training-jobs-{getpass.getuser()}")
    folder.mkdir(exist_ok=True)
    return folder


def _lock(path: Path) -> IO[str] | None:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
