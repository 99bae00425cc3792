"""Commands that a run tells its user, to be copied."""

import shlex
import sys
from pathlib import Path

from kfp_image_classification.components.deploy.endpoint import REQUEST_FILE, Endpoint


def serve_command(endpoint: Endpoint, model: Path, python: Path = Path(sys.executable)) -> str:
    """Serves the model again at the same address."""
    port = endpoint.url.rsplit(":", 1)[1]
    return (
        f"{shlex.quote(str(python))} -m kfp_image_classification.components.deploy.server --model_name={endpoint.name} "
        f"--model_dir={shlex.quote(str(model))} --host=127.0.0.1 --http_port={port}"
    )


def ask_command(endpoint: Endpoint, service: Path) -> str:
    """Asks the service about one image; waits for a service that is just starting."""
    host = f"-H {shlex.quote(f'Host: {endpoint.host}')} " if endpoint.host else ""
    return (
        f"curl -s --retry 60 --retry-connrefused --retry-delay 1 -H 'Content-Type: application/json' {host}"
        f"-d @{shlex.quote(str(service / REQUEST_FILE))} {endpoint.predict_url}"
    )


def tensorboard_command(logs: Path, python: Path = Path(sys.executable)) -> str:
    """Shows the learning curves of a run's models, live while they are trained."""
    return f"{shlex.quote(str(python))} -m tensorboard.main --logdir={shlex.quote(str(logs))}"
