"""Asks the cluster what this step may do, before it does anything, and says which Role is missing."""

from typing import TYPE_CHECKING

import yaml

from components.deployed_model import GROUP, PLURAL
from components.errors import StageFailed
from components.kubernetes_client import explained, patiently

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

ROLE = "model-deployer"
# API group, resource, and what the deploy step does with it.
NEEDED = [
    (GROUP, PLURAL, ["get", "create", "update", "delete"]),
    ("", "pods", ["list"]),
    ("", "pods/log", ["get"]),
    ("apps", "deployments", ["list"]),
]


def check_permissions(client: "ApiClient", namespace: str) -> None:
    """Makes sure that this step may do all that a deployment with its undoing takes.

    Raises:
        StageFailed: Naming what it may not do, with the Role to apply.
    """
    missing = [
        f"{verb} {resource}{f'.{group}' if group else ''}"
        for group, resource, verbs in NEEDED
        for verb in verbs
        if not _may(client, namespace, group, resource, verb)
    ]
    if missing:
        raise StageFailed(
            f"this step may not, in namespace {namespace}: {', '.join(missing)}.\n"
            f"Apply this Role, and bind it to the step's service account ({_PIPELINE_RUNNER} in a standalone Kubeflow "
            f"Pipelines):\n{role(namespace)}"
            f"kubectl create rolebinding {ROLE} -n {namespace} --role={ROLE} "
            f"--serviceaccount={namespace}:{_PIPELINE_RUNNER}"
        )


_PIPELINE_RUNNER = "pipeline-runner"


def role(namespace: str) -> str:
    """The Role, as YAML, that holds all that is needed."""
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": verbs} for group, resource, verbs in NEEDED]
    return yaml.safe_dump(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": ROLE, "namespace": namespace},
            "rules": rules,
        },
        sort_keys=False,
        default_flow_style=None,
        width=120,
    )


def _may(client: "ApiClient", namespace: str, group: str, resource: str, verb: str) -> bool:
    from kubernetes.client import ApiException, AuthorizationV1Api

    name, _, sub = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": name, "subresource": sub, "verb": verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = patiently(
            client, lambda: AuthorizationV1Api(client).create_self_subject_access_review(review), tell=print
        )
    except ApiException as error:
        raise StageFailed(f"the cluster does not say what this step may do: {explained(error)}") from None
    return bool(answer.status.allowed)
