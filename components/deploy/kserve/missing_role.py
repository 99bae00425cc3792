"""Asks the cluster what this step may do, before it does anything, and says which Role is missing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import yaml

from kfp_image_classification.components.cluster.kubernetes_client import explained
from kfp_image_classification.components.cluster.permissions import BY_BACKEND, denied
from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

NEEDED = BY_BACKEND["kserve"]
ROLE = "model-deployer"
# Who runs the steps of a standalone Kubeflow Pipelines.
_SERVICE_ACCOUNT = "pipeline-runner"


def check_permissions(client: "ApiClient", namespace: str, tell: Callable[[str], None]) -> None:
    """Makes sure that this step may do all that a deployment with its undoing takes.

    Args:
        client: To the cluster.
        namespace: Where the service is.
        tell: Told about errors that pass.

    Raises:
        StageFailed: Naming what it may not do, with the Role to apply.
    """
    from kubernetes.client import ApiException

    try:
        missing = [
            f"{verb} {permission.full_name}"
            for permission in NEEDED
            if not permission.is_optional
            for verb in denied(client, namespace, permission, tell)
        ]
    except ApiException as error:
        raise StageFailed(f"the cluster does not say what this step may do: {explained(error)}") from None
    if missing:
        raise StageFailed(
            f"this step may not, in namespace {namespace}: {', '.join(missing)}.\n"
            f"Apply this Role, and bind it to the step's service account ({_SERVICE_ACCOUNT} in a standalone Kubeflow "
            f"Pipelines):\n{role(namespace)}"
            f"kubectl create rolebinding {ROLE} -n {namespace} --role={ROLE} "
            f"--serviceaccount={namespace}:{_SERVICE_ACCOUNT}"
        )


def role(namespace: str) -> str:
    """The Role, as YAML, that holds all that is needed."""
    rules = [
        {"apiGroups": [permission.group], "resources": [permission.resource], "verbs": list(permission.verbs)}
        for permission in NEEDED
        if not permission.cluster_wide
    ]
    manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": ROLE, "namespace": namespace},
        "rules": rules,
    }
    return yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None, width=120)
