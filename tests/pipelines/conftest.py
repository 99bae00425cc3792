"""What these tests share: a run that serves, one whose steps come from the first one's cache, and one that fails."""

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image
from real_run import START_SECONDS, assert_nothing_left, latest, read_until, start

# Processes that serve all tests.
LASTING: set[int] = set()


@pytest.fixture(autouse=True)
def nothing_survives_a_failure() -> Iterator[None]:
    """A run that a failed test left behind would hold the cores for which all later ones wait."""
    before = {*psutil.Process().children(recursive=True)}
    yield
    for process in {*psutil.Process().children(recursive=True)} - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            if not LASTING & {process.pid, *(parent.pid for parent in process.parents())}:
                process.kill()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A whole run with --serve, stopped by Ctrl-C in the end."""
    directory = tmp_path_factory.mktemp("run")
    process = start(directory, "--serve")
    LASTING.add(process.pid)
    shown = read_until(process, r"^\s*curl ")
    yield SimpleNamespace(directory=directory, process=process, shown=shown, run=latest(directory))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert_nothing_left(directory)


@pytest.fixture
def with_cache(served: SimpleNamespace, tmp_path: Path) -> Path:
    """A folder in which neither data set nor models need be made again."""
    shutil.copytree(served.directory / "runs" / ".cache", tmp_path / "runs" / ".cache")
    return tmp_path


@pytest.fixture(scope="session")
def cached(served: SimpleNamespace) -> SimpleNamespace:
    """The same run once more, with a gate that no model passes."""
    process = start(served.directory, "--gate", "0.999")
    shown, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, shown
    return SimpleNamespace(directory=served.directory, shown=shown, run=latest(served.directory))


@pytest.fixture(scope="session")
def unreadable_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, one of which is empty."""
    folder = tmp_path_factory.mktemp("failed") / "images"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(150):
            Image.new("RGB", (20, 20), (index, 0, 0)).save(folder / name / f"{index}.png")
    (folder / "dog" / "7.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def failed(unreadable_images: Path) -> SimpleNamespace:
    directory = unreadable_images.parent
    process = start(directory, "--dataset", f"image_folder:{unreadable_images}")
    shown, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 1, shown
    return SimpleNamespace(directory=directory, shown=shown, run=latest(directory))
