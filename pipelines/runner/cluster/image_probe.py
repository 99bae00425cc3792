"""Whether a cluster's nodes get hold of images: only a pod that runs them can tell."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.kubernetes_client import MANAGED_BY, NOT_FOUND, explained, patiently
from kfp_image_classification.components.preflight.checks import Finding, State

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

POLL_SECONDS = 0.5
REMEDY = "make images images-import (a local cluster), or push the images and compile with the same IMAGE_PREFIX"
# Reasons for which the kubelet makes a container wait; it says ContainerCreating while it pulls.
_CANNOT_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}


def probe_images(
    client: "ApiClient",
    namespace: str,
    service_account: str,
    images: Iterable[str],
    seconds: float,
    tell: Callable[[str], None],
) -> list[Finding]:
    """Runs one short pod with a container an image, and deletes it.

    Args:
        client: To the cluster.
        namespace: Where to run it.
        service_account: Whose pull secrets are used.
        images: Names of images that hold a `python3`.
        seconds: How long pulling may take; the cluster ends the pod a minute later, whatever happens to this process.
        tell: Told about errors that pass.
    """
    from kubernetes.client import ApiException, CoreV1Api

    api, names = CoreV1Api(client), list(images)
    try:
        pod = patiently(
            client, lambda: api.create_namespaced_pod(namespace, _pod(names, service_account, seconds)), tell
        )
    except ApiException as error:
        return [Finding(State.UNKNOWN, f"images: a pod that tries them cannot be created: {explained(error)}")]
    name = pod.metadata.name
    try:
        return _watch(lambda: patiently(client, lambda: api.read_namespaced_pod(name, namespace), tell), names, seconds)
    except ApiException as error:
        return [Finding(State.UNKNOWN, f"images: the pod {name} that tries them is lost: {explained(error)}")]
    finally:
        try:
            patiently(client, lambda: api.delete_namespaced_pod(name, namespace, grace_period_seconds=0), tell)
        except ApiException as error:
            if error.status != NOT_FOUND:
                tell(f"the pod {name} stays, for {seconds + 60:.0f} s at most: {explained(error)}")


def _watch(read: Callable[[], Any], images: list[str], seconds: float) -> list[Finding]:
    deadline = time.monotonic() + seconds
    while True:
        pod = read()
        statuses = {status.name: status for status in (pod.status and pod.status.container_statuses) or []}
        findings = [_verdict(image, statuses.get(_container_name(index))) for index, image in enumerate(images)]
        if None not in findings or time.monotonic() > deadline:
            return [finding or _undecided(image, pod, seconds) for finding, image in zip(findings, images, strict=True)]
        time.sleep(POLL_SECONDS)


def _verdict(image: str, status: Any) -> Finding | None:
    """What a container's status says of its image; None while it says nothing yet."""
    state = status.state if status else None
    if state and state.terminated and state.terminated.exit_code != 0:
        why = state.terminated.message or state.terminated.reason or f"exit code {state.terminated.exit_code}"
        return Finding(State.MISSING, f"image {image} is there, but runs no python3: {why}", REMEDY)
    if state and (state.running or state.terminated):
        return Finding(State.OK, f"image {image}")
    if state and state.waiting and state.waiting.reason in _CANNOT_PULL:
        return Finding(
            State.MISSING, f"image {image} cannot be pulled: {state.waiting.message or state.waiting.reason}", REMEDY
        )
    return None


def _undecided(image: str, pod: Any, seconds: float) -> Finding:
    for condition in (pod.status and pod.status.conditions) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return Finding(State.UNKNOWN, f"image {image}: no node takes a pod to try it: {condition.message}")
    return Finding(State.UNKNOWN, f"image {image}: not pulled within {seconds:.0f} s; a longer --timeout may tell")


def _pod(images: list[str], service_account: str, seconds: float) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "image-classification-preflight-", "labels": MANAGED_BY},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": service_account,
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": int(seconds) + 60,
            "containers": [_container(_container_name(index), image) for index, image in enumerate(images)],
        },
    }


def _container(name: str, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "--version"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _container_name(index: int) -> str:
    return f"image-{index}"
