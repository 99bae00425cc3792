"""Model servers of the tests' own, as the command starts them, and the command that asks them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import tenacity
from sharing import made_once

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.deploy.predict import main
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions

ModelServer = Callable[..., "RunningServer"]
BIRDS = ["blackbird", "house sparrow", "northern goshawk", *(f"bird number {number}" for number in range(9))]


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of colour images of 32 x 32, exported as a trained one is."""
    from kfp_image_classification.components.ingest.sharding import write_dataset
    from kfp_image_classification.components.train.worker.export import export_model
    from kfp_image_classification.components.train.worker.models import MODELS

    def make(directory: Path) -> Path:
        shape = (32, 32, 3)
        images = np.random.default_rng(1).integers(0, 256, (96, *shape), np.uint8)
        split = PixelExamples(images, np.arange(len(images), dtype=np.int32) % len(BIRDS))
        source = Source("birds", "1", BIRDS, shape, {"train": split, "test": split})
        ingest = IngestOptions(dataset="birds", validation_share=0.25, workers=1, seed=0)
        write_dataset(source, ingest, directory / "shards", stage_log("test"))
        options = TrainOptions(
            model_type="cnn_small", workers=1, epochs=1, batch_size=1, learning_rates="0:1e-3", seed=0
        )
        job = TrainingJob(options=options, dataset=str(directory / "shards"), directory=str(directory))
        untrained = MODELS[options.model_type](shape, len(BIRDS))
        export_model(untrained, job, Dataset(job.dataset), directory / "model")
        return directory / "model"

    return made_once("colour_model", tmp_path_factory, make)


class RunningServer:
    """A model server process.

    Attributes:
        url: Its base URL.
        predict_url: Of the V1 protocol.
        process: The process.
        log_file: What it prints.
    """

    def __init__(self, model: Path, log_file: Path, *options: str) -> None:
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.predict_url = f"{self.url}/v1/models/digits:predict"
        self.log_file = log_file
        command = [
            sys.executable,
            "-m",
            "kfp_image_classification.components.deploy.server",
            "--model_name=digits",
            f"--model_dir={model}",
        ]
        command += ["--host=127.0.0.1", f"--http_port={port}", "--drain_seconds=0"]
        grpc = [] if any(option.startswith("--grpc_port") for option in options) else ["--enable_grpc=false"]
        with log_file.open("wb") as output:
            self.process = subprocess.Popen([*command, *grpc, *options], stdout=output, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_until_ready(self) -> None:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(httpx.HTTPError),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(120),
        ):
            with attempt:
                assert self.process.poll() is None, self.log
                httpx.get(f"{self.url}/v2/health/ready").raise_for_status()

    def metric(self, line_start: str) -> float:
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(line_start):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """Starts a server of a model directory with options; all are stopped when the file's tests are done."""
    servers = []

    def start(model: Path, *options: str, wait: bool = True) -> RunningServer:
        server = RunningServer(model, tmp_path_factory.mktemp("server") / "server.log", *options)
        servers.append(server)
        if wait:
            server.wait_until_ready()
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs the command that asks a server: its exit `code`, and what it wrote, `out` and `err`."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return SimpleNamespace(code=code, out=printed.out, err=printed.err)

    return run
