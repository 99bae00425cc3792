"""A process that must not outlive the one that started it, however that one ended.

A signal handler cleans up after Ctrl-C, but nobody handles SIGKILL. So each process of a local run is told the id of
its owner and leaves by itself, within half a second, when the owner is gone.
"""

import os
import threading
import time
from collections.abc import Callable

import psutil

OWNER_VARIABLE = "RUN_OWNER_PID"
POLL_SECONDS = 0.5


def leave_with_owner(on_orphaned: Callable[[], None] | None = None) -> None:
    """Watches the process named in RUN_OWNER_PID from a daemon thread; does nothing when the variable is not set.

    Args:
        on_orphaned: Called once when the owner is gone; by default the process exits at once with code 143.
    """
    owner = os.environ.get(OWNER_VARIABLE)
    if owner is None:
        return
    leave = on_orphaned or (lambda: os._exit(143))
    try:
        process = psutil.Process(int(owner))
    except psutil.NoSuchProcess:
        leave()
        return

    def watch() -> None:
        while _lives(process):
            time.sleep(POLL_SECONDS)
        leave()

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return False
