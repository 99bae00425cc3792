"""What the pipeline's steps do on a cluster: the one table behind the Role in `manifests/` and the checks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.kubernetes_client import patiently

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TRAINING_RUNTIME = "tensorflow-distributed"


@dataclass(frozen=True)
class Permission:
    """Verbs on one kind of object.

    Attributes:
        group: API group; empty for the core one.
        resource: Plural name, with its subresource if any: `pods/log`.
        verbs: As RBAC names them.
        name: The only object meant; empty for all.
        cluster_wide: Whether the objects belong to no namespace, so that a ClusterRole must allow it.
        is_optional: Whether it only makes a message say more: a step that may not goes on without.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    name: str = ""
    cluster_wide: bool = False
    is_optional: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


_JOB = ("get", "list", "watch", "create", "patch", "delete")
_JOBS_PODS = [
    Permission("", "pods", ("get", "list", "watch")),
    Permission("", "pods/log", ("get",)),
    Permission("", "events", ("list", "watch")),
]
BY_BACKEND: dict[str, list[Permission]] = {
    "tfjob": [Permission("kubeflow.org", "tfjobs", _JOB), *_JOBS_PODS],
    "trainjob": [
        Permission("trainer.kubeflow.org", "trainjobs", _JOB),
        Permission("trainer.kubeflow.org", "clustertrainingruntimes", ("get",), TRAINING_RUNTIME, cluster_wide=True),
        *_JOBS_PODS,
    ],
    "kserve": [
        Permission("serving.kserve.io", "inferenceservices", ("get", "create", "update", "delete")),
        Permission("", "pods", ("list",)),
        Permission("", "pods/log", ("get",)),
        Permission("apps", "deployments", ("list",)),
        # To name the runtimes that there are where the one asked for is not.
        Permission("serving.kserve.io", "servingruntimes", ("list",), is_optional=True),
        Permission("serving.kserve.io", "clusterservingruntimes", ("list",), cluster_wide=True, is_optional=True),
    ],
}
# A pending volume is told from a broken one by its events.
ALWAYS = [Permission("", "persistentvolumeclaims", ("get",)), Permission("", "events", ("list",))]


def needed(backends: Iterable[str]) -> list[Permission]:
    """All that some backends need, each resource once; backends without a cluster need nothing of their own."""
    found: dict[str, Permission] = {}
    for permission in [*ALWAYS, *(one for backend in backends for one in BY_BACKEND.get(backend, []))]:
        known = found.get(permission.full_name)
        verbs = (*known.verbs, *(verb for verb in permission.verbs if verb not in known.verbs)) if known else ()
        found[permission.full_name] = Permission(
            permission.group,
            permission.resource,
            verbs or permission.verbs,
            permission.name,
            permission.cluster_wide,
            permission.is_optional,
        )
    return list(found.values())


def denied(
    client: "ApiClient",
    namespace: str,
    permission: Permission,
    tell: Callable[[str], None],
    service_account: str = "",
) -> list[str]:
    """Asks the cluster which of a permission's verbs are not allowed.

    Args:
        client: To the cluster.
        namespace: Where the objects would lie.
        permission: What is asked about.
        tell: Told about errors that pass.
        service_account: Whose rights; empty for those of the client itself.

    Raises:
        kubernetes.client.ApiException: When the client may not ask about others.
        StageFailed: When the cluster does not answer.
    """
    return [
        verb
        for verb in permission.verbs
        if not _is_allowed(client, _attributes(namespace, permission, verb), tell, namespace, service_account)
    ]


def _attributes(namespace: str, permission: Permission, verb: str) -> dict[str, str]:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {"verb": verb, "group": permission.group, "resource": resource, "name": permission.name}
    if subresource:
        attributes["subresource"] = subresource
    if not permission.cluster_wide:
        attributes["namespace"] = namespace
    return attributes


def _is_allowed(
    client: "ApiClient",
    attributes: dict[str, str],
    tell: Callable[[str], None],
    namespace: str,
    service_account: str,
) -> bool:
    from kubernetes.client import AuthorizationV1Api

    api = AuthorizationV1Api(client)
    spec: dict[str, Any] = {"resourceAttributes": attributes}
    if service_account:
        spec["user"] = f"system:serviceaccount:{namespace}:{service_account}"
        spec["groups"] = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        answer = patiently(client, lambda: api.create_subject_access_review({"spec": spec}), tell)
    else:
        answer = patiently(client, lambda: api.create_self_subject_access_review({"spec": spec}), tell)
    return bool(answer.status.allowed)
