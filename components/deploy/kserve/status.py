"""What the status of an InferenceService and of its pods means. Pure.

`status.observedGeneration` is of no use here: KServe copies it from the Deployment or Knative Service that it made
(kserve issue 6081), and the conditions go on being true for the version before. So a version is looked for where it
runs: its pods carry its revision as an annotation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from kfp_image_classification.components.contracts.deployed_model import REVISION_ANNOTATION

Object = dict[str, Any]

APP_LABEL = "app"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
KNATIVE_REVISION_LABEL = "serving.knative.dev/revision"
# Reasons for which a container waits that another try does not cure.
_LOST_WAITING = (
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
    "RunContainerError",
)
_LOST_CONDITIONS = ("ProgressDeadlineExceeded", "RevisionFailed", "FailedCreate", "ReconcileFailed", "ContainerMissing")
_FAILED_TRANSITIONS = ("BlockedByFailedLoad", "InvalidSpec")


@dataclass(frozen=True)
class Target:
    """What is waited for.

    Attributes:
        revision: The version's revision annotation; empty for a version that has none.
        app: In Standard mode, the label `app` of the pods of the version's Deployment; empty where a service has only
            one.
        is_alone: In Standard mode, whether there is no other Deployment whose pods may stay.
        canary: In Standard mode, the name of the canary that this version is; empty for a stable one.
        traffic_percent: With Knative, the share of requests it is to get.
        knative: Whether the service is in Knative mode.
        min_replicas: How many of its pods must be ready, at least.
        knative_revision_before: The newest Knative revision before the update; empty when nothing was updated.
        words: What people call it.
    """

    revision: str
    app: str = ""
    is_alone: bool = True
    canary: str = ""
    traffic_percent: int = 100
    knative: bool = False
    min_replicas: int = 1
    knative_revision_before: str = ""
    words: str = "the new version"


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a version.

    Attributes:
        state: Whether it serves, comes along, or fails. A failure counts when it lasts.
        reason: What it waits for or fails from, in the cluster's own words.
        evidence: Where a failure shows: in a `pod` of the version, which is final; in an `unschedulable` pod, which a
            new node would cure; or in the service's `status`, which may still be about the version before.
        pod: Name of the failing pod.
        container: Name of its failing container.
    """

    state: Literal["ready", "waiting", "failing"]
    reason: str = ""
    evidence: Literal["", "pod", "unschedulable", "status"] = ""
    pod: str = ""
    container: str = ""


def verdict(service: Object, pods: Iterable[Object], deployments: Iterable[Object], target: Target) -> Verdict:
    """Judges a version by the service's status, its pods, and the Deployments behind it (none with Knative)."""
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    same_app = [pod for pod in running if not target.app or _label(pod, APP_LABEL) == target.app]
    own = [pod for pod in same_app if _revision(pod) == target.revision]
    for pod in own:
        if failure := _pod_failure(pod):
            return failure
    others = len(running if target.is_alone else same_app) - len(own)
    waits_for = _unready(service, own, others, target)
    if not waits_for:
        return Verdict("ready")
    return _status_failure(service, deployments) or Verdict("waiting", waits_for)


def newest_knative_revision(service: Object) -> str:
    return str(_predictor_status(service).get("latestCreatedRevision", ""))


def gets_no_requests(service: Object) -> bool:
    """Whether no canary gets requests, as far as KServe has told the ingress by now."""
    return all(
        not entry.get("ready") or not entry.get("trafficPercent")
        for entry in (service.get("status") or {}).get("canaryStatuses") or []
    )


def is_ready(service: Object) -> bool:
    """Whether KServe calls the service ready, whichever version that is about."""
    return _condition(service, "Ready").get("status") == "True"


def _unready(service: Object, own: list[Object], others: int, target: Target) -> str:
    """What is missing until the version serves; empty for nothing."""
    ready = [pod for pod in own if _condition(pod, "Ready").get("status") == "True"]
    if target.knative:
        if missing := _knative_unready(service, own, ready, target):
            return missing
    elif len(ready) < max(1, target.min_replicas):
        return f"{len(ready)} of {max(1, target.min_replicas)} replicas of {target.words} are ready"
    elif others:
        return f"{others} pods that are to go are still there"
    if not is_ready(service):
        condition = _worst_condition(service)
        return f"the service is not ready yet: {_words(condition)}" if condition else "the service is not ready yet"
    if target.canary and not _canary_status(service, target.canary).get("ready"):
        return f"the canary {target.canary} is not ready yet"
    return ""


def _knative_unready(service: Object, own: list[Object], ready: list[Object], target: Target) -> str:
    status = _predictor_status(service)
    newest, newest_ready = status.get("latestCreatedRevision"), status.get("latestReadyRevision")
    if not newest:
        return "Knative has made no revision yet"
    if newest != newest_ready:
        return f"Knative's revision {newest} is not ready yet"
    if own:
        if not any(_label(pod, KNATIVE_REVISION_LABEL) == newest_ready for pod in ready):
            return f"{len(ready)} pods of {target.words} are ready"
    elif newest == target.knative_revision_before:  # without pods, it may be scaled to zero already
        return f"no pod of {target.words} is there yet"
    percent = sum(
        int(entry.get("percent") or 0)
        for entry in status.get("traffic") or []
        if entry.get("revisionName") == newest_ready
    )
    if percent != target.traffic_percent:
        return f"{target.words} gets {percent}% of the requests, not yet {target.traffic_percent}%"
    return ""


def _pod_failure(pod: Object) -> Verdict | None:
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in _LOST_WAITING:
            continue
        ended = (container.get("lastState") or {}).get("terminated") or {}
        words = f"pod {name}, container {container['name']}: {_words(waiting)}{_how_it_ended(ended)}"
        return Verdict("failing", words, "pod", name, container["name"])
    if status.get("phase") == "Failed":
        return Verdict("failing", f"pod {name}: {_words(status) or 'Failed'}", "pod", name)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Verdict("failing", f"pod {name}: {_words(scheduled)}", "unschedulable", name)
    return None


def _status_failure(service: Object, deployments: Iterable[Object]) -> Verdict | None:
    status, spec = service.get("status") or {}, service.get("spec") or {}
    canaries = {canary["predictor"].get("name"): canary["predictor"] for canary in spec.get("canary") or []}
    models = [(status.get("modelStatus") or {}, spec.get("predictor") or {})]
    for canary in status.get("canaryStatuses") or []:
        models.append((canary.get("modelStatus") or {}, canaries.get(canary.get("name"), {})))
    for model, version in models:
        failed = (model.get("states") or {}).get("targetModelState") == "FailedToLoad"
        if failed or model.get("transitionStatus") in _FAILED_TRANSITIONS:
            info = model.get("lastFailureInfo") or {}
            code = f" (exit code {info['exitCode']})" if info.get("exitCode") else ""
            words = f"{model.get('transitionStatus')}: {_words(info)}{code}{_about_runtime(info, version)}"
            return Verdict("failing", words, "status")
    conditions = [("", condition) for condition in status.get("conditions") or []]
    for deployment in deployments:
        name = f"deployment {deployment['metadata']['name']}: "
        own = (deployment.get("status") or {}).get("conditions") or []
        conditions += [(name, condition) for condition in own if condition["type"] == "Progressing"]
        for condition in own:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                return Verdict("failing", f"{name}{_words(condition)}", "status")
    for where, condition in conditions:
        if condition.get("status") == "False" and condition.get("reason") in _LOST_CONDITIONS:
            return Verdict("failing", f"{where}{_words(condition)}", "status")
    return None


def _about_runtime(info: Object, version: Object) -> str:
    runtime = (version.get("model") or {}).get("runtime")
    about_runtime = runtime and "runtime" in f"{info.get('reason', '')}{info.get('message', '')}".lower()
    return f" (the ServingRuntime or ClusterServingRuntime {runtime!r} is asked for)" if about_runtime else ""


def _worst_condition(service: Object) -> Object:
    conditions = (service.get("status") or {}).get("conditions") or []
    told = [condition for condition in conditions if condition.get("status") != "True" and _words(condition)]
    return min(
        told, key=lambda condition: (condition.get("status") != "False", condition["type"] == "Ready"), default={}
    )


def _condition(thing: Object, kind: str) -> Object:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _canary_status(service: Object, name: str) -> Object:
    canaries = (service.get("status") or {}).get("canaryStatuses") or []
    return next((canary for canary in canaries if canary.get("name") == name), {})


def _predictor_status(service: Object) -> Object:
    status: Object = ((service.get("status") or {}).get("components") or {}).get("predictor") or {}
    return status


def _revision(pod: Object) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION, ""))


def _label(pod: Object, name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def _how_it_ended(terminated: Object) -> str:
    if not terminated:
        return ""
    words = _words({key: terminated.get(key) for key in ("reason", "message")})
    return f"; it ended with exit code {terminated.get('exitCode')}{f', {words}' if words else ''}"


def _words(thing: Object) -> str:
    reason, message = str(thing.get("reason") or ""), str(thing.get("message") or "").strip()
    return f"{reason}: {message}" if reason and message else reason or message
