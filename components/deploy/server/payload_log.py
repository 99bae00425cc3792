"""Sends requests and answers to a URL, as KServe's logger does on a cluster: CloudEvents in HTTP's binary mode.

It never delays a prediction: events wait in a bounded queue for a thread that sends them, and those that find it full
are dropped and counted.
"""

import logging
import os
import queue
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from kfp_image_classification.components.deploy.server.server_metrics import PAYLOAD_EVENTS
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    import httpx

LoggerMode = Literal["all", "request", "response"]

EVENT_TYPE = "org.kubeflow.serving.inference."
MAX_EVENTS = 1000
MAX_BYTES = 64 << 20
SEND_SECONDS = 5.0


@dataclass(frozen=True)
class _Event:
    id: str
    kind: str
    content_type: str
    body: bytes
    time: str


class PayloadLog:
    """Posts events from a thread of its own.

    Args:
        url: Where to.
        mode: Requests, responses or both.
        model_name: Told with each event.
        log: Told when the receiver fails, and when it works again.

    Raises:
        StageFailed: When the way to the receiver is a proxy that cannot be used.
    """

    def __init__(self, url: str, mode: LoggerMode, model_name: str, log: logging.Logger) -> None:
        self._url = url
        self._kinds = ("request", "response") if mode == "all" else (mode,)
        self._headers = {
            b"ce-specversion": b"1.0",
            b"ce-source": f"http://{os.environ.get('HOSTNAME', 'localhost')}/".encode(),
            b"ce-inferenceservicename": model_name.encode(),
            b"ce-component": b"predictor",
        }
        self._log = log
        try:
            self._client = http_client(url, timeout=SEND_SECONDS)
        except ValueError as error:
            raise StageFailed(f"logger_url = {url!r}: {error}") from None
        self._events: queue.Queue[_Event] = queue.Queue(MAX_EVENTS)
        self._bytes = 0
        self._failing = False
        threading.Thread(target=self._work, name="payload-log", daemon=True).start()

    def request(self, identity: str, content_type: str, body: bytes) -> None:
        """Logs what a client sent."""
        self._add("request", identity, content_type, body)

    def response(self, identity: str, content_type: str, body: bytes) -> None:
        """Logs what it was answered."""
        self._add("response", identity, content_type, body)

    def flush(self, seconds: float) -> None:
        """Waits until everything is sent, but no longer than that."""
        until = time.monotonic() + seconds
        while self._events.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.02)

    def _add(self, kind: str, identity: str, content_type: str, body: bytes) -> None:
        if kind not in self._kinds:
            return
        # The count is approximate, as both threads write it: it bounds memory, no more.
        if self._bytes + len(body) > MAX_BYTES:
            PAYLOAD_EVENTS.labels("dropped").inc()
            return
        try:
            self._events.put_nowait(_Event(identity, kind, content_type, body, datetime.now(UTC).isoformat()))
            self._bytes += len(body)
        except queue.Full:
            PAYLOAD_EVENTS.labels("dropped").inc()

    def _work(self) -> None:
        with self._client as client:
            while True:
                event = self._events.get()
                try:
                    self._send(client, event)
                except Exception as error:  # nothing that a client sends may end this thread
                    PAYLOAD_EVENTS.labels("failed").inc()
                    if not self._failing:
                        self._log.warning("payload log: %s does not take events: %s", self._url, error)
                    self._failing = True
                else:
                    PAYLOAD_EVENTS.labels("sent").inc()
                    self._failing = False
                finally:
                    self._bytes -= len(event.body)
                    self._events.task_done()

    def _send(self, client: "httpx.Client", event: _Event) -> None:
        headers = {
            **self._headers,
            # As they came: a client may write what it likes there.
            b"ce-id": event.id.encode("latin-1"),
            b"content-type": event.content_type.encode("latin-1"),
            b"ce-type": (EVENT_TYPE + event.kind).encode(),
            b"ce-time": event.time.encode(),
        }
        client.post(self._url, content=event.body, headers=headers).raise_for_status()
