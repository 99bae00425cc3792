"""The head of a request: how large it may be, how long it may take, and what a client may offer in it."""

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from PIL import Image

from kfp_image_classification.components.deploy.server.request_head import MOST_BYTES, RequestHeadProtocol

Address = tuple[str, int]


@pytest.fixture(scope="module")
def address(start_server, trained: SimpleNamespace) -> Address:
    host, port = start_server(trained.model).url.removeprefix("http://").split(":")
    return host, int(port)


def talk(address: Address, *parts: bytes) -> bytes:
    """Sends parts, each in a packet of its own, and hears what comes until the server closes."""
    heard = b""
    with socket.create_connection(address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
                threading.Event().wait(0.02)
            while some := connection.recv(1 << 16):
                heard += some
        except ConnectionError:  # what was sent after the server had closed
            pass
    return heard


def image() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(content, "PNG")
    return json.dumps({"instances": [{"b64": base64.b64encode(content.getvalue()).decode()}]}).encode()


BODY = image()
POST = b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)
GET = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n"
# As the HTTP client of Java's standard library sends it with every first request.
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUPGRADE : websocket\r\nSec-WebSocket-Key: x\r\n"
CLOSE = GET + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("offer", [OFFER, WEBSOCKET, b""], ids=["h2c", "websocket", "none"])
@pytest.mark.parametrize("cut", [0, 20, 130, 0.5, 1], ids=["whole", "line", "offer", "body", "bytes"])
def test_another_protocol_may_be_offered(address: Address, offer: bytes, cut: float) -> None:
    request = POST + offer + b"\r\n" + BODY
    at = int(cut) if cut >= 1 else int(cut * len(request))
    parts = [request[:at], request[at:]] if cut != 1 else [request[i : i + 40] for i in range(0, len(request), 40)]
    heard = talk(address, *parts, CLOSE)
    assert heard.count(b"HTTP/1.1 200 OK") == 2, heard
    assert b'"predictions":' in heard


def test_requests_may_follow_each_other_without_waiting(address: Address) -> None:
    heard = talk(address, (POST + b"\r\n" + BODY) * 3 + GET + b"\r\n" + POST[:50], POST[50:] + b"\r\n" + BODY + CLOSE)
    assert heard.count(b"HTTP/1.1 200 OK") == 6
    assert heard.count(b'"predictions":') == 4


@pytest.mark.parametrize(
    "request_parts",
    [
        [GET + b"x: " + b"y" * MOST_BYTES + b"\r\n\r\n"],
        [GET] + [b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(200)],
        [b"GET /" + b"y" * (MOST_BYTES + 1)],
        [GET + b"\r\n", GET] + [b"x: %s\r\n" % (b"y" * 10_000)] * 20,
    ],
    ids=["a header", "many headers", "a path", "a later request"],
)
def test_a_head_that_is_too_large_is_refused(address: Address, request_parts: list[bytes]) -> None:
    heard = talk(address, *request_parts)
    if heard:  # a client that goes on sending may be cut off before it hears why
        assert b"HTTP/1.1 431 Request Header Fields Too Large" in heard
        assert heard.endswith(b'{"error":"the head is larger than 65536 bytes"}')


def test_a_large_head_is_answered(address: Address) -> None:
    assert talk(address, GET + b"x: " + b"y" * (MOST_BYTES - 200) + b"\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200 OK"
    )


@pytest.mark.parametrize(
    "beginning", [b"\x16\x03\x01\x02\0\x01\0", b"\0\r\n\r\n", b"{}", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_what_is_no_http_is_refused_at_once(address: Address, beginning: bytes) -> None:
    assert talk(address, beginning).startswith(b"HTTP/1.1 400 Bad Request")


@pytest.fixture(scope="module")
def impatient() -> Iterator[Address]:
    """A server that waits for a second."""

    async def application(scope: dict, receive: object, send: object) -> None:
        raise AssertionError("no request was sent")

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(application, http=RequestHeadProtocol, lifespan="off", timeout_keep_alive=1, log_config=None)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join()


def test_who_sends_nothing_is_not_waited_for(impatient: Address) -> None:
    assert talk(impatient) == b""


def test_a_head_that_does_not_arrive_is_told(impatient: Address) -> None:
    heard = talk(impatient, GET)
    assert heard.startswith(b"HTTP/1.1 408 Request Timeout")
    assert heard.endswith(b'{"error":"the head did not arrive within 1 s"}')
