"""Whether a cluster's nodes get hold of images, and steps can write on the volume: only a pod that does it can tell."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.cluster.kubernetes_client import MANAGED_BY, NOT_FOUND, explained, patiently
from kfp_image_classification.components.cluster.storage import MOUNT_PATH, claim_command
from kfp_image_classification.components.preflight.checks import Finding, State

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

POLL_SECONDS = 0.5
REMEDY = "make images images-import (a local cluster), or push the images and compile with the same IMAGE_PREFIX"
# As a step does it: a folder of its own in one that all share.
WRITE = 'mkdir -p "$1/datasets" "$1/runs" && file=$(mktemp -p "$1/datasets" .written-XXXXXX) && rm "$file"'
# Reasons for which the kubelet makes a container wait; it says ContainerCreating while it pulls.
_CANNOT_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}


def probe_images(
    client: "ApiClient",
    namespace: str,
    service_account: str,
    images: Iterable[str],
    seconds: float,
    tell: Callable[[str], None],
    pvc: str = "",
) -> list[Finding]:
    """Runs one short pod with a container an image, and one that writes on the volume, and deletes it.

    Args:
        client: To the cluster.
        namespace: Where to run it.
        service_account: Whose pull secrets are used.
        images: Names of images that hold a `python3`.
        seconds: How long pulling may take; the cluster ends the pod a minute later, whatever happens to this process.
        tell: Told about errors that pass.
        pvc: The claim of the volume, which must be there; empty for none.
    """
    from kubernetes.client import ApiException, CoreV1Api

    api, names = CoreV1Api(client), list(images)
    probes: list[_Probe] = [_ImageProbe(_container_name(index), image) for index, image in enumerate(names)]
    if pvc:
        probes.append(_VolumeProbe("volume", LAUNCHER_IMAGE, pvc, claim_command(pvc, namespace)))
    try:
        pod = patiently(
            client, lambda: api.create_namespaced_pod(namespace, _pod(probes, service_account, seconds)), tell
        )
    except ApiException as error:
        return [Finding(State.UNKNOWN, f"images: a pod that tries them cannot be created: {explained(error)}")]
    name = pod.metadata.name
    try:
        return _watch(
            lambda: patiently(client, lambda: api.read_namespaced_pod(name, namespace), tell), probes, seconds
        )
    except ApiException as error:
        return [Finding(State.UNKNOWN, f"images: the pod {name} that tries them is lost: {explained(error)}")]
    finally:
        try:
            patiently(client, lambda: api.delete_namespaced_pod(name, namespace, grace_period_seconds=0), tell)
        except ApiException as error:
            if error.status != NOT_FOUND:
                tell(f"the pod {name} stays, for {seconds + 60:.0f} s at most: {explained(error)}")


@dataclass(frozen=True)
class _ImageProbe:
    """A container that says with its state whether its image can be had."""

    name: str
    image: str

    @property
    def what(self) -> str:
        return f"image {self.image}"

    def container(self) -> dict[str, Any]:
        return {**_container(self.name, self.image), "command": ["python3", "--version"]}

    def verdict(self, state: Any) -> Finding | None:
        """What the state of the container says; None while it says nothing yet."""
        if state.terminated and state.terminated.exit_code != 0:
            return Finding(
                State.MISSING, f"{self.what} is there, but runs no python3: {_why(state.terminated)}", REMEDY
            )
        if state.running or state.terminated:
            return Finding(State.OK, self.what)
        if reason := _cannot_pull(state):
            return Finding(State.MISSING, f"{self.what} cannot be pulled: {reason}", REMEDY)
        return None


@dataclass(frozen=True)
class _VolumeProbe:
    """A container that writes on the volume as a step does: with the image's own user and no fsGroup."""

    name: str
    image: str
    pvc: str
    remedy: str

    @property
    def what(self) -> str:
        return f"volume of claim {self.pvc}"

    def container(self) -> dict[str, Any]:
        return {
            **_container(self.name, self.image),
            "command": ["sh", "-c", WRITE, "write", MOUNT_PATH],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "storage", "mountPath": MOUNT_PATH}],
        }

    def verdict(self, state: Any) -> Finding | None:
        """What the state of the container says; None while it says nothing yet."""
        if state.terminated and state.terminated.exit_code != 0:
            why = _why(state.terminated).strip()
            return Finding(State.MISSING, f"{self.what} cannot be written by the steps: {why}", self.remedy)
        if state.terminated:
            return Finding(State.OK, f"{self.what} can be written by the steps")
        if reason := _cannot_pull(state):
            return Finding(State.UNKNOWN, f"{self.what}: its image cannot be pulled: {reason}")
        return None


_Probe = _ImageProbe | _VolumeProbe


def _watch(read: Callable[[], Any], probes: Sequence[_Probe], seconds: float) -> list[Finding]:
    deadline = time.monotonic() + seconds
    while True:
        pod = read()
        states = {status.name: status.state for status in (pod.status and pod.status.container_statuses) or []}
        findings = [probe.verdict(states[probe.name]) if states.get(probe.name) else None for probe in probes]
        if None not in findings or time.monotonic() > deadline:
            return [finding or _undecided(probe, pod, seconds) for finding, probe in zip(findings, probes, strict=True)]
        time.sleep(POLL_SECONDS)


def _why(terminated: Any) -> str:
    return str(terminated.message or terminated.reason or f"exit code {terminated.exit_code}")


def _cannot_pull(state: Any) -> str:
    if state.waiting and state.waiting.reason in _CANNOT_PULL:
        return str(state.waiting.message or state.waiting.reason)
    return ""


def _undecided(probe: _Probe, pod: Any, seconds: float) -> Finding:
    for condition in (pod.status and pod.status.conditions) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return Finding(State.UNKNOWN, f"{probe.what}: no node takes a pod to try it: {condition.message}")
    missed = "not pulled" if isinstance(probe, _ImageProbe) else "not mounted"
    return Finding(State.UNKNOWN, f"{probe.what}: {missed} within {seconds:.0f} s; a longer --timeout may tell")


def _pod(probes: Sequence[_Probe], service_account: str, seconds: float) -> dict[str, Any]:
    claims = [probe.pvc for probe in probes if isinstance(probe, _VolumeProbe)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "image-classification-preflight-", "labels": MANAGED_BY},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": service_account,
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": int(seconds) + 60,
            "containers": [probe.container() for probe in probes],
            "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        },
    }


def _container(name: str, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
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
