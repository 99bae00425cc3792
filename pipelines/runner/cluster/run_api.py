"""What the API of Kubeflow Pipelines tells of a run beside its state: the workflow behind it, and its pods' logs.

Paths: buildHTTPRouter in backend/src/apiserver/main.go of kubeflow/pipelines 2.17.0, and frontend/server/app.ts. The
UI's address passes on the API's versions v1beta1 and v2beta1, and has a path of its own for logs.
"""

import json
import ssl
from collections.abc import Callable
from typing import Any

import httpx

from kfp_image_classification.components.step.direct_network import http_client

SECONDS = 10.0
NOT_FOUND = 404
Object = dict[str, Any]


class RunApi:
    """Asks about one run. A request that fails is as good as no answer: the next one comes a few seconds later."""

    def __init__(self, host: str, run_id: str, token: Callable[[], str], ca_cert: str = "") -> None:
        """Prepares requests.

        Args:
            host: Address of Kubeflow Pipelines: of its UI or of its API.
            run_id: The run.
            token: Gives the bearer token of each request; empty for none.
            ca_cert: File with the certificates to trust; empty for the usual ones.
        """
        self._client = http_client(
            host, base_url=host, verify=ssl.create_default_context(cafile=ca_cert or None), timeout=SECONDS
        )
        self._run_id, self._token = run_id, token
        self.has_workflows = True

    def __enter__(self) -> "RunApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def workflow(self) -> Object | None:
        """The Argo workflow; None when there is none yet, or this server does not show it (`has_workflows`)."""
        answer = self._get(f"/apis/v1beta1/runs/{self._run_id}")
        if answer is None:
            return None
        if answer.status_code == NOT_FOUND:
            self.has_workflows = False
        try:
            runtime = answer.raise_for_status().json().get("pipeline_runtime") or {}
            workflow: Object = json.loads(runtime.get("workflow_manifest") or "{}")
        except (httpx.HTTPStatusError, ValueError, AttributeError):
            return None
        if (workflow.get("status") or {}).get("compressedNodes"):
            self.has_workflows = False
        return workflow or None

    def log(self, pod: str, namespace: str) -> list[str]:
        """The lines that a step's pod has printed so far; none when they cannot be read."""
        answer = self._get(f"/apis/v1alpha1/runs/{self._run_id}/nodes/{pod}/log")
        if answer is not None and answer.status_code == NOT_FOUND:
            asked = {"podname": pod, "runid": self._run_id, "podnamespace": namespace}
            answer = self._get("/k8s/pod/logs", asked)
        if answer is None or answer.is_error or "html" in answer.headers.get("Content-Type", ""):
            return []
        # The API has sent its 200 before it finds that it cannot read the log (run_log_server.go).
        return [] if answer.text.startswith('{"error_message"') else answer.text.splitlines()

    def _get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response | None:
        token = self._token()
        try:
            return self._client.get(path, params=query, headers={"Authorization": f"Bearer {token}"} if token else {})
        except httpx.HTTPError:
            return None
