"""docs/running.md's recurring run, made by kfp's client against a server that keeps what it is sent."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from documentation.pages import REPOSITORY, blocks


class PipelinesApi(BaseHTTPRequestHandler):
    """As much of the API of Kubeflow Pipelines as the client asks for: one experiment, and recurring runs."""

    received: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._answer({"experiment_id": "e1", "display_name": "nightly", "multi_user": False})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/recurringruns"):
            self.received.append(body)
        self._answer({"recurring_run_id": "r1", "experiment_id": "e1", "display_name": body["display_name"]})

    def _answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server's address, and the recurring runs that it was sent."""
    handler = type("Handler", (PipelinesApi,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.received
        server.shutdown()


def test_recurring_run_is_made(received: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, runs = received
    (block,) = (block for block in blocks("python") if "create_recurring_run" in block.text)
    monkeypatch.chdir(REPOSITORY)
    exec(block.text.replace("http://localhost:8080", address), {})
    (run,) = runs
    assert run["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *"
    assert run["no_catchup"] is True
    assert int(run["max_concurrency"]) == 1
    assert run["runtime_config"]["parameters"] == {"dataset": "fashion_mnist", "service_name": "fashion"}
    spec = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
    assert spec["pipelineInfo"]["name"] == "image-classification"
