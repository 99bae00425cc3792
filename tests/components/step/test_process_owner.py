import os
import subprocess
import sys
import time

import psutil

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
