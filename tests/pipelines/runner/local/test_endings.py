"""However a run ends, and whichever of its processes is ended, nothing of it is left."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from real_run import read_until, short_lived, start

TRAINING = r"worker-0 \| worker 0 of 2"
TRAINED = r"epoch +2/"
DEPLOYING = r"model server \d+ is loading"
SERVING = r"^\s*curl "


def processes_in(directory: Path) -> list[psutil.Process]:
    """All that a run started, wherever its files lie: they are in the folder in which it was started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(directory):
                found.append(process)
    return found


def assert_nothing_left(directory: Path, files: bool = True) -> None:
    deadline = time.monotonic() + 5
    while processes_in(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(directory) == []
    if files:
        assert list(short_lived(directory).iterdir()) == []


def begin(directory: Path, moment: str) -> subprocess.Popen[str]:
    lasting = moment in (TRAINING, TRAINED)
    options = ["--epochs", "500"] if lasting else ["--serve"]
    process = start(directory, "--models", "cnn", *options)
    read_until(process, moment)
    assert len(processes_in(directory)) > 1
    return process


def case(number: signal.Signals, whole_group: bool, moment: str, slow: bool = True) -> object:
    names = {TRAINING: "before training", TRAINED: "training", DEPLOYING: "deploying", SERVING: "serving"}
    told = f"{number.name} to {'the group' if whole_group else 'the run'} while {names[moment]}"
    return pytest.param(number, whole_group, moment, id=told, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("number", "whole_group", "moment"),
    [
        case(signal.SIGTERM, True, TRAINED, slow=False),
        case(signal.SIGTERM, True, TRAINING),
        case(signal.SIGTERM, True, DEPLOYING),
        case(signal.SIGTERM, True, SERVING),
        case(signal.SIGTERM, False, TRAINED),
        case(signal.SIGINT, True, TRAINED),
        case(signal.SIGHUP, True, TRAINED),
        case(signal.SIGHUP, False, TRAINED),
        case(signal.SIGHUP, False, SERVING),
        case(signal.SIGQUIT, True, TRAINED),
        case(signal.SIGKILL, True, TRAINED),
        case(signal.SIGKILL, True, DEPLOYING),
        case(signal.SIGKILL, False, TRAINED),
        case(signal.SIGKILL, False, SERVING),
    ],
)
def test_nothing_is_left(number: signal.Signals, whole_group: bool, moment: str, with_cache: Path) -> None:
    process = begin(with_cache, moment)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), shown
    assert_nothing_left(with_cache, files=number != signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "program"),
    [
        pytest.param(signal.SIGKILL, "executor_main", id="step killed", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "executor_main", id="step told to end", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "sh", id="shell around the step killed", marks=pytest.mark.slow),
    ],
)
def test_run_whose_step_is_ended_fails_and_leaves_nothing(
    number: signal.Signals, program: str, with_cache: Path
) -> None:
    process = begin(with_cache, TRAINED)
    steps = [child for child in psutil.Process(process.pid).children(recursive=True) if "train" in child.cmdline()]
    step = next(step for step in steps if (program == "sh") == (Path(step.cmdline()[0]).name == "sh"))
    step.send_signal(number)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 1, shown
    assert "train cnn failed" in shown
    assert_nothing_left(with_cache)


@pytest.mark.slow
def test_run_under_nohup_outlives_its_terminal(with_cache: Path) -> None:
    process = start(with_cache, "--models", "cnn", "--epochs", "500", before=["nohup"])
    read_until(process, TRAINING)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert_nothing_left(with_cache)
