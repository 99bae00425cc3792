"""How a model server lives: reload, fallback, overload, rolling restart, payload log."""

import base64
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import pytest

from kfp_image_classification.components.contracts.model_card import MODEL_CARD, ONNX_MODEL, read_model_card
from kfp_image_classification.components.train.launchers.machine import free_ports

DIGITS = np.random.default_rng(3).integers(0, 256, (2, 28, 28, 1), np.uint8)
BODY = {"instances": DIGITS.tolist()}


@pytest.fixture
def model(trained: SimpleNamespace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.model, tmp_path / "model"))


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def version(url: str) -> str:
    return str(httpx.get(f"{url}/v2/models/digits").json()["versions"][0])


def add_version(model: Path, name: str, damaged: bool = False) -> None:
    partial = Path(shutil.copytree(model / "1", model / f"{name}.partial"))
    if damaged:
        (partial / MODEL_CARD).write_text("damaged")
    partial.rename(model / name)


@contextmanager
def load(ask: Callable[[httpx.Client], int], clients: int = 4) -> Iterator[list[int]]:
    """Asks without a pause, from several clients, while the block runs; gathers the status codes."""
    statuses: list[int] = []
    done = threading.Event()

    def client() -> None:
        with httpx.Client() as http:
            while not done.is_set():
                statuses.append(ask(http))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            yield statuses
        finally:
            done.set()
        for one in running:
            one.result()


def test_versions_come_and_go_without_a_failed_request(start_server, model: Path) -> None:
    server = start_server(model, "--reload_seconds=0.1")
    with load(lambda http: http.post(server.predict_url, json=BODY).status_code) as statuses:
        add_version(model, "2")
        eventually(lambda: version(server.url) == "2")
        add_version(model, "3", damaged=True)
        eventually(lambda: "version 2 goes on serving" in server.log)
        add_version(model, "10")  # by number, not by name
        eventually(lambda: version(server.url) == "10")
        for name in ("10", "3"):
            shutil.rmtree(model / name)
        eventually(lambda: version(server.url) == "2")
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_restart_serves_what_a_running_server_would_serve(start_server, model: Path) -> None:
    """The highest version that can be loaded, in the beginning as later."""
    running = start_server(model, "--reload_seconds=0.1")
    add_version(model, "2")
    eventually(lambda: version(running.url) == "2")
    for name in ("3", "4"):
        add_version(model, name, damaged=True)
    eventually(lambda: "model.json" in running.log and running.log.count("version 2 goes on serving") == 2)
    restarted = start_server(model, "--reload_seconds=0.1")
    for server in (running, restarted):
        assert version(server.url) == "2"
        index = httpx.get(f"{server.url}/v2/repository/index").json()
        assert [(entry["version"], entry["state"]) for entry in index] == [
            ("4", "UNAVAILABLE"),
            ("3", "UNAVAILABLE"),
            ("2", "READY"),
            ("1", "UNAVAILABLE"),
        ]
        assert "no readable assets.extra/model.json" in index[0]["reason"]
        assert index[3]["reason"] == "version 2 is served"
    assert restarted.log.count("looking for a lower one") == 2
    add_version(model, "5")
    eventually(lambda: version(restarted.url) == "5")
    # A damaged one and a whole one at once: the whole one is not passed over.
    add_version(model, "6")
    add_version(model, "7", damaged=True)
    eventually(lambda: {version(server.url) for server in (running, restarted)} == {"6"})


@pytest.mark.parametrize("harm", ["empty", "a file", "no graph", "an example that is no image"])
def test_version_of_any_damage_is_passed_over_at_the_start(start_server, model: Path, harm: str) -> None:
    newest = model / "9"
    if harm == "empty":
        newest.mkdir()
    elif harm == "a file":
        newest.write_text("")
    else:
        shutil.copytree(model / "1", newest)
        card = json.loads((newest / MODEL_CARD).read_text())
        if harm == "no graph":
            (newest / ONNX_MODEL).unlink()
            (newest / "saved_model.pb").unlink()
        else:
            card["examples"][0]["png"] = base64.b64encode(b"no image").decode()
        (newest / MODEL_CARD).write_text(json.dumps(card))
    server = start_server(model)
    assert version(server.url) == "1"
    assert httpx.post(server.predict_url, json=BODY).status_code == 200
    assert [entry["state"] for entry in httpx.get(f"{server.url}/v2/repository/index").json()] == [
        "UNAVAILABLE",
        "READY",
    ]
    assert server.log.count("looking for a lower one") == 1


def test_no_version_that_can_be_loaded(start_server, model: Path) -> None:
    add_version(model, "2", damaged=True)
    (model / "1" / MODEL_CARD).write_text("damaged")
    server = start_server(model, wait=False)
    assert server.process.wait(30) == 1
    assert "Traceback" not in server.log
    for folder in ("1", "2"):
        assert f"{model / folder}" in server.log[server.log.index("error: ") :]


@pytest.mark.parametrize("host", ["::", "[::]", "::1", "127.0.0.1", "localhost"])
def test_rest_and_grpc_listen_at_the_same_address(start_server, trained: SimpleNamespace, host: str) -> None:
    port, grpc_port = free_ports(2)
    server = start_server(
        trained.model, f"--host={host}", f"--http_port={port}", f"--grpc_port={grpc_port}", wait=False
    )
    asked = {"::": ["127.0.0.1", "[::1]"], "::1": ["[::1]"]}.get(host.strip("[]"), ["127.0.0.1"])
    for address in asked:
        server.url = f"http://{address}:{port}"
        server.wait_until_ready()
        with grpc.insecure_channel(f"{address}:{grpc_port}") as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=20, wait_for_ready=True) == b"\x08\x01"
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "its checksum differs"),
    ],
    ids=["missing", "cut off"],
)
def test_damaged_onnx_file_is_not_served(
    start_server, model: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(model / "1" / ONNX_MODEL)
    refused = start_server(model, "--backend=onnx", wait=False)
    assert refused.process.wait(30) == 1
    assert reason in refused.log


def test_tensorflow_serves_what_onnx_cannot(start_server, model: Path) -> None:
    (model / "1" / ONNX_MODEL).unlink()
    server = start_server(model)
    assert "TensorFlow serves it instead" in server.log
    assert httpx.post(server.predict_url, json=BODY).status_code == 200


def test_onnx_that_answers_otherwise_than_the_trained_model_is_not_served(start_server, model: Path) -> None:
    card = json.loads((model / "1" / MODEL_CARD).read_text())
    card["examples"][0]["logits"][0] += 0.01
    (model / "1" / MODEL_CARD).write_text(json.dumps(card))
    refused = start_server(model, "--backend=onnx", wait=False)
    assert refused.process.wait(30) == 1
    assert "answers otherwise" in refused.log


def without_onnx(model: Path) -> None:
    card = json.loads((model / "1" / MODEL_CARD).read_text())
    (model / "1" / MODEL_CARD).write_text(json.dumps({**card, "onnx_sha256": ""}))


def other_answers(model: Path) -> None:
    card = json.loads((model / "1" / MODEL_CARD).read_text())
    card["examples"][0]["logits"][0] += 0.01
    (model / "1" / MODEL_CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (without_onnx, [], "the model was exported without ONNX"),
        (lambda model: (model / "1" / ONNX_MODEL).unlink(), [], "cannot be read"),
        (other_answers, [], "answers otherwise than the trained model did"),
        (lambda model: None, ["--backend=tensorflow"], "backend = 'tensorflow'"),
    ],
    ids=["exported without", "missing", "other answers", "asked for"],
)
def test_without_tensorflow_the_image_that_has_it_is_named(
    start_server,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    options: list[str],
    reason: str,
) -> None:
    """As in the image python-server."""
    (tmp_path / "lean").mkdir()
    (tmp_path / "lean" / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lean"))
    change(model)
    refused = start_server(model, *options, wait=False)
    assert refused.process.wait(30) == 1
    assert "Traceback" not in refused.log
    error = refused.log.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert (
        "Use the image python-server-tensorflow, on a cluster by runtime = 'image-classification-tensorflow'" in error
    )


def test_overload_is_told_at_once(start_server, trained: SimpleNamespace) -> None:
    server = start_server(trained.model, "--max_queue=2", "--max_batch_size=1")
    many = {"instances": np.repeat(DIGITS, 100, 0).tolist()}  # more than the queue, but alone: it is answered

    def ask(http: httpx.Client) -> int:
        response = http.post(server.predict_url, json=many, timeout=60)
        assert response.status_code == 200 or response.headers["retry-after"] == "1"
        return response.status_code

    with load(ask) as statuses:
        eventually(lambda: {200, 503} <= set(statuses), seconds=60)
    assert set(statuses) == {200, 503}


def test_rolling_restart_under_load_fails_no_request(start_server, trained: SimpleNamespace) -> None:
    """As a cluster does it: clients go to servers that were ready when last asked; one is told to stop."""
    old = start_server(trained.model, "--drain_seconds=3")
    new = start_server(trained.model)
    ready = [old]

    def look() -> None:
        while old.process.poll() is None:
            try:
                if httpx.get(f"{old.url}/v1/models/digits").status_code != 200:
                    ready[0] = new
            except httpx.TransportError:
                ready[0] = new
            time.sleep(0.3)

    probe = threading.Thread(target=look)
    probe.start()
    with load(lambda http: http.post(ready[0].predict_url, json=BODY).status_code) as statuses:
        eventually(lambda: len(statuses) > 20)
        assert old.stop() == 0
        after = len(statuses)
        eventually(lambda: len(statuses) > after + 20)
    probe.join()
    assert set(statuses) == {200}


def test_request_that_is_being_answered_is_finished(start_server, trained: SimpleNamespace) -> None:
    server = start_server(trained.model, "--max_batch_size=1")
    many = {"instances": np.repeat(DIGITS, 300, 0).tolist()}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, server.predict_url, json=many, timeout=60)
        eventually(lambda: server.metric("classifier_in_flight_requests") == 1 or answer.done())
        assert server.stop() == 0
        assert len(answer.result().json()["predictions"]) == 600


@contextmanager
def receiver(status: int, delay: float = 0) -> Iterator[SimpleNamespace]:
    """Takes events by HTTP; answers them with a status after a while."""
    events: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            events.append(({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(delay)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{listening.server_port}/", events=events)
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_payload_log_sends_cloudevents(start_server, trained: SimpleNamespace) -> None:
    with receiver(200) as log:
        server = start_server(trained.model, f"--logger_url={log.url}")
        answer = httpx.post(server.predict_url, json=BODY, headers={"x-request-id": "r-7"})
        eventually(lambda: len(log.events) == 2)
        assert server.stop() == 0
    (request, request_body), (response, response_body) = log.events
    assert (request["ce-type"], response["ce-type"]) == (
        "org.kubeflow.serving.inference.request",
        "org.kubeflow.serving.inference.response",
    )
    assert request["ce-id"] == response["ce-id"] == "r-7"
    assert (request["ce-specversion"], request["ce-inferenceservicename"]) == ("1.0", "digits")
    assert json.loads(request_body) == BODY
    assert response_body == answer.content


def test_payload_log_goes_on_whatever_a_client_calls_its_request(start_server, trained: SimpleNamespace) -> None:
    with receiver(200) as received:
        server = start_server(trained.model, f"--logger_url={received.url}")
        for value in (b"\xff\xfe", b"x" * 9000, "é".encode(), b"last"):
            headers = {b"ce-id": value, b"content-type": b"application/json; x=" + value}
            httpx.post(server.predict_url, json=BODY, headers=headers).raise_for_status()
        eventually(lambda: len(received.events) == 8)
    assert {headers["ce-id"] for headers, _ in received.events[-2:]} == {"last"}
    assert "Traceback" not in server.log


@pytest.mark.parametrize("failing", [{"status": 500}, {"status": 200, "delay": 3}, None], ids=["500", "slow", "gone"])
def test_payload_log_that_fails_fails_no_prediction(
    start_server, trained: SimpleNamespace, failing: dict[str, float] | None
) -> None:
    with receiver(**failing or {"status": 200}) as log:  # type: ignore[arg-type]
        url = log.url if failing else "http://127.0.0.1:9/"
        server = start_server(trained.model, f"--logger_url={url}", "--logger_mode=request", "--workers=1")
        start = time.monotonic()
        for _ in range(20):
            assert httpx.post(server.predict_url, json=BODY).status_code == 200
        assert time.monotonic() - start < 20 * 3  # it waits for no event
        if failing and failing["status"] == 500:
            eventually(lambda: server.metric('classifier_payload_events_total{outcome="failed"}') == 20)
            assert server.log.count("does not take events") == 1
        server.process.kill()


@pytest.mark.parametrize("option", ["http_port", "grpc_port"])
def test_taken_port_is_told_in_words(start_server, trained: SimpleNamespace, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start_server(trained.model, f"--{option}={taken.getsockname()[1]}", wait=False)
        assert server.process.wait(30) == 1
    assert f"{option} = " in server.log
    assert "Traceback" not in server.log


def test_internal_error_says_only_an_id(start_server, model: Path) -> None:
    """A model whose card lies about the number of classes fails in the middle of an answer."""
    card = json.loads((model / "1" / MODEL_CARD).read_text())
    label = max(range(10), key=lambda index: card["examples"][0]["logits"][index])
    card["class_names"] = card["class_names"][:label]
    (model / "1" / MODEL_CARD).write_text(json.dumps(card))
    server = start_server(model)
    example = read_model_card(model).examples[0].png
    response = httpx.post(
        server.predict_url, json={"instances": [{"b64": base64.b64encode(base64.b64decode(example)).decode()}]}
    )
    assert response.status_code == 500
    error = response.json()["error"]
    assert error.startswith("internal error ")
    assert error.split()[2].rstrip(";") in server.log
    assert "IndexError" in server.log
    assert "Index" not in response.text
