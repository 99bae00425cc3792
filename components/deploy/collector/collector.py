"""The collector, run as

    python -m kfp_image_classification.components.deploy.collector --output FOLDER --port PORT

It takes the CloudEvents of model servers' payload logs, and those of KServe's logger, and keeps them in a folder, or in
a folder of a bucket. It answers as soon as it has an event in memory, as KServe's agent makes predictions wait behind a
receiver that is slow (its queue is bounded, and blocks: QueueLogRequest in KServe's pkg/logger/worker.go).
"""

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.contracts.payload_files import (
    FORMATS,
    FileFormat,
    FormatUnusable,
    check_usable,
)
from kfp_image_classification.components.deploy.collector.cloud_events import from_request
from kfp_image_classification.components.deploy.collector.event_log import EventLog, Limits
from kfp_image_classification.components.deploy.server.http_server import HttpServer
from kfp_image_classification.components.deploy.server.listening import address, bare_host, bound
from kfp_image_classification.components.deploy.server.refused import Refused
from kfp_image_classification.components.deploy.server.request_body import Receive, read_body
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.process_start import start_process
from kfp_image_classification.components.step.whole_file import try_writing

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_SECONDS = 30.0
GRACE_SECONDS = 10
JSON = "application/json"


class CollectorServer:
    """The ASGI application: a POST anywhere is an event; `/metrics` and `/healthz` answer a GET.

    Args:
        events: What keeps them.
        max_body: Largest event, in bytes.
        log: For unexpected errors.
    """

    def __init__(self, events: EventLog, max_body: int, log: logging.Logger) -> None:
        self._events = events
        self._max_body = max_body
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        headers = {"content-type": JSON}
        try:
            status, headers["content-type"], body = await self._answered(scope, receive)
        except Refused as refused:
            status, body = refused.status, orjson.dumps({"error": refused.reason})
            headers.update(refused.headers)
        except Exception:
            self._log.exception("internal error")
            status, body = 500, orjson.dumps({"error": "internal error; the collector's log has more"})
        headers["content-length"] = str(len(body))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        if scope["method"] == "POST":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            body = await read_body(headers, receive, self._max_body, BODY_SECONDS)
            if not self._events.add(from_request(headers, body)):
                raise Refused(503, "too many events wait to be written", {"retry-after": "5"})
            # Not 202: KServe's agent logs every other status as an error.
            return 200, JSON, b"{}"
        if scope["method"] != "GET":
            raise Refused(405, "expected POST with a CloudEvent", {"allow": "POST, GET"})
        if scope["path"] == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        if scope["path"] in ("/", "/healthz"):
            return 200, JSON, orjson.dumps({"status": "alive"})
        raise Refused(404, f"there is no {scope['path']}")


def main() -> None:
    """Keeps events until it is told to stop."""
    arguments = _arguments()
    start_process()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    log = logging.getLogger("collector")
    try:
        folder = open_folder(arguments.output, "output")
        _check_format(arguments.format)
        listening = bound(arguments.host, arguments.port, "port")
        _check_writable(arguments.output)
    except (InvalidInput, StageFailed) as error:
        sys.exit(f"error: {error}")
    limits = Limits(arguments.file_bytes, arguments.file_seconds, arguments.max_waiting_bytes, arguments.max_bytes)
    events = EventLog(folder, FORMATS[arguments.format], limits, log)
    server = HttpServer(CollectorServer(events, arguments.max_body_bytes, log), GRACE_SECONDS)
    place = address(arguments.host, arguments.port)
    log.info("listening on %s, keeping events in %s", place, arguments.output)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run(sockets=[listening])
    finally:
        events.close()


def _check_writable(output: str) -> None:
    """A folder of this machine that cannot be written will not be later either; a bucket may be away for a while."""
    if "://" in output:
        return
    try:
        try_writing(Path(output))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"output = {output!r}: cannot be written ({reason}); choose another folder") from None


def _check_format(name: FileFormat) -> None:
    try:
        check_usable(name)
    except FormatUnusable as error:
        raise InvalidInput(f"format = {name!r}: {error}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kfp_image_classification.components.deploy.collector",
        description="Keeps the payload log of model servers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
    parser.add_argument("--format", default="jsonl", choices=[*FORMATS], help="of the files: JSON lines, or Parquet")
    parser.add_argument(
        "--host", default="0.0.0.0", help="address to listen on; :: for all of IPv6 and IPv4", type=bare_host
    )
    parser.add_argument("--port", default=8080, type=int, help="port to listen on")
    sizes = {
        "--file_bytes": (16 << 20, "payloads in a file"),
        "--max_bytes": (10 << 30, "of all files together; beyond it the oldest go"),
        "--max_waiting_bytes": (128 << 20, "payloads in memory; beyond it events get 503"),
        "--max_body_bytes": (16 << 20, "largest event; beyond it 413"),
    }
    for name, (default, words) in sizes.items():
        parser.add_argument(name, default=default, type=_positive(int), help=words)
    parser.add_argument("--file_seconds", default=30.0, type=_positive(float), help="how long an event waits, at most")
    return parser.parse_args()


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if number(text) > 0:
                return number(text)
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")

    return parse
