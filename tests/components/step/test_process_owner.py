import os
import subprocess
import sys
import time

import psutil
import pytest
from skips import Need, skip_unless

CHILD = """
import time
from kfp_image_classification.components.step.process_owner import leave_with_owner
leave_with_owner()
print("up", flush=True)
time.sleep(60)
"""


def test_process_leaves_soon_after_its_owner_was_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], env={**os.environ, "RUN_OWNER_PID": str(owner.pid)}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert child.poll() is None
    owner.kill()
    owner.wait()
    assert child.wait(timeout=10) == 143


# A shell that is killed, around a process whose owner lives.
SHELL = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("outlives_parent", [False, True])
def test_process_whose_parent_was_killed(outlives_parent: bool) -> None:
    program = CHILD.replace("leave_with_owner()", f"leave_with_owner(outlives_parent={outlives_parent})")
    owner = {**os.environ, "RUN_OWNER_PID": str(os.getpid())}
    shell = subprocess.Popen([sys.executable, "-c", SHELL, program], env=owner, stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None
    child = psutil.Process(int(shell.stdout.readline()))
    shell.kill()
    shell.wait()
    assert gone(child) != outlives_parent
    if outlives_parent:
        child.kill()


def test_process_without_owner_stays() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RUN_OWNER_PID"}
    child = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(1.5)
    assert psutil.Process(child.pid).is_running()
    assert child.poll() is None
    child.kill()
    child.wait()


# `PyDLL` calls C without letting other threads of Python run, as TensorFlow does where it waits for a peer.
STUCK_CHILD = """
import ctypes
from kfp_image_classification.components.step.process_owner import leave_with_owner
leave_with_owner()
print("up", flush=True)
ctypes.PyDLL(None).sleep(60)
"""
OWNER = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], env={**os.environ, "RUN_OWNER_PID": str(os.getpid())}, stdout=subprocess.PIPE
)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@skip_unless(sys.platform == "linux", Need.SYSTEM, "only Linux tells a process of its parent's end")
def test_process_in_which_no_thread_can_run_ends_with_its_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, STUCK_CHILD], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    assert gone(child)


ORPHANED = """
import subprocess, sys, time
from kfp_image_classification.components.step.process_owner import adopt_orphans, end_all_below
adopt_orphans()
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); sys.exit()"
shown = subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, start_new_session=True)
shown.stdout.readline()
shown.wait()
end_all_below(0.5)
"""


@skip_unless(sys.platform == "linux", Need.SYSTEM, "only Linux lets a process adopt others")
def test_orphan_that_ignores_signals_is_ended() -> None:
    before = {process.pid for process in psutil.process_iter()}
    subprocess.run([sys.executable, "-c", ORPHANED], check=True, timeout=20)
    left = [process for process in psutil.process_iter() if process.pid not in before]
    assert not [process for process in left if "signal.SIG_IGN" in " ".join(process.cmdline())]


def gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
