"""What tests share: the digits as shards, one model that two real worker processes trained, and an MLflow server."""

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")

from components.dataset_manifest import Dataset
from components.ingest.options import IngestOptions
from components.stage_log import stage_log
from components.train.options import TrainingJob, TrainOptions

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def ingest_options() -> IngestOptions:
    return IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=2, seed=0)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, ingest_options: IngestOptions) -> Dataset:
    """The 5,000 digits as ingest writes them for two workers."""
    from components.ingest.sharding import write_dataset
    from components.ingest.sources import open_source

    directory = tmp_path_factory.mktemp("digits") / "shards"
    write_dataset(open_source(ingest_options), ingest_options, directory, stage_log("test"))
    return Dataset(directory)


@pytest.fixture(scope="session")
def train_options() -> TrainOptions:
    return TrainOptions(model_type="cnn", workers=2, epochs=3, batch_size=32, learning_rates="0:1e-3", seed=7)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset, train_options: TrainOptions) -> SimpleNamespace:
    """A model that two worker processes trained: `model` is its folder, `job` the job, `result` what the job told."""
    from components.train.run_job import run_job

    directory = tmp_path_factory.mktemp("trained")
    job = TrainingJob(options=train_options, dataset=str(digits.directory), directory=str(directory / "job"), run="r1")
    result = run_job(job, directory / "model", stage_log("test"))
    return SimpleNamespace(model=directory / "model", job=job, result=result)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port on which nobody listens."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def mlflow_server(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, started as `make mlflow` starts it."""
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the MLflow server (package mlflow) is not installed")
    directory = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = ["make", "-o", ".venv/installed", "mlflow", f"BIN={Path(sys.executable).parent}", f"MLFLOW_PORT={port}"]
    with (directory / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, f"MLFLOW_DIR={directory}"], cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_healthy(server, f"http://127.0.0.1:{port}/health", directory / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        processes = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # some end with the one before
                process.terminate()
        _, alive = psutil.wait_procs(processes, 10)
        for process in alive:
            process.kill()


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())
