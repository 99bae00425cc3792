"""Runs of `python pipelines/e2e.py --run`, in processes of their own."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from repository import REPOSITORY

from kfp_image_classification.components.train.launchers.machine import LOCKS_VARIABLE

SCRIPT = REPOSITORY / "pipelines" / "e2e.py"
QUICK = ["--models", "cnn", "cnn_dropout", "--epochs", "2", "--batch-size", "50", "--gate", "0.5"]
START_SECONDS = 200


def short_lived(directory: Path) -> Path:
    """Where the runs in a folder have their short-lived files."""
    return directory.with_name(f"{directory.name}-tmp")


def start(
    directory: Path, *options: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Starts a run in a folder; `before` is a program that starts it in its turn."""
    short_lived(directory).mkdir(exist_ok=True)
    return subprocess.Popen(
        [*before, sys.executable, SCRIPT, "--run", *QUICK, *options],
        cwd=directory,
        env={**(env or os.environ), "TMPDIR": str(short_lived(directory)), LOCKS_VARIABLE: tempfile.gettempdir()},
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


def assert_no_process_left(directory: Path) -> None:
    deadline = time.monotonic() + 5
    while left_over(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(directory) == []


def assert_nothing_left(directory: Path) -> None:
    """Of a run that was not killed: neither a process nor a short-lived file."""
    assert_no_process_left(directory)
    assert list(short_lived(directory).iterdir()) == []


def latest(directory: Path) -> Path:
    """The folder of the last run in a folder, for good: `runs/latest` points to another one after the next run."""
    return (directory / "runs" / "latest").resolve()
