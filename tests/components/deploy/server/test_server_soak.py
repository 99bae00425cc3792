"""A short form of `make bench-soak`'s model server part: thousands of all kinds of requests while versions change."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import pytest

from benchmarks.soak.serving import CLIENTS, Sample, Server, Soak, served, soak
from benchmarks.soak.traffic import grpc_calls

REQUESTS, RELOADS = 6000, 24
MEBIBYTE = 1 << 20
JUNK = bytes(3 * MEBIBYTE)
JUNK_ELEMENT = len(JUNK).to_bytes(4, "little") + JUNK


def test_a_server_stays_as_it_began(trained: SimpleNamespace, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "model"))
    lived = soak(model, REQUESTS, RELOADS, tmp_path / "server.log")
    assert lived.reloads == RELOADS
    assert lived.samples[-1].requests == REQUESTS
    # Speed is measured by the benchmark, as tests share their machine. A version that stays in memory takes 2 MiB.
    assert lived.problems(least_speed=0, most_rss_growth=RELOADS // 2 * 3 * MEBIBYTE // 2) == []
    assert "internal error" not in (tmp_path / "server.log").read_text()


@pytest.fixture(scope="module")
def server(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(trained.model, tmp_path_factory.mktemp("served") / "server.log") as server:
        yield server


@pytest.mark.parametrize(
    ("path", "message", "raw"),
    [
        ("/v1/models/digits:predict", {"instances": [{"b64": base64.b64encode(JUNK).decode()}]}, b""),
        ("/v1/models/digits:predict", {"instances": [[0] * MEBIBYTE]}, b""),
        ("/v2/models/digits/infer", {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}, JUNK_ELEMENT),
        ("/v2/models/digits/infer", {"name": "pixels", "datatype": "UINT8", "shape": [1, 28, 28, 1]}, JUNK),
    ],
    ids=["no image", "wrong shape", "no image, binary", "wrong shape, binary"],
)
def test_refused_requests_are_forgotten_at_once(
    server: Server, path: str, message: dict[str, object], raw: bytes
) -> None:
    """An error, its traceback and the request may hold each other; then only a collection of garbage frees them."""
    body, headers = json.dumps(message).encode(), {}
    if raw:
        body = json.dumps({"inputs": [{**message, "parameters": {"binary_data_size": len(raw)}}]}).encode()
        headers = {"inference-header-content-length": str(len(body))}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.http_port}", headers=headers) as client:

        def ask() -> int:
            assert client.post(path, content=body + raw).status_code == 400
            return server.sample(0, 0).rss

        first = [ask() for _ in range(5)]
        last = [ask() for _ in range(20)]
    assert max(last) - max(first) < 8 * len(JUNK), [size // MEBIBYTE for size in (*first, *last)]


def test_requests_refused_by_grpc_are_forgotten_at_once(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer, (_, request) = grpc_calls(channel, "digits")
        request.raw_input_contents[0] = JUNK

        def ask() -> int:
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                infer(request)
            return server.sample(0, 0).rss

        first = [ask() for _ in range(10)]
        last = [ask() for _ in range(20)]
    assert max(last) - max(first) < 8 * len(JUNK), [size // MEBIBYTE for size in (*first, *last)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"threads": 6}, "threads grew from 10 to 16"),
        ({"files": 30}, "files grew from 20 to 50"),
        ({"maps": 100}, "maps grew from 300 to 400"),
        ({"rss": 100 << 20}, "memory grew from 100 to 200 MiB in the second half"),
        ({"seconds": 3.0}, "the last requests came at 0.25 of the speed of the first"),
    ],
)
def test_what_grows_is_told(change: dict[str, float], problem: str | None) -> None:
    steady = {"cpu_seconds": 0.0, "threads": 10, "files": 20, "maps": 300, "rss": 100 << 20}
    samples = [Sample(requests=100 * part, seconds=float(part), **steady) for part in range(4)]
    last = {"requests": 400, "seconds": 4.0, **steady}
    lived = Soak([*samples, Sample(**{name: value + change.get(name, 0) for name, value in last.items()})], 0, [])
    assert lived.problems() == ([problem] if problem else [])


def test_failed_requests_are_told() -> None:
    sample = {"cpu_seconds": 0.0, "threads": 1, "files": 1, "maps": 1, "rss": 1}
    samples = [Sample(requests=part, seconds=float(part), **sample) for part in range(3)]
    assert Soak(samples, 0, ["V1: 500"] * CLIENTS).problems() == ["4 requests failed, such as V1: 500"]
