"""The preflight as a step of a pipeline, against a cluster's API over HTTP."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kubernetes_api import KubernetesApi
from repository import REPOSITORY

from kfp_image_classification.components.deploy import deploy
from kfp_image_classification.components.preflight.report import check_own_cluster
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train import train

APPLY = "kubectl apply --server-side -k manifests/overlays/local"
Outcome = tuple[int, list[str]]
Step = Callable[..., Outcome]


class Told(logging.Handler):
    """Keeps the lines that a step logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.log = logging.Logger("preflight")
        self.log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def step(kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Runs the step in a pod of a cluster that has all that is needed: its exit code, and the lines told."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    add_claim(kubernetes_api, "Bound")
    kubernetes_api.create(yaml.safe_load((REPOSITORY / "manifests" / "trainer" / "training-runtime.yaml").read_text()))

    def run(train_backend: str = "auto", deploy_backend: str = "auto", pvc: str = "data") -> Outcome:
        told = Told()
        try:
            check_own_cluster(train_backend, deploy_backend, pvc, told.log)
        except StageFailed as error:
            return 1, [*told.lines, str(error)]
        return 0, told.lines

    return run


def add_claim(api: KubernetesApi, phase: str, name: str = "data") -> None:
    api.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    api.set_status("persistentvolumeclaims", name, {"phase": phase})


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ({}, ["TFJob (kubeflow.org/v1)", "InferenceService (serving.kserve.io/v1beta1)"]),
        (
            {"train_backend": "trainjob"},
            [
                "TrainJob (trainer.kubeflow.org/v1alpha1)",
                "ClusterTrainingRuntime tensorflow-distributed",
                "InferenceService (serving.kserve.io/v1beta1)",
            ],
        ),
    ],
)
def test_a_cluster_that_has_everything(
    step: Step, kubernetes_api: KubernetesApi, backends: dict[str, str], expected: list[str]
) -> None:
    code, lines = step(**backends)
    general = [
        "permissions of this step's service account",
        "volume claim data is bound (ReadWriteOnce)",
    ]
    assert (code, sorted(lines)) == (0, sorted(f"{'ok':<8} {what}" for what in [*expected, *general]))
    reviews = {path for verb, path in kubernetes_api.requests if verb == "create"}
    assert reviews == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}, "nothing is created"


TRAINED_ON = "on a cluster the workers would be processes of this pod, whose image has no TensorFlow"
SERVED_ON = "on a cluster the model server would end with this pod, whose image lacks its packages"
LOCAL = {
    "train_backend": f"train_backend = 'local': {TRAINED_ON}; give auto, tfjob or trainjob",
    "deploy_backend": f"deploy_backend = 'local': {SERVED_ON}; give auto or kserve",
}


@pytest.mark.parametrize("parameters", [["train_backend"], ["deploy_backend"], [*LOCAL]], ids=" and ".join)
def test_local_backends_are_refused_before_anything_is_trained(step: Step, parameters: list[str]) -> None:
    code, lines = step(**dict.fromkeys(parameters, "local"))
    assert code == 1
    assert [line for line in lines if "missing" in line] == [f"missing  {LOCAL[name]}" for name in parameters]


def test_local_run_that_somebody_started_in_a_pod(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook's pod, say: its processes stay, and have what they need."""
    monkeypatch.setenv("RUN_OWNER_PID", "1")
    assert step(train_backend="local", deploy_backend="local")[0] == 0


def test_train_and_deploy_refuse_them_too(
    step: Step, kubernetes_api: KubernetesApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {name: dsl.Artifact(name=name, uri=str(tmp_path / name)) for name in ("model", "metrics", "curves")}
    with pytest.raises(SystemExit):
        train.python_func(shards=dsl.Dataset(uri=str(tmp_path)), backend="local", task_config=None, **outputs)
    with pytest.raises(SystemExit):
        deploy.python_func(model=outputs["model"], endpoint=outputs["curves"], backend="local")
    said = capsys.readouterr().out
    assert f"[train cnn] error: {LOCAL['train_backend'].removeprefix('train_')}" in said
    assert f"[deploy] error: {LOCAL['deploy_backend'].removeprefix('deploy_')}" in said
    assert not list(tmp_path.glob("m*")), "nothing is made"


Change = Callable[[KubernetesApi], object]


def serve_another_version(api: KubernetesApi) -> None:
    crd = api.get("customresourcedefinitions", "tfjobs.kubeflow.org", "")
    api.delete("customresourcedefinitions", "tfjobs.kubeflow.org", "")
    (version,) = crd["spec"]["versions"]
    spec = {**crd["spec"], "versions": [{**version, "name": "v9"}]}
    metadata = {"name": crd["metadata"]["name"]}
    api.create({key: crd[key] for key in ("apiVersion", "kind")} | {"metadata": metadata, "spec": spec})


def waiting_claim(api: KubernetesApi) -> None:
    add_claim(api, "Pending", "waiting")
    api.add_event("persistentvolumeclaims", "waiting", "WaitForFirstConsumer", "waiting for first consumer")


def failed_claim(api: KubernetesApi) -> None:
    add_claim(api, "Pending", "failed")
    api.add_event("persistentvolumeclaims", "failed", "ProvisioningFailed", 'storageclass "fast" not found')


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (
            lambda api: api.delete("customresourcedefinitions", "tfjobs.kubeflow.org", ""),
            {},
            [
                "missing  TFJob (kubeflow.org/v1): the cluster does not know it",
                '         mend it with: kubectl apply --server-side -k "https://github.com/kubeflow/training-operator.git'
                '/manifests/overlays/standalone?ref=v1.9.3"',
            ],
        ),
        (
            serve_another_version,
            {},
            ["missing  TFJob (kubeflow.org/v1): the cluster has v9 instead; install a version that serves v1"],
        ),
        (
            lambda api: api.forbid("create", "tfjobs"),
            {},
            [
                "missing  permission: this step's service account may not create tfjobs.kubeflow.org",
                f"         mend it with: {APPLY}",
            ],
        ),
        (
            lambda api: api.forbid("get", "pods", "log"),
            {},
            ["missing  permission: this step's service account may not get pods/log"],
        ),
        (
            lambda api: api.forbid("", "inferenceservices"),
            {},
            [
                "missing  permission: this step's service account may not get, create, update, delete "
                "inferenceservices.serving.kserve.io"
            ],
        ),
        (lambda api: None, {"pvc": "lost"}, ["missing  volume claim lost: there is none"]),
        (
            lambda api: api.forbid("get", "persistentvolumeclaims"),
            {},
            ["missing  permission: this step's service account may not get persistentvolumeclaims"],
        ),
        (
            failed_claim,
            {"pvc": "failed"},
            [
                'missing  volume claim failed is not bound but Pending: storageclass "fast" not found',
                "         mend it with: kubectl -n kubeflow describe pvc failed",
            ],
        ),
        (
            lambda api: api.delete("clustertrainingruntimes", "tensorflow-distributed", ""),
            {"train_backend": "trainjob"},
            [
                "missing  ClusterTrainingRuntime tensorflow-distributed: there is none",
                f"         mend it with: {APPLY}-trainer",
            ],
        ),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(
    step: Step, kubernetes_api: KubernetesApi, change: Change, options: dict[str, str], expected: list[str]
) -> None:
    change(kubernetes_api)
    code, lines = step(**options)
    assert code == 1
    for line in expected:
        assert line in lines
    assert "that the pipeline needs; see above" in lines[-1]


def test_a_volume_may_wait_for_its_first_pod(step: Step, kubernetes_api: KubernetesApi) -> None:
    waiting_claim(kubernetes_api)
    code, lines = step(pvc="waiting")
    assert code == 0
    assert "ok       volume claim waiting will be bound when the first step mounts it (ReadWriteOnce)" in lines


def test_without_a_volume_none_is_looked_for(step: Step) -> None:
    code, lines = step(pvc="")
    assert (code, [line for line in lines if "volume" in line]) == (0, [])


@pytest.mark.fake_api
def test_a_restart_of_the_api_is_waited_for(step: Step, kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.fail(times=2, status=503)
    code, lines = step()
    assert code == 0
    assert "the cluster's API: a fault of the test: Fault (HTTP 503); trying again in" in lines[0]


def test_outside_of_a_cluster_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    told = Told()
    check_own_cluster("tfjob", "kserve", "data", told.log)
    assert told.lines == ["not in a cluster: nothing to check"]
