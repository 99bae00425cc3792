"""`--check`: what a cluster lacks, through the command line and the cluster's API over HTTP."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes_api import KubernetesApi

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE, SERVER_IMAGE, TENSORFLOW_IMAGE

Command = Callable[..., SimpleNamespace]
PULLED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
NOT_PULLED = {"waiting": {"reason": "ImagePullBackOff", "message": "pull access denied"}}
PULLING = {"waiting": {"reason": "ContainerCreating"}}
NO_PYTHON = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: python3: not found"}}


class Kubelet:
    """Gives each container of a new pod the state that its image leads to."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self.states: dict[str, dict[str, Any]] = {}
        self.conditions: list[dict[str, str]] = []
        self.pods: list[dict[str, Any]] = []
        self.evicts = False

    def act(self, change: Any) -> None:
        if change.type != "ADDED":
            return
        self.pods.append(change.item)
        if self.evicts:
            self._api.delete("pods", change.item["metadata"]["name"])
            return
        statuses = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": self.states.get(container["image"] if "volumeMounts" not in container else "volume", PULLED),
            }
            for container in change.item["spec"]["containers"]
        ]
        status = {"conditions": self.conditions} if self.conditions else {"containerStatuses": statuses}
        self._api.set_status("pods", change.item["metadata"]["name"], status)


def use(api: KubernetesApi, token: str) -> None:
    """Lets the command use another token."""
    api.write_kubeconfig(Path(os.environ["KUBECONFIG"]), token=token)


@pytest.fixture
def kubelet(kubernetes_api: KubernetesApi) -> Iterator[Kubelet]:
    """A cluster with all that is needed, on whose nodes pods run; the user is its administrator."""
    use(kubernetes_api, kubernetes_api.admin_token)
    there = {account["metadata"]["name"] for account in kubernetes_api.objects("serviceaccounts")}
    for name in {"pipeline-runner", "model-reader"} - there:
        kubernetes_api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "image-classification"}}
    kubernetes_api.create({**claim, "spec": spec})
    kubernetes_api.set_status("persistentvolumeclaims", "image-classification", {"phase": "Bound"})
    kubelet = Kubelet(kubernetes_api)
    with kubernetes_api.controller("pods", kubelet.act):
        yield kubelet


BACKENDS = ["--train-backend", "auto", "--deploy-backend", "auto"]


def test_nothing_is_missing(command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet) -> None:
    ended = command("--check", *BACKENDS)
    assert (ended.code, ended.err) == (0, [])
    about = f"checking namespace kubeflow of {kubernetes_api.url}, Kubernetes v1."
    assert re.fullmatch(re.escape(about) + r"\d+\.\d+", ended.out[0])
    assert ended.out[1:] == [
        "ok       service account pipeline-runner",
        "ok       service account model-reader",
        "ok       TFJob (kubeflow.org/v1)",
        "ok       InferenceService (serving.kserve.io/v1beta1)",
        "ok       permissions of pipeline-runner",
        "ok       volume claim image-classification is bound (ReadWriteMany)",
        f"ok       image {TENSORFLOW_IMAGE}",
        f"ok       image {LAUNCHER_IMAGE}",
        f"ok       image {SERVER_IMAGE}",
        "ok       volume of claim image-classification can be written by the steps",
        "nothing is missing",
    ]
    assert ("create", "/apis/authorization.k8s.io/v1/subjectaccessreviews") in kubernetes_api.requests
    assert kubernetes_api.objects("pods") == [], "the pod that tried the images is gone"
    (pod,) = kubelet.pods
    assert pod["spec"]["activeDeadlineSeconds"] > 0, "and would go by itself"
    assert pod["spec"]["serviceAccountName"] == "pipeline-runner", "whose pull secrets count"


Change = Callable[[KubernetesApi, Kubelet], object]


def no_pull(api: KubernetesApi, kubelet: Kubelet) -> None:
    kubelet.states[SERVER_IMAGE] = NOT_PULLED


def no_python(api: KubernetesApi, kubelet: Kubelet) -> None:
    kubelet.states[LAUNCHER_IMAGE] = NO_PYTHON


def other_namespace(api: KubernetesApi, kubelet: Kubelet) -> None:
    api.delete("persistentvolumeclaims", "image-classification")


def volume_of_root(api: KubernetesApi, kubelet: Kubelet) -> None:
    message = "mkdir: cannot create directory '/mnt/storage/datasets': Permission denied\n"
    kubelet.states["volume"] = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda api, kubelet: api.delete("serviceaccounts", "model-reader"),
            [
                "missing  service account model-reader: there is none in kubeflow",
                "         mend it with: kubectl apply --server-side -k manifests/overlays/local",
            ],
        ),
        (
            lambda api, kubelet: api.forbid("update", "inferenceservices"),
            ["missing  permission: pipeline-runner may not update inferenceservices.serving.kserve.io"],
        ),
        (no_pull, [f"missing  image {SERVER_IMAGE} cannot be pulled: pull access denied"]),
        (no_python, [f"missing  image {LAUNCHER_IMAGE} is there, but runs no python3: exec: python3: not found"]),
        (other_namespace, ["missing  volume claim image-classification: there is none"]),
        (
            volume_of_root,
            [
                "missing  volume of claim image-classification cannot be written by the steps: mkdir: cannot create "
                "directory '/mnt/storage/datasets': Permission denied",
                "         mend it with: kubectl apply --server-side -k manifests/overlays/local",
            ],
        ),
    ],
)
def test_what_is_missing_is_told(
    command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet, change: Change, expected: list[str]
) -> None:
    change(kubernetes_api, kubelet)
    ended = command("--check", *BACKENDS)
    assert ended.code == 1
    for line in expected:
        assert line in ended.out
    assert ended.out[-1] == "1 missing"
    assert kubernetes_api.objects("pods") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda api, kubelet: (api.forbid("create", "pods"), use(api, api.token)),
            'unknown  images: a pod that tries them cannot be created: pods is forbidden: User "system:serviceaccount:'
            'kubeflow:pipeline-runner" cannot create resource "pods" in API group "" in the namespace "kubeflow" '
            "(HTTP 403)",
        ),
        (
            lambda api, kubelet: kubelet.states.update(
                {TENSORFLOW_IMAGE: {"waiting": {"reason": "ContainerCreating"}}}
            ),
            f"unknown  image {TENSORFLOW_IMAGE}: not pulled within 1 s; a longer --timeout may tell",
        ),
        (
            lambda api, kubelet: kubelet.conditions.append(
                {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 has a taint"}
            ),
            f"unknown  image {SERVER_IMAGE}: no node takes a pod to try it: 0/1 nodes are available: 1 has a taint",
        ),
    ],
)
def test_what_cannot_be_told_is_not_missing(
    command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet, change: Change, expected: str
) -> None:
    change(kubernetes_api, kubelet)
    ended = command("--check", "--timeout", "1", *BACKENDS)
    assert expected in ended.out
    assert (ended.code, ended.out[-1]) == (0, "nothing is missing")


def test_a_pod_that_is_taken_away_tells_nothing(
    command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet
) -> None:
    kubelet.evicts = True
    ended = command("--check", *BACKENDS)
    assert (ended.code, ended.err) == (0, [])
    assert any(line.startswith("unknown  images: the pod image-classification-preflight-") for line in ended.out)


def test_a_pod_that_may_not_be_deleted_is_told(
    command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet
) -> None:
    use(kubernetes_api, kubernetes_api.token_of_user({"pods": ["create", "get"]}))
    ended = command("--check", *BACKENDS)
    assert ended.code == 0
    assert any(" stays, for 180 s at most: " in line for line in ended.out)
    assert not [line for line in ended.out if line.startswith("missing")], "what the user may not see"


@pytest.mark.fake_api  # it goes away
def test_an_unreachable_cluster(command: Command, kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.stop()
    ended = command("--check", *BACKENDS)
    assert ended.code == 1
    assert ended.err[0].startswith("error: the cluster's API cannot be used: ")


def test_a_token_that_is_not_accepted(command: Command, kubernetes_api: KubernetesApi) -> None:
    use(kubernetes_api, "another")
    ended = command("--check", *BACKENDS)
    assert ended.code == 1
    assert ended.err[0].startswith("error: the cluster's API cannot be used: Unauthorized (HTTP 401)")


def test_without_a_kubeconfig(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    ended = command("--check", *BACKENDS)
    assert ended.code == 2
    assert ended.err[0].startswith("error: no cluster can be reached: ")


def test_the_volume_is_tried_as_a_step_uses_it(command: Command, kubelet: Kubelet) -> None:
    """With the image's own user, and without an fsGroup, which Kubeflow Pipelines does not set."""
    assert command("--check", *BACKENDS).code == 0
    (pod,) = kubelet.pods
    assert not pod["spec"].get("securityContext")
    (container,) = [container for container in pod["spec"]["containers"] if container.get("volumeMounts")]
    assert container["image"] == LAUNCHER_IMAGE
    assert not {"runAsUser", "runAsGroup"} & set(container["securityContext"])
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "image-classification"}


def test_another_claim_is_made_by_its_own_name(
    command: Command, kubernetes_api: KubernetesApi, kubelet: Kubelet
) -> None:
    ended = command("--check", *BACKENDS, "--pvc", "team-data")
    assert "missing  volume claim team-data: there is none" in ended.out
    (remedy,) = [line for line in ended.out if "sed" in line]
    assert remedy.endswith(
        "/: \\1team-data/' manifests/base/volume.yaml | kubectl -n kubeflow apply --server-side -f -"
    )
    (pod,) = kubelet.pods
    assert not pod["spec"].get("volumes"), "a pod that mounts it would never start"
