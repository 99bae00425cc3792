"""What tests share: digits as shards, a model that two real workers trained, an S3 server and one of MLflow."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

import httpx
import psutil
import pytest
from kubernetes_api import KubernetesApi
from kubernetes_api.cluster import Cluster
from repository import REPOSITORY
from sharing import made_once, own_ports, pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401 - hooks
from skips import pytest_addoption, pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks

if TYPE_CHECKING:
    from api_server import RealKubernetesApi
    from kfp_api import KfpApi

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")

from kfp_image_classification.components.cluster.permissions import BY_BACKEND, needed
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.direct_network import exempt_from_proxies
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions

# `make test ARGS=...` hands its options on to every make that a test starts.
for variable in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "GNUMAKEFLAGS", "ARGS"):
    os.environ.pop(variable, None)
# The tests' own requests, to the servers that they start.
exempt_from_proxies(os.environ)

STEPS = ("train", "deploy", "select")


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """A step settles its environment for good; in a test it is that of all other tests."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def ingest_options() -> IngestOptions:
    return IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=2, seed=0)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, ingest_options: IngestOptions) -> Dataset:
    """The 5,000 digits as ingest writes them for two workers."""
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.ingest.sources.opening import open_source

    def make(directory: Path) -> Path:
        write_dataset(open_source(ingest_options), ingest_options, directory / "shards", stage_log("test"))
        return directory / "shards"

    return Dataset(made_once("digits", tmp_path_factory, make))


@pytest.fixture(scope="session")
def train_options() -> TrainOptions:
    return TrainOptions(model_type="cnn", workers=2, epochs=3, batch_size=32, learning_rates="0:1e-3", seed=7)


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """An S3 server that keeps its buckets in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_server(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its address, to which the environment leads."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    return s3_address


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset, train_options: TrainOptions) -> SimpleNamespace:
    """A model that two worker processes trained: `model` is its folder, `job` the job, `result` what the job told."""
    from kfp_image_classification.components.train.run_job import run_job

    def make(directory: Path) -> SimpleNamespace:
        job = TrainingJob(
            options=train_options, dataset=str(digits.directory), directory=str(directory / "job"), run="r1"
        )
        result = run_job(job, directory / "model", stage_log("test"))
        return SimpleNamespace(model=directory / "model", job=job, result=result)

    return made_once("trained", tmp_path_factory, make)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a cluster runs on our API server and on a real one, but those marked `fake_api`."""
    if "kubernetes_api" not in metafunc.fixturenames or metafunc.definition.get_closest_marker("fake_api"):
        return
    slow = [pytest.mark.slow] if metafunc.definition.get_closest_marker("slow_on_real_api") else []
    metafunc.parametrize("kubernetes_api", ["fake", pytest.param("real", marks=slow)], indirect=True)


@pytest.fixture(scope="session")
def real_kubernetes_api(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RealKubernetesApi]":
    """A real API server with `manifests/` applied; see `api_server`."""
    from api_server import running

    with running(tmp_path_factory.mktemp("api_server")) as api:
        yield api


@pytest.fixture
def kubernetes_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """An empty cluster's API, to which KUBECONFIG points, for subprocesses as well.

    Whatever a step's test asks of it, the Role in `manifests/` must allow.
    """
    is_real = getattr(request, "param", "fake") == "real"
    api = request.getfixturevalue("real_kubernetes_api") if is_real else KubernetesApi()
    monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield api
    if is_real:
        api.empty()
        return
    api.stop()
    if {*request.path.parts} & {*STEPS}:
        allowed = {(one.group, one.resource, verb) for one in needed(BY_BACKEND) for verb in one.verbs}
        assert api.rights_used() - allowed == set(), "not in components/cluster/permissions.py"


@pytest.fixture
def kfp_api(monkeypatch: pytest.MonkeyPatch) -> "Iterator[KfpApi]":
    """The API of an empty Kubeflow Pipelines."""
    from kfp_api import KfpApi

    for name in [name for name in os.environ if name.startswith("KF_PIPELINES_")]:
        monkeypatch.delenv(name)
    api = KfpApi()
    yield api
    api.stop()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs `pipelines/e2e.py` with some options: its exit `code`, and the lines of `out` and `err`."""

    from kfp_image_classification.pipelines.e2e import e2e
    from kfp_image_classification.pipelines.runner.command_line import main

    def run(*options: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["e2e.py", *options])
        with pytest.raises(SystemExit) as ended:
            main(e2e)
        printed = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=printed.out.splitlines(), err=printed.err.splitlines())

    return run


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port on which nobody listens."""

    return lambda: free_ports(1)[0]


@pytest.fixture(scope="session")
def mlflow_server(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, started as `make mlflow` starts it."""
    directory = tmp_path_factory.mktemp("mlflow") / "it's [a] #folder ?é"
    directory.mkdir()
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
