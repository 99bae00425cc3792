"""Runs of `python pipelines/e2e.py --run`, in processes of their own."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from repository import REPOSITORY

SCRIPT = REPOSITORY / "pipelines" / "e2e.py"
QUICK = ["--models", "cnn", "cnn_dropout", "--epochs", "2", "--batch-size", "50", "--gate", "0.5"]
START_SECONDS = 200


def start(
    directory: Path, *options: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Starts a run in a folder; `before` is a program that starts it in its turn."""
    return subprocess.Popen(
        [*before, sys.executable, SCRIPT, "--run", *QUICK, *options],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    shown = ""
    deadline = time.monotonic() + START_SECONDS
    for line in process.stdout:
        shown += line
        if re.search(pattern, line):
            return shown
        assert time.monotonic() < deadline, shown
    raise AssertionError(f"ended without {pattern!r}:\n{shown}")


def left_over(directory: Path) -> list[psutil.Process]:
    """Processes that any run in the folder started and that still live."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(directory) in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def assert_nothing_left(directory: Path) -> None:
    deadline = time.monotonic() + 5
    while left_over(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(directory) == []


def latest(directory: Path) -> Path:
    """The folder of the last run in a folder, for good: `runs/latest` points to another one after the next run."""
    return (directory / "runs" / "latest").resolve()
