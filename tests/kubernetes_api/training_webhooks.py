"""What the webhooks of the Training Operator and of Kubeflow Trainer refuse, of what this project may make.

Read in kubeflow/trainer: branch release-1.9 (Training Operator 1.9.4), and release-2.3 (Trainer 2.3.0). Each rule names
its place; the words are the webhooks' own. The schemas and their CEL rules are the API server's, not the webhooks'.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]
Lookup = Callable[[str, str], Object | None]
_DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
_DNS_1123_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_URL_PATH = re.compile(r"^[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$")
_ANCESTORS = {"trainer": "node", "model-initializer": "model-initializer", "dataset-initializer": "dataset-initializer"}
_ANCESTOR_LABEL = "trainer.kubeflow.org/trainjob-ancestor-step"


def refusal(plural: str, item: Object, lookup: Lookup) -> str | None:
    """The message with which an object is refused; None when it is not.

    Args:
        plural: What it is.
        item: The object.
        lookup: Finds another object by plural and name.
    """
    rules = {
        "tfjobs": ("validator.tfjob.training-operator.kubeflow.org", _tfjob),
        "trainjobs": ("validator.trainjob.trainer.kubeflow.org", _trainjob),
        "clustertrainingruntimes": ("validator.clustertrainingruntime.trainer.kubeflow.org", _runtime),
    }
    if plural not in rules:
        return None
    webhook, check = rules[plural]
    problems = list(check(item, lookup))
    return f'"{webhook}" denied the request: {"; ".join(problems)}' if problems else None


def _tfjob(job: Object, lookup: Lookup) -> Iterator[str]:
    """validateTFJob and validateTFReplicaSpecs in pkg/webhooks/tensorflow/tfjob_webhook.go, ValidateRunPolicy in
    pkg/common/util/webhooks.go."""
    name = job["metadata"]["name"]
    if not _DNS_1035.match(name):
        yield f'metadata.name: Invalid value: "{name}": should match: a DNS-1035 label must consist of lower case ...'
    managed_by = job["spec"].get("runPolicy", {}).get("managedBy")
    if managed_by not in (None, "kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"):
        yield (
            f'spec.runPolicy.managedBy: Unsupported value: "{managed_by}": supported values: '
            '"kueue.x-k8s.io/multikueue", "kubeflow.org/training-operator"'
        )
    replicas = job["spec"].get("tfReplicaSpecs")
    if not replicas:
        yield "spec.tfReplicaSpecs: Required value: must be specified"
        return
    for role, spec in replicas.items():
        path = f"spec.tfReplicaSpecs[{role}].template.spec.containers"
        containers = spec.get("template", {}).get("spec", {}).get("containers") or []
        if not containers:
            yield f"{path}: Required value: must be specified"
        elif any(not container.get("image") for container in containers):
            yield f"{path}[0].image: Required value: must be required"
        elif not any(container.get("name") == "tensorflow" for container in containers):
            yield f"{path}: Required value: must have at least one container with name tensorflow"
    if {"Chief", "Master"} <= replicas.keys():
        yield "spec.tfReplicaSpecs: Forbidden: must not have more than 1 Chief or Master role"


def _trainjob(job: Object, lookup: Lookup) -> Iterator[str]:
    """ValidateCreate in pkg/webhooks/trainjob_webhook.go, ValidateObjects in
    pkg/runtime/core/clustertrainingruntime.go, Validate in pkg/runtime/framework/plugins/jobset/jobset.go."""
    reference = job["spec"]["runtimeRef"]
    kind = (reference.get("apiGroup", "trainer.kubeflow.org"), reference.get("kind", "ClusterTrainingRuntime"))
    if kind != ("trainer.kubeflow.org", "ClusterTrainingRuntime"):
        yield f"spec.runtimeRef: Invalid value: unsupported runtime: {kind[1]}.{kind[0]}"
        return
    runtime = lookup("clustertrainingruntimes", reference["name"])
    if runtime is None:
        yield (
            f'spec.runtimeRef: Invalid value: "{reference["name"]}": clustertrainingruntimes.trainer.kubeflow.org '
            f'"{reference["name"]}" not found: specified clusterTrainingRuntime must be created before the TrainJob is '
            "created"
        )
        return
    for patch in job["spec"].get("runtimePatches", []):
        yield from _manager(patch["manager"])
        jobs = patch.get("trainingRuntimeSpec", {}).get("template", {}).get("spec", {}).get("replicatedJobs", [])
        # A job or a container that the runtime does not have is to be refused, too, but is not: the webhook looks for
        # it in the runtime as it is with the patch (seen on 2026-11-26).
        for container in [one for replicated in jobs for one in _pod_spec(replicated).get("containers", [])]:
            if container.get("env") and container["name"] in _ANCESTORS.values():
                yield (
                    "spec.runtimePatches: Invalid value: must not have envs for the dataset-initializer, "
                    "model-initializer, node containers"
                )


def _manager(manager: str) -> Iterator[str]:
    """IsDomainPrefixedPath in k8s.io/apimachinery/pkg/util/validation."""
    domain, slash, path = manager.partition("/")
    if not slash or not domain or not path:
        yield (
            f'spec.runtimePatches.manager: Invalid value: "{manager}": must be a domain-prefixed path (such as '
            '"acme.io/foo")'
        )
    elif not _DNS_1123_SUBDOMAIN.match(domain) or not _URL_PATH.match(path):
        yield f'spec.runtimePatches.manager: Invalid value: "{manager}"'


def _runtime(runtime: Object, lookup: Lookup) -> Iterator[str]:
    """validateReplicatedJobs in pkg/webhooks/trainingruntime_webhook.go."""
    for index, one in enumerate(runtime["spec"]["template"]["spec"]["replicatedJobs"]):
        path = f"spec.template.spec.replicatedJobs[{index}]"
        if one.get("replicas", 1) != 1:
            yield f"{path}.replicas: Invalid value: {one['replicas']}: always must be 1"
        ancestor = one["template"].get("metadata", {}).get("labels", {}).get(_ANCESTOR_LABEL, "")
        wanted = _ANCESTORS.get(ancestor)
        if wanted and wanted not in {container["name"] for container in _pod_spec(one)["containers"]}:
            yield f"{path}.template: Invalid value: must contain the required container for the ancestor: {ancestor}"


def _pod_spec(replicated_job: Object) -> Object:
    found: Object = replicated_job.get("template", {}).get("spec", {}).get("template", {}).get("spec", {})
    return found
