"""Deploys to a model server process on this machine."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import tenacity

from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.deploy.endpoint import REQUEST_FILE, Endpoint
from kfp_image_classification.components.deploy.options import LOOPBACK, DeployOptions
from kfp_image_classification.components.deploy.smoke import request_body, shown_example, smoke_predict
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.step.environment import own_environment
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.termination import Terminated, terminated_as_exception

START_SECONDS = 120.0
STOP_SECONDS = 10.0
LAST_LINES = 15


class _NotReady(Exception):
    pass


def deploy_locally(model_directory: Path, options: DeployOptions, directory: Path, log: logging.Logger) -> Endpoint:
    """Starts a model server and leaves it running once it has answered a smoke prediction.

    Args:
        model_directory: The model, with its numbered version folder.
        options: Name and port.
        directory: Folder to make for the server's log, an example request and the endpoint's description.
        log: Told what happens.

    Raises:
        StageFailed: When the server does not start or answers wrongly; no server is left then.
    """
    card = read_model_card(model_directory)
    directory.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOOPBACK}:{options.service_port or _any_port()}"
    log_file = directory / "server.log"
    with terminated_as_exception():
        server = _start(model_directory, options.service_name, url, log_file)
        try:
            log.info("model server %d is loading %s", server.pid, card.model_type)
            _wait_until_ready(server, f"{url}/v1/models/{options.service_name}", log_file)
            predictions = smoke_predict(f"{url}/v1/models/{options.service_name}:predict", card)
        except Terminated:
            stop_server(server.pid)
            raise StageFailed("told to end; the model server is stopped") from None
        except BaseException:
            stop_server(server.pid)
            raise
    shown = shown_example(card, [str(prediction["label"]) for prediction in predictions])
    (directory / REQUEST_FILE).write_text(json.dumps(request_body([card.examples[shown]])), encoding="utf-8")
    endpoint = Endpoint(
        name=options.service_name,
        url=url,
        model_directory=str(model_directory.absolute()),
        pid=server.pid,
        example_label=card.examples[shown].label,
        example_answer=predictions[shown]["label"],
        example_probability=max(predictions[shown]["probabilities"]),
    )
    endpoint.write(directory)
    log.info("serving at %s; smoke prediction of %d images answered right", endpoint.predict_url, len(predictions))
    return endpoint


def stop_server(pid: int) -> None:
    """Ends a model server, gently first. Does nothing when it is gone, or when the process is something else."""
    try:
        process = psutil.Process(pid)
        if "kfp_image_classification.components.deploy.server" not in process.cmdline():
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass


def _start(model_directory: Path, name: str, url: str, log_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kfp_image_classification.components.deploy.server", f"--model_name={name}"]
    command += [f"--model_dir={model_directory}", f"--host={LOOPBACK}", f"--http_port={url.rsplit(':', 1)[1]}"]
    # One process is enough to try a model, and the machine has other work.
    command += ["--enable_grpc=false", "--drain_seconds=0", "--workers=1"]
    with log_file.open("wb") as output:
        return subprocess.Popen(
            command,
            env=own_environment(os.environ, usable_cores()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((_NotReady, httpx.TransportError)),
        wait=tenacity.wait_fixed(0.2),
        stop=tenacity.stop_after_delay(START_SECONDS),
    )

    def ready() -> None:
        if server.poll() is not None:
            raise StageFailed(f"the model server exited with code {server.returncode}; its last lines:\n{tail()}")
        if client.get(url).status_code != httpx.codes.OK:
            raise _NotReady

    def tail() -> str:
        return "\n".join(
            f"  {line}" for line in log_file.read_text(errors="replace", encoding="utf-8").splitlines()[-LAST_LINES:]
        )

    with http_client(url, timeout=5) as client:
        try:
            waiting(ready)
        except tenacity.RetryError:
            raise StageFailed(
                f"the model server is not ready after {START_SECONDS:.0f} s; its last lines:\n{tail()}"
            ) from None


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
