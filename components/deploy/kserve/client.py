"""InferenceServices and what KServe makes of them, through the cluster's API."""

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kfp_image_classification.components.cluster.kubernetes_client import (
    CONFLICT,
    FORBIDDEN,
    NOT_FOUND,
    explained,
    patiently,
)
from kfp_image_classification.components.contracts.deployed_model import GROUP, PLURAL, VERSION
from kfp_image_classification.components.deploy.kserve.status import SERVICE_LABEL
from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]
Answer = TypeVar("Answer")

# A field that this cluster's KServe does not know is refused; by default the server would drop it without a word.
_STRICT = "Strict"
_LAST_LINES = 10
# A log helps to understand a failure that is known; nobody waits long for it.
LOG_PATIENCE_SECONDS = 5.0
_NO_CANARIES = (
    "; this KServe has no canaries in Standard mode, which came with 0.20: give canary_percent = 0, or use Knative"
)


class Conflict(Exception):
    """The service was changed, made or removed by somebody else in the meantime."""


class InferenceServices:
    """The InferenceServices of one namespace. Errors that pass are tried again."""

    def __init__(self, client: "ApiClient", namespace: str, log: logging.Logger) -> None:
        from kubernetes.client import AppsV1Api, CoreV1Api, CustomObjectsApi

        self.client = client
        self.namespace = namespace
        self._log = log
        self._custom = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self._apps = AppsV1Api(client)
        self._place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}

    def get(self, name: str) -> Object | None:
        """Reads a service; None when there is none.

        Raises:
            StageFailed: When the API refuses, or KServe is not installed.
        """
        try:
            found: Object = self._call(lambda: self._custom.get_namespaced_custom_object(**self._place, name=name))
            return found
        except _NotFound as error:
            if error.knows_no_such_kind:
                raise StageFailed(
                    "this cluster has no InferenceServices: KServe is not installed, or is older than 0.7"
                ) from None
            return None

    def create(self, service: Object) -> Object:
        """Makes a service.

        Raises:
            Conflict: When there is one of that name by now.
            StageFailed: When the API or KServe's webhook refuses it.
        """
        return self._call(
            lambda: self._custom.create_namespaced_custom_object(**self._place, body=service, field_validation=_STRICT)
        )

    def replace(self, service: Object) -> Object:
        """Writes a whole service over the one of which it is a changed copy.

        Raises:
            Conflict: When that one was changed or removed since.
            StageFailed: When the API or KServe's webhook refuses it.
        """
        name = service["metadata"]["name"]
        try:
            return self._call(
                lambda: self._custom.replace_namespaced_custom_object(
                    **self._place, name=name, body=service, field_validation=_STRICT
                )
            )
        except _NotFound:
            raise Conflict from None

    def delete(self, service: Object) -> None:
        """Removes this very service, not another that took its name since. Does nothing when it is gone."""
        metadata = service["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        try:
            self._call(
                lambda: self._custom.delete_namespaced_custom_object(**self._place, name=metadata["name"], body=body)
            )
        except (_NotFound, Conflict):
            return

    def pods(self, name: str) -> list[Object]:
        return self._items(self._core.list_namespaced_pod, name)

    def deployments(self, name: str) -> list[Object]:
        return self._items(self._apps.list_namespaced_deployment, name)

    def last_log_lines(self, pod: str, container: str) -> str:
        """The end of a container's log, indented; empty when there is none to read, for whatever reason."""
        from kubernetes.client import ApiException

        for previous in (True, False):  # a container that waits to be restarted has told why in its previous log

            def read(previous: bool = previous) -> str:
                text: str = self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=container, previous=previous, tail_lines=_LAST_LINES
                )
                return text

            try:
                lines = patiently(self.client, read, self._log.debug, LOG_PATIENCE_SECONDS).splitlines()
            except (ApiException, StageFailed):
                continue
            if lines:
                return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
        return ""

    def _items(self, listing: Callable[..., Any], name: str) -> list[Object]:
        # As plain JSON: the library's own classes refuse what newer servers leave out.
        answer = self._call(
            lambda: listing(self.namespace, label_selector=f"{SERVICE_LABEL}={name}", _preload_content=False)
        )
        items: list[Object] = json.loads(answer.data)["items"]
        return items

    def _call(self, request: Callable[[], Answer]) -> Answer:
        from kubernetes.client import ApiException

        try:
            return patiently(self.client, request, self._log.warning)
        except ApiException as error:
            if error.status == CONFLICT:
                raise Conflict from None
            if error.status == NOT_FOUND:
                raise _NotFound(error) from None
            if error.status == FORBIDDEN and "admission webhook" not in explained(error):
                raise StageFailed(f"not permitted: {explained(error)}") from None
            remedy = _NO_CANARIES if 'unknown field "spec.canary' in explained(error) else ""
            raise StageFailed(f"the cluster refuses: {explained(error)}{remedy}") from None


class _NotFound(Exception):
    def __init__(self, error: Any) -> None:
        super().__init__(explained(error))
        try:
            self.knows_no_such_kind = "could not find the requested resource" in json.loads(error.body)["message"]
        except (KeyError, TypeError, ValueError):
            self.knows_no_such_kind = True  # "404 page not found", for a group of which no kind is defined
