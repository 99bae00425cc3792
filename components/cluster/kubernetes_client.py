"""The way to a cluster's API: from inside a pod or by the user's kubeconfig, and patient with what passes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity
import urllib3.exceptions
from tenacity.stop import stop_base

from kfp_image_classification.components.cluster.outage import outage_of
from kfp_image_classification.components.step.direct_network import proxy_for
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

if TYPE_CHECKING:
    import kubernetes.client

# Set by the kubelet in every container; see https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
SERVICE_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
MANAGED_BY = {"app.kubernetes.io/managed-by": "kfp-image-classification"}
RUN_LABEL = "pipeline/runid"
# Seconds to connect, and to wait for an answer.
REQUEST_TIMEOUT = (10, 60)
PATIENCE_SECONDS = 180.0
LONGEST_PAUSE_SECONDS = 15.0
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE, THROTTLED = 401, 403, 404, 409, 410, 429
UNAUTHORIZED_ATTEMPTS = 3

Answer = TypeVar("Answer")


def in_cluster() -> bool:
    """Whether this process runs in a pod."""
    return bool(os.environ.get(SERVICE_HOST_VARIABLE))


def api_client() -> "kubernetes.client.ApiClient":
    """Makes a client of the cluster: that of this pod, else that of the current kubeconfig.

    Raises:
        InvalidInput: When there is neither, or the kubeconfig cannot be used.
    """
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    # The library would try again by itself, without a word and without a pause; `patiently` does it with both.
    configuration.retries = False
    load_credentials(configuration)
    return ApiClient(configuration)


def load_credentials(configuration: "kubernetes.client.Configuration") -> None:
    """Reads address and credentials, anew when called again: tokens are replaced while a long job runs.

    Raises:
        InvalidInput: When there are none, or they cannot be used.
    """
    from kubernetes import config

    try:
        if in_cluster():
            try:
                config.load_incluster_config(client_configuration=configuration)
                return  # the pod's own cluster, which no proxy leads to
            except config.ConfigException as error:
                in_pod = f"this pod has no service account ({error}), and "
        else:
            in_pod = "this is not a pod, and "
        config.load_kube_config(config_file=_kubeconfig(), client_configuration=configuration)
        configuration.proxy = configuration.proxy or proxy_for(configuration.host)  # as kubectl does
    except (config.ConfigException, OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"no cluster can be reached: {in_pod}the kubeconfig (KUBECONFIG, or ~/.kube/config) cannot be used: {error}"
        ) from None


def own_namespace() -> str:
    """The namespace of this pod, else that of the kubeconfig's current context, else `default`."""
    if NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    from kubernetes import config

    try:
        _, current = config.list_kube_config_contexts(config_file=_kubeconfig())
    except config.ConfigException:
        return "default"
    return current["context"].get("namespace") or "default"


def _kubeconfig() -> str:
    # The library reads the variable once, when it is loaded.
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def explained(error: Exception) -> str:
    """What an API's refusal, or a broken connection, means: the server's own words where it sent some."""
    status, body = getattr(error, "status", None), getattr(error, "body", None)
    if status is None:
        return f"{type(error).__name__}: {error}"
    try:
        message = json.loads(body or "")["message"]
    except (KeyError, TypeError, ValueError):
        message = str(getattr(error, "reason", "") or body or "no message")
    return f"{message} (HTTP {status})"


def passes(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later: the API restarts, is busy, or a token has run out."""
    from kubernetes.client import ApiException

    if isinstance(error, ApiException):
        return error.status in (0, UNAUTHORIZED, THROTTLED) or (error.status or 0) >= 500
    return isinstance(error, (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError))


def patiently(
    client: "kubernetes.client.ApiClient",
    call: Callable[[], Answer],
    tell: Callable[[str], None],
    seconds: float = PATIENCE_SECONDS,
) -> Answer:
    """Calls the API, again after errors that pass, with growing pauses or those that the server asks for.

    Args:
        client: Its credentials are read again when they are refused.
        call: The request.
        tell: Told when the API does not answer, ever more rarely while it does not, and when it does again.
        seconds: How long to go on trying.

    Raises:
        StageFailed: When errors that should pass did not.
        kubernetes.client.ApiException: When the server refuses the request: not found, conflict, forbidden, invalid.
    """

    outage = outage_of(client)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = _error(state)
        if getattr(error, "status", None) == UNAUTHORIZED:
            load_credentials(client.configuration)
        outage.failed(explained(error), state.next_action.sleep if state.next_action else 0.0, tell)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes),
        wait=_pause,
        stop=tenacity.stop_after_delay(seconds) | _RefusedAgain(),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        answer = retrying(call)
    except Exception as error:
        if passes(error):
            raise StageFailed(f"the cluster's API cannot be used: {explained(error)}") from None
        outage.answered(tell)
        raise
    outage.answered(tell)
    return answer


_growing = tenacity.wait_exponential_jitter(initial=0.2, max=LONGEST_PAUSE_SECONDS, jitter=0.2)


def _pause(state: tenacity.RetryCallState) -> float:
    headers: Any = getattr(_error(state), "headers", None) or {}
    try:
        return min(float(headers.get("Retry-After")), 2 * LONGEST_PAUSE_SECONDS)
    except (TypeError, ValueError):
        return float(_growing(state))


class _RefusedAgain(stop_base):
    """Credentials that were just read anew and are refused again are wrong, not old."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        is_refused = getattr(_error(retry_state), "status", None) == UNAUTHORIZED
        self._in_a_row = self._in_a_row + 1 if is_refused else 0
        return self._in_a_row >= UNAUTHORIZED_ATTEMPTS


def _error(state: tenacity.RetryCallState) -> Exception:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Exception)
    return error
