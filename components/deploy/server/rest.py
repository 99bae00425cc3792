"""The REST side of the model server: an ASGI application with KServe's V1 and V2 endpoints, metrics and a page.

One model has a dozen paths, so routing is a dictionary. It is not kserve's own server, whose layers cost more than the
model does (`benchmarks/README.md` has both), and which has neither limits nor errors that keep quiet.
"""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from kfp_image_classification.components.deploy.server import protocol_v1, protocol_v2
from kfp_image_classification.components.deploy.server.classifier import Classifier
from kfp_image_classification.components.deploy.server.payload_log import PayloadLog
from kfp_image_classification.components.deploy.server.refused import Refused, bad_request
from kfp_image_classification.components.deploy.server.reports import Reports
from kfp_image_classification.components.deploy.server.request_body import Headers, Receive, read_body
from kfp_image_classification.components.deploy.server.server_metrics import IN_FLIGHT, count_request

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
BINARY = "application/octet-stream"
HEADER_LENGTH = "inference-header-content-length"
PAGE = Path(__file__).with_name("page.html")
# The page has its script and style within, and asks this server alone.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
}


class RestServer:
    """The application.

    Args:
        classifier: What answers.
        reports: What is told about it.
        max_body: Largest body of a request, in bytes.
        body_seconds: How long a body may take to arrive.
        payload_log: Told every prediction, if there is one.
        log: For unexpected errors.
    """

    def __init__(
        self,
        classifier: Classifier,
        reports: Reports,
        max_body: int,
        body_seconds: float,
        payload_log: PayloadLog | None,
        log: logging.Logger,
    ) -> None:
        self._classifier = classifier
        self._reports = reports
        self._max_body = max_body
        self._body_seconds = body_seconds
        self._payload_log = payload_log
        self._log = log
        self._page = PAGE.read_bytes()
        name = classifier.name
        self._questions: dict[str, Callable[[], Any]] = {
            "/v1/models": lambda: {"models": [name]},
            f"/v1/models/{name}": self._ready_model,
            "/v2": lambda: {
                "name": "image-classifier",
                "version": "2",
                "extensions": ["binary_tensor_data", "statistics"],
            },
            "/v2/health/live": lambda: {"live": True},
            "/v2/health/ready": self._ready,
            "/v2/models": lambda: {"models": [name]},
            f"/v2/models/{name}": self._metadata,
            f"/v2/models/{name}/ready": self._ready_model,
        }
        self._statistics = {"/v2/models/stats", f"/v2/models/{name}/stats"}
        self._predictions = {
            f"/v1/models/{name}:predict": ("v1", self._predict_v1),
            f"/v2/models/{name}/infer": ("v2", self._predict_v2),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        status, headers, body = 500, {"content-type": JSON}, b""
        try:
            status, headers, body = await self._answered(scope, receive)
        except Refused as refused:
            status, body = refused.status, _error(refused.reason)
            headers = {"content-type": JSON, **refused.headers}
        except Exception:
            identity = uuid.uuid4().hex[:12]
            self._log.exception("internal error %s at %s", identity, scope["path"])
            body = _error(f"internal error {identity}; the server's log has more")
        if self._classifier.leaving:
            headers["connection"] = "close"  # so that the client comes back to a server that stays
        headers["content-length"] = str(len(body))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        method, path = scope["method"], scope["path"]
        if path not in self._predictions:
            path = self._of_version(path)
        if path in self._predictions:
            _only(method, "POST")
            return await self._predicted(*self._predictions[path], scope, receive)
        if path in self._questions:
            _only(method, "GET")
            return 200, {"content-type": JSON}, orjson.dumps(self._questions[path]())
        if path in self._statistics:
            _only(method, "GET")
            statistics = await self._reports.statistics(self._classifier.model.version)
            return 200, {"content-type": JSON}, orjson.dumps(statistics)
        if path == "/":
            _only(method, "GET")
            return self._root(scope)
        if path == "/v2/repository/index":
            _only(method, "GET", "POST")
            return 200, {"content-type": JSON}, orjson.dumps(await self._index(scope, receive))
        if path == "/metrics":
            _only(method, "GET")
            return 200, {"content-type": CONTENT_TYPE_LATEST}, await self._reports.metrics()
        raise Refused(404, f"there is no {path}; the model is {self._classifier.name!r}")

    def _root(self, scope: Scope) -> tuple[int, Headers, bytes]:
        """The page for a browser; for a program what kserve's V1 client takes for a sign of life."""
        if b"text/html" in dict(scope["headers"]).get(b"accept", b"").lower():
            return 200, {"content-type": "text/html; charset=utf-8", "vary": "accept", **PAGE_HEADERS}, self._page
        return 200, {"content-type": JSON, "vary": "accept"}, orjson.dumps({"status": "alive"})

    async def _index(self, scope: Scope, receive: Receive) -> list[dict[str, str]]:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read_body(headers, receive, self._max_body, self._body_seconds)
        asked = protocol_v1.from_json(body) if body else {}
        ready = asked.get("ready", False) if isinstance(asked, dict) else None
        if not isinstance(ready, bool):
            raise bad_request('expected {"ready": true} for the version that answers, or {} for all of them')
        return [entry for entry in self._classifier.index() if entry["state"] == "READY" or not ready]

    def _of_version(self, path: str) -> str:
        """Takes the version out of a path, if it is the one that answers; V1's as TensorFlow Serving has it."""
        for protocol, separator in (("v1", ":"), ("v2", "/")):
            start = f"/{protocol}/models/{self._classifier.name}"
            if path.startswith(f"{start}/versions/"):
                version, _, rest = path.removeprefix(f"{start}/versions/").partition(separator)
                if version != self._classifier.model.version:
                    raise Refused(404, f"version {version} is not served, but {self._classifier.model.version}")
                return start + (f"{separator}{rest}" if rest else "")
        return path

    def _ready(self) -> dict[str, Any]:
        if self._classifier.leaving:
            raise Refused(503, "the server is going down")
        return {"ready": True}

    def _ready_model(self) -> dict[str, Any]:
        return {"name": self._classifier.name, **self._ready()}

    def _metadata(self) -> dict[str, Any]:
        model = self._classifier.model
        metadata = protocol_v2.model_metadata(self._classifier.name, model.version, model.card)
        return {**metadata, "parameters": {"class_names": model.card.class_names}}

    async def _predicted(
        self,
        protocol: str,
        predict: Callable[[bytes, Headers], Awaitable[tuple[Headers, bytes]]],
        scope: Scope,
        receive: Receive,
    ) -> tuple[int, Headers, bytes]:
        start = time.perf_counter()
        status = 500
        IN_FLIGHT.inc()
        try:
            request_headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            body = await read_body(request_headers, receive, self._max_body, self._body_seconds)
            identity = self._logged_request(request_headers, body)
            headers, answer = await predict(body, request_headers)
            if self._payload_log:
                self._payload_log.response(identity, headers["content-type"], answer)
            status = 200
            return status, headers, answer
        except Refused as refused:
            status = refused.status
            raise
        finally:
            IN_FLIGHT.dec()
            count_request(protocol, str(status), time.perf_counter() - start)

    def _logged_request(self, headers: Headers, body: bytes) -> str:
        if self._payload_log is None:
            return ""
        # KServe's agent takes the first, and knows no other.
        identity = headers.get("ce-id") or headers.get("x-request-id") or str(uuid.uuid4())
        self._payload_log.request(identity, headers.get("content-type", JSON), body)
        return identity

    async def _predict_v1(self, body: bytes, _: Headers) -> tuple[Headers, bytes]:
        model = self._classifier.model
        images = protocol_v1.read_request(body, model.card.image_shape)
        answer = await self._classifier.answer(model, images)
        return {"content-type": JSON}, protocol_v1.write_answer(answer)

    async def _predict_v2(self, body: bytes, headers: Headers) -> tuple[Headers, bytes]:
        model = self._classifier.model
        request = protocol_v2.read_request(body, headers.get(HEADER_LENGTH), model.card.image_shape)
        answer = await self._classifier.answer(model, request.images)
        content, header_length = protocol_v2.write_answer(answer, request, self._classifier.name, model.version)
        if header_length is None:
            return {"content-type": JSON}, content
        return {"content-type": BINARY, HEADER_LENGTH: str(header_length)}, content


def _only(method: str, *allowed: str) -> None:
    if method not in allowed and not (method == "HEAD" and "GET" in allowed):  # of which uvicorn sends no body
        raise Refused(405, f"expected {' or '.join(allowed)}", {"allow": ", ".join(allowed)})


def _error(reason: str) -> bytes:
    return orjson.dumps({"error": reason})
