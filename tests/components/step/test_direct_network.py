"""What is reached directly, and what by the proxy that the environment names: with real servers, and a real proxy."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from repository import REPOSITORY

from kfp_image_classification.components.step.direct_network import (
    exempt_from_proxies,
    http_client,
    proxy_for,
    reached_directly,
)

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server that answers anything, as a proxy too: its address, and the request lines that it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy", "no_grpc_proxy", "kubernetes_service_host"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def set_proxies(monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, to)
        monkeypatch.setenv(name.upper(), to)


@pytest.mark.parametrize(
    ("url", "directly"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://127.7.7.7", True),
        ("http://[::1]:8080", True),
        ("http://0.0.0.0:80", True),
        ("http://localhost:8080", True),
        ("http://LOCALHOST", True),
        ("http://ml-pipeline.localhost", True),
        ("http://mlflow.team.svc:5000", True),
        ("http://mlflow.team.svc.cluster.local.:5000", True),
        ("http://mlflow.team.svc.our.domain:5000", True),
        ("http://intern.example:5000", True),
        ("http://a.intern.example", True),
        ("http://mlflow", False),
        ("http://notlocalhost", False),
        ("http://svc", False),
        ("https://storage.googleapis.com/tfds", False),
        ("http://10.1.2.3", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_what_is_reached_directly(url: str, directly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intern.example")
    assert reached_directly(url) == directly


def test_in_a_pod_names_without_a_dot_and_the_api_are_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert reached_directly("http://mlflow:5000")
    assert reached_directly("https://10.96.0.1:443")
    assert not reached_directly("https://10.96.0.2:443")


@pytest.mark.parametrize("proxy", [NOWHERE, "socks5://127.0.0.1:9", "nonsense", "127.0.0.1:9"])
def test_server_of_this_machine_is_asked_directly(
    proxy: str, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, proxy)
    with http_client(server[0], timeout=5) as client:
        assert client.get(f"{server[0]}/x").text == "ok"
    assert server[1] == ["/x"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_what_lies_outside_is_asked_through_the_proxy(
    name: str, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, server[0])
    assert proxy_for("http://outside.invalid/x") == server[0]
    with http_client("http://outside.invalid", timeout=5) as client:
        assert client.get("http://outside.invalid/x").text == "ok"
    assert server[1] == ["http://outside.invalid/x"]


def test_without_a_proxy_there_is_none() -> None:
    assert proxy_for("http://outside.invalid") is None
    with pytest.raises(httpx.ConnectError), http_client("http://outside.invalid", timeout=5) as client:
        client.get("http://outside.invalid")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_proxy_that_cannot_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_proxies(monkeypatch, proxy)
    with pytest.raises(ValueError, match=f"the proxy '{proxy}' of the environment cannot be used"):
        http_client("http://outside.invalid")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1,.localhost,.svc,.cluster.local,peer"),
        ({"NO_PROXY": "a.example, b"}, "a.example,b,localhost,127.0.0.1,::1,.localhost,.svc,.cluster.local,peer"),
        ({"no_proxy": "b", "NO_PROXY": "a"}, "b,a,localhost,127.0.0.1,::1,.localhost,.svc,.cluster.local,peer"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_exemptions_are_added_to_the_users(given: dict[str, str], expected: str) -> None:
    environment = dict(given)
    exempt_from_proxies(environment, ["peer"])
    assert environment["no_proxy"] == expected
    before = dict(environment)
    exempt_from_proxies(environment, ["peer"])
    assert environment == before
    assert "no_grpc_proxy" not in environment


def test_grpcs_own_exemptions_go_before_the_others() -> None:
    environment = {"no_grpc_proxy": "x"}
    exempt_from_proxies(environment)
    assert environment["no_grpc_proxy"].startswith("x,localhost,127.0.0.1,")


GRPC = """
import sys, grpc
from concurrent.futures import ThreadPoolExecutor
server = grpc.server(ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(5)
"""
ASK = {
    "requests": "import sys, requests; assert requests.get(sys.argv[1], timeout=5).text == 'ok'",
    "urllib": "import sys, urllib.request as u; assert u.urlopen(sys.argv[1], timeout=5).read() == b'ok'",
    "httpx": "import sys, httpx; assert httpx.get(sys.argv[1], timeout=5).text == 'ok'",
    "curl": "import sys, subprocess; assert subprocess.check_output(['curl', '-sm5', sys.argv[1]]) == b'ok'",
    "grpc": GRPC,
}


@pytest.mark.parametrize("client", ASK)
def test_clients_that_read_the_variables_themselves_obey(
    client: str, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, NOWHERE)
    command = [sys.executable, "-c", ASK[client], server[0]]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0, "the proxy does not show"
    exempt_from_proxies(os.environ)
    subprocess.run(command, check=True)


@pytest.mark.parametrize("folder", ["components", "pipelines", "benchmarks"])
def test_no_client_is_made_elsewhere(folder: str) -> None:
    made = re.compile(r"httpx\.(Client|AsyncClient|get|post|put|request|stream)\(|urlopen\(|import requests")
    for path in (REPOSITORY / folder).rglob("*.py"):
        if path.name != "direct_network.py":
            assert not made.search(path.read_text(encoding="utf-8")), path
