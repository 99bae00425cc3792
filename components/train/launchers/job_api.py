"""One job in the cluster's API: the job itself, its pods, and the warnings about them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi

from kfp_image_classification.components.cluster.kubernetes_client import (
    CONFLICT,
    NOT_FOUND,
    PATIENCE_SECONDS,
    REQUEST_TIMEOUT,
    patiently,
)
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.watch import Item, list_raw


class JobApi:
    """All requests about one job; patient with whatever passes.

    Attributes:
        client: Of the API.
        kind: TFJob or TrainJob.
        namespace: The job's.
        name: The job's.
    """

    def __init__(
        self, client: ApiClient, kind: JobKind, namespace: str, name: str, tell: Callable[[str], None]
    ) -> None:
        self.client, self.kind, self.namespace, self.name = client, kind, namespace, name
        self._tell = tell
        self._jobs, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._path = (kind.group, kind.version, namespace, kind.plural)

    def named(self, name: str) -> "JobApi":
        """The same for another job."""
        return JobApi(self.client, self.kind, self.namespace, name, self._tell)

    def labelled(self, selector: str) -> list[Item]:
        """The jobs of this kind with a label.

        Raises:
            kubernetes.client.ApiException: When the server refuses to tell.
            StageFailed: When the API cannot be used.
        """
        found: Item = self._call(self._jobs.list_namespaced_custom_object, label_selector=selector)
        return list(found["items"])

    def get(self) -> Item | None:
        """The job; None when there is none.

        Raises:
            kubernetes.client.ApiException: When the server refuses to tell.
            StageFailed: When the API cannot be used.
        """
        try:
            found: Item = self._call(self._jobs.get_namespaced_custom_object, self.name)
            return found
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise
            return None

    def create(self, manifest: Item) -> None:
        # Strict: a field that this cluster's version does not know is an error, and is not dropped without a word.
        self._call(self._jobs.create_namespaced_custom_object, manifest, field_validation="Strict")

    def patch(self, patch: Item) -> None:
        self._call(self._jobs.patch_namespaced_custom_object, self.name, patch)

    def delete(self, seconds: float, uid: str = "") -> None:
        """Deletes the job and its pods; does nothing when there is none, or one with another uid."""
        body: Item = {"propagationPolicy": self.kind.deletion}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._call(self._jobs.delete_namespaced_custom_object, self.name, seconds=seconds, body=body)
        except ApiException as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def pods(self, seconds: float) -> list[Item]:
        """The job's pods; none when the API does not tell."""
        try:
            return list(list_raw(self.client, self.list_pods, self._tell, seconds)["items"])
        except (ApiException, StageFailed):
            return []

    @property
    def list_job(self) -> Callable[..., Any]:
        """Lists the job alone; to be watched."""
        selector = f"metadata.name={self.name}"
        return partial(self._jobs.list_namespaced_custom_object, *self._path, field_selector=selector)

    @property
    def list_pods(self) -> Callable[..., Any]:
        """Lists the job's pods; to be watched."""
        selector = self.kind.pod_selector(self.name)
        return partial(self._core.list_namespaced_pod, self.namespace, label_selector=selector)

    @property
    def list_warnings(self) -> Callable[..., Any]:
        """Lists the namespace's events of type Warning; to be watched."""
        return partial(self._core.list_namespaced_event, self.namespace, field_selector="type=Warning")

    def _call(
        self, function: Callable[..., Any], *arguments: Any, seconds: float = PATIENCE_SECONDS, **named: Any
    ) -> Any:
        call = partial(function, *self._path, *arguments, **named, _request_timeout=REQUEST_TIMEOUT)
        return patiently(self.client, call, self._tell, seconds)
