"""A server that is measured: what it serves, and its process from start to end."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.train.launchers.machine import on_cores

NAME = "digits"
START_SECONDS = 120
STOP_SECONDS = 40
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def make_model(folder: Path) -> Path:
    """An untrained `cnn` of 28 x 28 grey images, exported as training exports it."""
    code = "import sys; from benchmarks.serve.model import export; export(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder / "model")], check=True, env={**os.environ, **QUIET})
    return folder / "model"


def our_command(model: Path, port: int, *options: str) -> list[str]:
    """Starts our model server, for REST alone."""
    command = [sys.executable, "-m", "kfp_image_classification.components.deploy.server", f"--model_name={NAME}"]
    command += [f"--model_dir={model}", "--host=127.0.0.1", f"--http_port={port}", "--enable_grpc=false"]
    return [*command, "--drain_seconds=0", *options]


@contextmanager
def running(
    command: Sequence[str], ready: str, environment: dict[str, str] | None = None, cores: Sequence[int] = ()
) -> "Iterator[subprocess.Popen[bytes]]":
    """A server's process, on some cores or all, from when the URL `ready` answers 200 until it has ended.

    Raises:
        RuntimeError: When it does not start, or whoever uses it raises one; with the end of what the server printed.
    """
    with tempfile.TemporaryFile() as log:
        with on_cores(cores):
            process = subprocess.Popen(
                command, env={**os.environ, **QUIET, **(environment or {})}, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            until = time.monotonic() + START_SECONDS
            while not _is_ready(ready):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the server does not start")
                time.sleep(0.05)
            yield process
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read().decode(errors='replace')[-2000:]}") from None
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def _is_ready(url: str) -> bool:
    try:
        with http_client(url, timeout=5) as client:
            return client.get(url).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
