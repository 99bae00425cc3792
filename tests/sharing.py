"""How pytest-xdist's processes share the tests out, and what they make once for all of them. `make test` starts two."""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from xdist.scheduler import LoadScopeScheduling

from kfp_image_classification.components.train.launchers import machine

T = TypeVar("T")

WITH_A_RUN = ("endings", "environment_of_a_run", "live_view", "local_run", "report")

# Files whose tests talk to the same run, or the same MLflow server.
RUN = "a run"
TOGETHER = dict.fromkeys(
    [
        "tests/components/track/test_track.py",
        "tests/pipelines/test_tracked_run.py",
        *(f"tests/pipelines/runner/local/test_{name}.py" for name in WITH_A_RUN),
    ],
    RUN,
)
# What takes longest, so that no process is left alone with it in the end.
FIRST = (
    RUN,
    "tests/components/train/launchers/test_kubernetes_launcher.py",
    "tests/components/train/worker/test_faults.py",
    "tests/components/deploy/server/test_server_operation.py",
    "tests/components/deploy/kserve/test_rollout.py",
    "tests/components/train/worker/test_training.py",
    "tests/test_wheel.py",
    "tests/test_lint.py",
)


class Groups(LoadScopeScheduling):
    """A process runs a file's tests in a row, for the sake of its fixtures; the next process that is free, the next."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place_of(item.nodeid))


def group_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def place_of(nodeid: str) -> int:
    group = group_of(nodeid)
    return FIRST.index(group) if group in FIRST else len(FIRST)


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> None:
    """Two processes must not choose the same port before one of them listens there."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = len(machine.PORTS) // count // 2 * 2
    machine.PORTS = machine.PORTS[number * share : (number + 1) * share]


def made_once(name: str, tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], T]) -> T:
    """What the first of the processes makes in a folder; the others wait for it and take it over."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made"
        if not made.exists():
            folder.mkdir()
            made.write_bytes(pickle.dumps(make(folder)))
        result: T = pickle.loads(made.read_bytes())
        return result
