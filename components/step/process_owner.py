"""A process that must not outlive the one that started it, however that one ended.

A signal handler cleans up after Ctrl-C, but nobody handles SIGKILL. So each process of a local run is told the id of
its owner and leaves by itself, within half a second, when the owner is gone. A process that its owner started itself is
ended by the kernel as well: TensorFlow may wait for a peer and let no thread of Python run meanwhile.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

import psutil

OWNER_VARIABLE = "RUN_OWNER_PID"
POLL_SECONDS = 0.5
# From <sys/prctl.h>.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def leave_with_owner(on_orphaned: Callable[[], None] | None = None, outlives_parent: bool = False) -> None:
    """Watches the process named in RUN_OWNER_PID from a daemon thread; does nothing when the variable is not set.

    Args:
        on_orphaned: Called once when the owner is gone; by default the process exits at once with code 143.
        outlives_parent: Whether the process stays when its parent is gone: another than the owner, as a step's shell.
    """
    owner = os.environ.get(OWNER_VARIABLE)
    if owner is None:
        return
    leave, parent = on_orphaned or (lambda: os._exit(143)), os.getppid()
    if on_orphaned is None and int(owner) == parent:
        # It comes when the thread that started this process ends, which in an owner waits for it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        process = psutil.Process(int(owner))
    except psutil.NoSuchProcess:
        leave()
        return

    def watch() -> None:
        while _lives(process) and (outlives_parent or os.getppid() == parent):
            time.sleep(POLL_SECONDS)
        leave()

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return False


def owner_is_gone(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment has outlived its owner; not if it never had one."""
    owner = environment.get(OWNER_VARIABLE, "")
    try:
        return bool(owner) and not _lives(psutil.Process(int(owner)))
    except (psutil.NoSuchProcess, ValueError):
        return True


def adopt_orphans() -> None:
    """Makes this process the parent of every process below it whose own parent ends, so that it can find them.

    Only Linux can; elsewhere such a process still leaves by itself.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_all_below(seconds: float) -> None:
    """Ends every process below this one, gently first, and those that they start meanwhile.

    Args:
        seconds: How long they may take to leave by themselves.
    """
    deadline = time.monotonic() + seconds
    told: set[psutil.Process] = set()
    while processes := [process for process in psutil.Process().children(recursive=True) if _lives(process)]:
        late = time.monotonic() > deadline
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if late:
                    process.kill()
                elif process not in told:
                    process.terminate()
        told.update(processes)
        psutil.wait_procs(processes, 0.1)
        if time.monotonic() > deadline + seconds:
            return


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
