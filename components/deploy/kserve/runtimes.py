"""Looks for the runtime that is to serve a model before anything is changed: KServe says of a missing one little more
than that it waits."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.kubernetes_client import FORBIDDEN, NOT_FOUND, explained, patiently
from kfp_image_classification.components.contracts.deployed_model import GROUP
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_VERSION = "v1alpha1"
# What installs the runtimes that `runtime` names in our own documentation.
_INSTALLED_BY = {
    "kserve-tensorflow-serving": "KServe's own, which its release brings as kserve-cluster-resources.yaml",
    "image-classification": "of this project: kubectl apply --server-side -k manifests/kserve",
}


def check_runtime(client: "ApiClient", namespace: str, asked: str, runtime: str, log: logging.Logger) -> None:
    """Makes sure that a runtime is there, as far as this step may look.

    Args:
        client: To the cluster.
        namespace: Where the service is.
        asked: What the user asked for.
        runtime: The name of the ServingRuntime or ClusterServingRuntime that this means.
        log: Told about errors that pass.

    Raises:
        InvalidInput: When there is none of that name, naming those that there are.
        StageFailed: When the cluster does not answer.
    """
    from kubernetes.client import CustomObjectsApi

    custom = CustomObjectsApi(client)
    of_namespace = _names(
        client, lambda: custom.list_namespaced_custom_object(GROUP, _VERSION, namespace, "servingruntimes"), log
    )
    of_cluster = _names(
        client, lambda: custom.list_cluster_custom_object(GROUP, _VERSION, "clusterservingruntimes"), log
    )
    if of_namespace is None or of_cluster is None or runtime in of_namespace | of_cluster:
        return  # KServe looks too, and its answer names the runtime
    raise InvalidInput(
        f"runtime = {asked!r}: there is no ServingRuntime {runtime!r} in namespace {namespace}, nor a "
        f"ClusterServingRuntime of that name{_how_to_install(runtime)}. ServingRuntimes there: "
        f"{_listed(of_namespace)}; ClusterServingRuntimes: "
        f"{_listed(of_cluster)}"
    )


def _names(client: "ApiClient", listing: Callable[[], Any], log: logging.Logger) -> set[str] | None:
    """Names of what there is; None when this step may not look."""
    from kubernetes.client import ApiException

    try:
        return {item["metadata"]["name"] for item in patiently(client, listing, log.warning)["items"]}
    except ApiException as error:
        if error.status == NOT_FOUND:
            return set()
        if error.status == FORBIDDEN:
            return None
        raise StageFailed(f"the cluster does not list its serving runtimes: {explained(error)}") from None


def _how_to_install(runtime: str) -> str:
    return f" (it is {_INSTALLED_BY[runtime]})" if runtime in _INSTALLED_BY else ""


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
