"""Follows objects of the cluster's API for hours: through broken connections, restarts, throttling and compactions.

See https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import urllib3.exceptions
from kubernetes.client import ApiClient, ApiException, VersionApi
from kubernetes.watch import Watch

from kfp_image_classification.components.cluster.kubernetes_client import GONE, REQUEST_TIMEOUT, passes, patiently
from kfp_image_classification.components.cluster.outage import outage_of

# The server ends a watch after this time; it is resumed where it ended.
WATCH_SECONDS = 240
# Without a word for so long, not even a bookmark, a connection counts as broken. Servers send one a minute.
SILENCE_SECONDS = 90
# A job goes on while the API is away, for an upgrade, say.
PATIENCE_SECONDS = 900.0
# A watch that held for so long did its work, even when it broke then.
HELD_SECONDS = 10.0

Item = dict[str, Any]


def list_raw(client: ApiClient, list_objects: Callable[..., Any], tell: Callable[[str], None], seconds: float) -> Item:
    """Lists objects as the server sends them: the client's own classes refuse whatever they do not expect.

    Raises:
        StageFailed: When the API cannot be used for so many seconds.
        kubernetes.client.ApiException: When the server refuses to tell.
    """

    def call() -> Item:
        response = list_objects(_request_timeout=REQUEST_TIMEOUT, _preload_content=False)
        listed: Item = json.loads(response.data)
        return listed

    return patiently(client, call, tell, seconds)


class ObjectWatch:
    """One list of objects, and all changes to it."""

    def __init__(
        self,
        client: ApiClient,
        list_objects: Callable[..., Any],
        on_list: Callable[[list[Item]], None],
        on_change: Callable[[str, Item], None],
        tell: Callable[[str], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Prepares a watch.

        Args:
            client: Of the API.
            list_objects: A `list_...` function of the client, with namespace and selectors filled in.
            on_list: Given all objects at first, and again whenever changes may have been missed.
            on_change: Given each change: ADDED, MODIFIED or DELETED, and the object.
            tell: Told of errors that are passed over.
            is_over: Whether nobody wants to know any more.
        """
        self._client, self._list_objects = client, list_objects
        self._on_list, self._on_change = on_list, on_change
        self._tell, self._is_over = tell, is_over
        self._version = ""

    def run(self) -> None:
        """Follows until it is over.

        Raises:
            StageFailed: When the API cannot be used for a long time.
            kubernetes.client.ApiException: When the server refuses to tell.
        """
        while not self._is_over():
            self._list()
            while not self._is_over():
                try:
                    patiently(self._client, self._stream, self._tell, PATIENCE_SECONDS)
                except ApiException as error:
                    if error.status != GONE:
                        raise
                    break  # what happened meanwhile is forgotten: list again

    def _list(self) -> None:
        listed = list_raw(self._client, self._list_objects, self._tell, PATIENCE_SECONDS)
        self._version = listed["metadata"]["resourceVersion"]
        self._on_list(listed.get("items") or [])

    def _see_whether_it_is_back(self) -> None:
        """Asks for something small after an outage: a watch says nothing until something happens."""
        outage = outage_of(self._client)
        if outage.is_on:
            VersionApi(self._client).get_code(_request_timeout=REQUEST_TIMEOUT)
            outage.answered(self._tell)

    def _stream(self) -> None:
        """Reads one watch to its end. A break counts as an error only when nothing came of the watch."""
        started, was_told = time.monotonic(), False
        self._see_whether_it_is_back()
        try:
            for event in Watch(return_type="object").stream(
                self._list_objects,
                resource_version=self._version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(REQUEST_TIMEOUT[0], SILENCE_SECONDS),
            ):
                item, was_told = event["raw_object"], True
                self._version = item["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._on_change(event["type"], item)
                if self._is_over():
                    return
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            held = was_told or time.monotonic() - started > HELD_SECONDS
            if not passes(error) or not held:
                raise
