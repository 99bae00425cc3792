"""Streams the logs of all workers, each line with its worker's name, and keeps the last lines of each."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial

import urllib3.exceptions
from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.watch import Watch

from kfp_image_classification.components.cluster.kubernetes_client import REQUEST_TIMEOUT, explained, passes, patiently
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.launchers.chatter import is_chatter
from kfp_image_classification.components.train.launchers.pod_status import PodState

LAST_LINES = 15
SILENCE_SECONDS = 120
HELD_SECONDS = 10.0
PAUSE_SECONDS = 0.2


class PodLog:
    """Follows one pod's log to its end, across broken connections, telling no line twice and leaving none out."""

    def __init__(
        self, client: ApiClient, namespace: str, pod: PodState, container: str, tell: Callable[[str], None]
    ) -> None:
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._api, self._client = CoreV1Api(client), client
        self._namespace, self._pod, self._container = namespace, pod, container
        self._tell = tell
        self._has_ended = threading.Event()
        self._last_time = ""
        self._lines_at_last_time = 0
        self._thread = threading.Thread(target=self._run, name=f"log-{pod.name}", daemon=True)
        self._thread.start()

    def pod_ended(self) -> None:
        """Says that nothing more will be written: what is there is read, and then no more is waited for."""
        self._has_ended.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while self._is_there():
                had_ended = self._has_ended.is_set()
                patiently(self._client, self._read, self._tell)
                if had_ended:
                    return
                time.sleep(PAUSE_SECONDS)
        except StageFailed as error:
            self._tell(f"the log of {self._pod.replica} is not followed any more: {error}")
        except ApiException as error:
            # The pod, or its container, is gone: its log went with it.
            if error.status not in (400, 404):
                self._tell(f"the log of {self._pod.replica} cannot be read: {explained(error)}")

    def _is_there(self) -> bool:
        """Whether the name is still that of this pod: the Training Operator gives a pod's name to its successor."""
        read = partial(self._api.read_namespaced_pod, self._pod.name, self._namespace, _request_timeout=REQUEST_TIMEOUT)
        response = patiently(self._client, partial(read, _preload_content=False), self._tell)
        return bool(json.loads(response.data)["metadata"]["uid"] == self._pod.uid)

    def _read(self) -> None:
        """Reads one stream to its end. A break counts as an error only when nothing came of the stream."""
        started, was_told = time.monotonic(), False
        skip = self._lines_at_last_time
        since = {"since_seconds": _seconds_since(self._last_time)} if self._last_time else {}
        try:
            for line in Watch().stream(
                self._api.read_namespaced_pod_log,
                name=self._pod.name,
                namespace=self._namespace,
                container=self._container,
                timestamps=True,
                _request_timeout=(REQUEST_TIMEOUT[0], SILENCE_SECONDS),
                **since,
            ):
                at, _, text = line.partition(" ")
                at = _sortable(at)
                if at < self._last_time:
                    continue
                if at == self._last_time and skip:
                    skip -= 1
                    continue
                self._lines_at_last_time = self._lines_at_last_time + 1 if at == self._last_time else 1
                self._last_time, was_told = at, True
                self._pass_on(text)
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            held = was_told or time.monotonic() - started > HELD_SECONDS
            if not passes(error) or not held:
                raise

    def _pass_on(self, text: str) -> None:
        if text.strip() and not is_chatter(text):
            self.last_lines.append(text.rstrip())
            self._tell(f"{self._pod.replica} | {text.rstrip()}")


def _sortable(at: str) -> str:
    """RFC 3339 with all nine digits of the nanoseconds, of which Go leaves out zeros at the end."""
    date, _, fraction = at.removesuffix("Z").partition(".")
    return f"{date}.{fraction:0<9}"


def _seconds_since(at: str) -> int:
    passed = time.time() - datetime.fromisoformat(at[:19] + "+00:00").timestamp()
    return max(1, int(passed) + 2)
