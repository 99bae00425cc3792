"""Deploys, promotes and rolls back through a real API over HTTP, on which a controller acts as KServe does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kserve_controller import KServe
from kubernetes_api import ApiError, KubernetesApi, Resource
from kubernetes_api.crds import needs_definitions

from kfp_image_classification.components.contracts.deployed_model import DeployedModel, champion
from kfp_image_classification.components.deploy.endpoint import Endpoint
from kfp_image_classification.components.deploy.kserve.cluster import deploy_to_cluster, promote_canary, roll_back
from kfp_image_classification.components.deploy.options import DeployOptions, ServiceChange
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")
QUICK = {
    "wait_seconds": 8,
    "poll_seconds": 0.05,
    "settle_seconds": 0.3,
    "unschedulable_seconds": 0.3,
    "smoke_seconds": 0.5,
}
IMAGE = "iVBORw0KGgo="


@pytest.fixture
def kserve(kubernetes_api: KubernetesApi) -> Iterator[KServe]:
    with KServe(kubernetes_api).running() as controller:
        yield controller


class Deployer:
    """Deploys models of one service, each with answers of its own."""

    def __init__(self, kserve: KServe, directory: Path) -> None:
        self.kserve = kserve
        self.api = kserve.api
        self.directory = directory

    def model(self, number: int, fate: str = "serves") -> str:
        """Makes a model; returns its URI."""
        uri = f"s3://models/{number}"
        probabilities = [0.9 - number / 100, 0.1 + number / 100]
        card = {
            "model_type": "cnn",
            "parameters": 10,
            "image_shape": [28, 28, 1],
            "class_names": ["0", "1"],
            "dataset": "mnist_5k",
            "dataset_fingerprint": "f1",
            "options": {},
            "run": "",
            "git_revision": "",
            "versions": {},
            "examples": [{"label": "0", "png": IMAGE, "logits": [1.0, 0.0], "probabilities": probabilities}],
        }
        file = self.directory / str(number) / "1" / "assets.extra" / "model.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(card))
        self.kserve.fate[uri] = fate
        self.kserve.answers[uri] = [probabilities]
        return uri

    def deploy(self, number: int, fate: str = "serves", run: str = "", canary: int = 0, **settings: Any) -> Endpoint:
        uri = self.model(number, fate)
        minio = uri.replace("s3://", "minio://")
        model = DeployedModel(run=run or f"run-{number}", model_uri=minio, val_accuracy=0.9 + number / 100)
        ingress = {"ingress_url": self.kserve.url}
        options = DeployOptions(
            backend="kserve",
            service_name="digits",
            min_replicas=settings.pop("min_replicas", 1),
            canary_percent=canary,
            service={**QUICK, **ingress, **settings},
        )
        return deploy_to_cluster(self.directory / str(number), model, options, self.directory / "endpoint", LOG)

    @property
    def change(self) -> ServiceChange:
        return ServiceChange(service_name="digits", service={**QUICK, "ingress_url": self.kserve.url})

    @property
    def service(self) -> dict[str, Any]:
        return self.api.get("inferenceservices", "digits")

    @property
    def spec(self) -> dict[str, Any]:
        return self.service["spec"]

    @property
    def is_there(self) -> bool:
        return bool(self.api.objects("inferenceservices"))

    def writes(self) -> list[str]:
        return [
            verb
            for verb, path in self.api.requests
            if verb in ("create", "update", "delete") and "inferenceservices" in path
        ]


@pytest.fixture
def deployer(kserve: KServe, tmp_path: Path) -> Deployer:
    return Deployer(kserve, tmp_path)


MODES = pytest.mark.parametrize("mode", ["Standard", "Knative"])


@MODES
def test_first_deployment_and_update(deployer: Deployer, mode: str) -> None:
    endpoint = deployer.deploy(1, deployment_mode=mode)
    assert Endpoint.read(deployer.directory / "endpoint") == endpoint
    assert (endpoint.namespace, endpoint.host, endpoint.pid) == ("kubeflow", "digits.example.com", 0)
    assert deployer.kserve.asked[-1] == "digits.example.com"
    deployer.deploy(2, deployment_mode=mode)
    assert deployer.spec["predictor"]["model"]["storageUri"] == "s3://models/2"
    newest = champion(deployer.service)
    assert (newest.run, newest.model_uri, newest.val_accuracy) == ("run-2", "minio://models/2", 0.92)
    pods = deployer.kserve.pods("digits")
    pod = next(pod for pod in pods if DeployedModel.of_predictor(pod["metadata"]) == newest)
    assert pod["metadata"]["labels"]["pipeline/runid"] == "run-2"


def test_removed_settings_go_away(deployer: Deployer) -> None:
    deployer.deploy(
        1,
        logger={"mode": "request", "url": "http://message-dumper"},
        labels={"team": "a"},
        annotations={"note": "x"},
        resources={"limits": {"cpu": 1.0}},
    )
    deployer.api.update("inferenceservices", "digits", lambda one: _with_label(one, "other", "kept"))
    assert deployer.spec["predictor"]["logger"] == {"mode": "request", "url": "http://message-dumper"}
    deployer.deploy(1)
    assert "logger" not in deployer.spec["predictor"]
    assert "resources" not in deployer.spec["predictor"]["model"]
    metadata = deployer.service["metadata"]
    assert metadata["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    assert metadata["labels"].keys() == {"app.kubernetes.io/managed-by", "pipeline/runid", "other"}


def _with_label(item: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    item["metadata"]["labels"][name] = value
    return item


@MODES
def test_deploying_the_same_again_changes_nothing(deployer: Deployer, mode: str) -> None:
    deployer.deploy(1, run="first", deployment_mode=mode)
    before = deployer.service
    deployer.deploy(1, run="second", deployment_mode=mode)
    assert deployer.service["metadata"]["generation"] == before["metadata"]["generation"]
    assert deployer.service["spec"] == before["spec"]


def test_another_model_at_the_same_place_is_another_version(deployer: Deployer) -> None:
    deployer.deploy(1)
    pods = deployer.kserve.pods("digits")
    card = deployer.directory / "1" / "1" / "assets.extra" / "model.json"
    options = DeployOptions(service_name="digits", service={**QUICK, "ingress_url": deployer.kserve.url})
    card.write_text(card.read_text().replace('"mnist_5k"', '"mnist"'))
    model = DeployedModel(model_uri="s3://models/1")
    deploy_to_cluster(deployer.directory / "1", model, options, deployer.directory / "endpoint", LOG)
    assert not {one["metadata"]["name"] for one in pods} & _names(deployer.kserve.pods("digits"))


def _names(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


FAILURES = {
    "image": 'ImagePullBackOff: Back-off pulling image "tensorflow/serving:9.9"',
    "crash": "it ended with exit code 134, Error\nthe end of its log:\n  loading\n  Op type not registered",
    "unschedulable": "0/3 nodes are available: 3 Insufficient cpu.",
    "quota": "exceeded quota: compute",
    "invalid": "InvalidSpec: RuntimeNotRecognized: Waiting for runtime to become available",
    "not-loaded": "BlockedByFailedLoad: ModelLoadFailed: Op type not registered (exit code 1)",
    "wrong": "answers otherwise than the trained model did",
    "silent": "gave no usable answer: Server error '503 Service Unavailable'",
    "coming": "is not ready after 1 s (service.wait_seconds): 0 of 1 replicas of the new version are ready",
}


@pytest.mark.parametrize("fate", FAILURES)
def test_failed_update_puts_the_version_before_back(deployer: Deployer, fate: str) -> None:
    deployer.deploy(1)
    before = deployer.service
    started = time.monotonic()
    with pytest.raises(StageFailed) as failure:
        deployer.deploy(2, fate, wait_seconds=1 if fate == "coming" else 60)
    assert FAILURES[fate] in str(failure.value)
    assert str(failure.value).endswith("digits: the version before is put back; it is ready.")
    assert deployer.spec == before["spec"]
    for part in ("labels", "annotations"):
        assert deployer.service["metadata"][part] == before["metadata"][part]
    assert time.monotonic() - started < 30, "it must not wait for what can never become ready"


@pytest.mark.parametrize("fate", ["image", "not-loaded", "wrong"])
def test_failed_first_deployment_leaves_nothing(deployer: Deployer, fate: str) -> None:
    with pytest.raises(StageFailed, match="its first deployment: the service is removed again"):
        deployer.deploy(1, fate)
    assert not deployer.is_there
    with pytest.raises(StageFailed, match="left in place"):
        deployer.deploy(1, fate, keep_failed=True)
    assert deployer.is_there


def test_failed_update_of_what_was_not_ready_before(deployer: Deployer) -> None:
    with pytest.raises(StageFailed):
        deployer.deploy(1, "image", keep_failed=True)
    with pytest.raises(StageFailed, match="is put back; it was not ready before either"):
        deployer.deploy(2, "crash")
    assert deployer.spec["predictor"]["model"]["storageUri"] == "s3://models/1"
    deployer.deploy(3)


@MODES
def test_failed_smoke_prediction_puts_the_version_before_back(deployer: Deployer, mode: str) -> None:
    deployer.deploy(1, deployment_mode=mode)
    with pytest.raises(StageFailed, match="it is ready"):
        deployer.deploy(2, "wrong", deployment_mode=mode)
    assert deployer.spec["predictor"]["model"]["storageUri"] == "s3://models/1"
    assert deployer.kserve.answer("digits") == deployer.kserve.answers["s3://models/1"]


def test_scaled_to_zero(deployer: Deployer) -> None:
    deployer.kserve.scales_to_zero = True
    for number in (1, 2, 2):
        deployer.deploy(number, deployment_mode="Knative", min_replicas=0)


@pytest.mark.parametrize(("mode", "percent"), [("Standard", 10), ("Standard", 50), ("Knative", 10)])
def test_canary_promoted(deployer: Deployer, mode: str, percent: int) -> None:
    deployer.deploy(1, deployment_mode=mode, min_replicas=2)
    pods = deployer.kserve.pods("digits")
    deployer.deploy(2, canary=percent, deployment_mode=mode, min_replicas=2)
    assert champion(deployer.service).val_accuracy == 0.91, "the stable version stays the champion"
    if mode == "Standard":
        assert _names(pods) <= _names(deployer.kserve.pods("digits")), "its pods are not touched"
    canary_pods = _names(deployer.kserve.pods("digits")) - _names(pods)
    promote_canary(deployer.change, LOG)
    assert champion(deployer.service).val_accuracy == 0.92
    assert deployer.spec.keys() == {"predictor"}
    assert deployer.spec["predictor"]["minReplicas"] == 2
    assert deployer.spec["predictor"]["maxReplicas"] == 3
    assert "canaryTrafficPercent" not in deployer.spec["predictor"]
    assert canary_pods <= _names(deployer.kserve.pods("digits")), "its pods go on running"
    deployer.deploy(3, deployment_mode=mode)
    roll_back(deployer.change, LOG)
    assert champion(deployer.service).val_accuracy == 0.92


@MODES
def test_canary_rolled_back(deployer: Deployer, mode: str) -> None:
    deployer.deploy(1, deployment_mode=mode)
    deployer.deploy(2, canary=20, deployment_mode=mode)
    deployer.deploy(3, canary=20, deployment_mode=mode)
    roll_back(deployer.change, LOG)
    assert champion(deployer.service).val_accuracy == 0.91
    assert deployer.spec["predictor"]["model"]["storageUri"] == "s3://models/1"
    with pytest.raises(InvalidInput, match="no canary is under way"):
        promote_canary(deployer.change, LOG)


@pytest.mark.parametrize("fate", ["image", "wrong", "silent"])
@MODES
def test_failed_canary_is_taken_away(deployer: Deployer, mode: str, fate: str) -> None:
    deployer.deploy(1, deployment_mode=mode)
    before = deployer.spec
    with pytest.raises(StageFailed, match="it is ready"):
        deployer.deploy(2, fate, canary=50, deployment_mode=mode)
    assert deployer.spec == before


def test_ingress_that_does_not_split_requests(deployer: Deployer) -> None:
    deployer.deploy(1)
    deployer.kserve.splits = False
    with pytest.raises(StageFailed, match="none of 14 answers .* or this ingress does not split requests"):
        deployer.deploy(2, canary=50)
    assert "canary" not in deployer.spec


@needs_definitions
def test_canary_of_a_kserve_that_knows_none(deployer: Deployer) -> None:
    """A field that the cluster does not know is refused; dropped, all requests would go to the new version."""
    deployer.deploy(1)
    name = "inferenceservices.serving.kserve.io"
    deployer.api.update("customresourcedefinitions", name, _without_canary, namespace="")
    before = deployer.service
    with pytest.raises(StageFailed, match='the cluster refuses: .*unknown field "spec.canary".*canary_percent = 0'):
        deployer.deploy(2, canary=50)
    assert deployer.service == before


def _without_canary(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    older = {key: value for key, value in spec["properties"].items() if key != "canary"}
    properties = {**schema["properties"], "spec": {**spec, "properties": older}}
    version["schema"] = {"openAPIV3Schema": {**schema, "properties": properties}}
    return crd


def test_roll_back_with_nothing_to_go_back_to(deployer: Deployer) -> None:
    with pytest.raises(InvalidInput, match="service_name = 'digits': no such InferenceService in namespace kubeflow"):
        roll_back(deployer.change, LOG)
    deployer.deploy(1)
    with pytest.raises(InvalidInput, match="nothing to go back to"):
        roll_back(deployer.change, LOG)
    deployer.deploy(2)
    roll_back(deployer.change, LOG)
    with pytest.raises(InvalidInput, match="nothing to go back to"):
        roll_back(deployer.change, LOG)


def test_rollback_to_a_version_that_fails_by_now(deployer: Deployer) -> None:
    deployer.deploy(1)
    deployer.deploy(2)
    deployer.kserve.fate["s3://models/1"] = "image"
    with pytest.raises(StageFailed, match="ImagePullBackOff.*\n.*put back; it is ready"):
        roll_back(deployer.change, LOG)
    assert champion(deployer.service).val_accuracy == 0.92


def test_others_service_is_not_taken_over(deployer: Deployer) -> None:
    foreign = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "digits",
            "labels": {},
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"model": {"modelFormat": {"name": "tensorflow"}, "storageUri": "s3://theirs/1"}}},
    }
    deployer.kserve.answers["s3://theirs/1"] = [[0.5, 0.5]]
    deployer.api.create(foreign)
    deployer.api.wait_for(lambda: deployer.service.get("status"))
    with pytest.raises(InvalidInput, match="which this component did not make"):
        deployer.deploy(1)
    with pytest.raises(StageFailed, match="it is ready"):
        deployer.deploy(1, "crash", adopt=True)
    assert deployer.spec == foreign["spec"]
    deployer.deploy(1, adopt=True)
    deployer.deploy(2)


def test_deployment_mode_cannot_change(deployer: Deployer) -> None:
    deployer.deploy(1)
    deployer.deploy(2, deployment_mode="RawDeployment")  # the older name of the same mode
    with pytest.raises(InvalidInput, match="digits is in mode Standard, which cannot change"):
        deployer.deploy(3, deployment_mode="Knative")


@pytest.mark.parametrize(
    "trouble",
    [
        {"verb": "update", "status": 409},
        {"verb": "update", "status": 500, "times": 2},
        {"verb": "get", "status": 503, "times": 3},
        {"verb": "list", "status": 0, "times": 2},
        {"verb": "update", "status": 0},
        {"verb": "get", "status": 429, "headers": {"Retry-After": "0.2"}},
    ],
    ids=lambda trouble: f"{trouble['verb']} {trouble['status']}",
)
def test_trouble_that_passes(deployer: Deployer, trouble: dict[str, Any]) -> None:
    deployer.deploy(1)
    deployer.api.fail(path="inferenceservices|pods", **trouble)
    deployer.deploy(2)
    assert champion(deployer.service).val_accuracy == 0.92


def test_made_by_somebody_else_at_the_same_moment(deployer: Deployer) -> None:
    deployer.api.fail(verb="create", path="inferenceservices", status=409)
    deployer.deploy(1)
    assert deployer.writes() == ["create", "create"]


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "update"])
def test_answer_that_is_lost(deployer: Deployer, is_first: bool) -> None:
    """The cluster takes the write, the answer does not arrive, and the write that is sent again is a conflict."""
    if not is_first:
        deployer.deploy(1)
    before = None if is_first else deployer.spec

    def lose_answer(resource: Resource, item: dict[str, Any]) -> None:
        deployer.api.admission.clear()
        if is_first:
            deployer.api.create(item)
        else:
            deployer.api.update("inferenceservices", "digits", lambda one: {**one, "spec": item["spec"]})
        raise ApiError(409, "Conflict", "the object has been modified")

    deployer.api.admission.append(lose_answer)
    with pytest.raises(StageFailed, match="removed again" if is_first else "it is ready"):
        deployer.deploy(2, "wrong")
    assert (deployer.spec if deployer.is_there else None) == before


def test_refused_by_kserves_webhook(deployer: Deployer) -> None:
    deployer.deploy(1)
    before = deployer.service
    deployer.api.admission.append(lambda resource, item: '"inferenceservice.validator" denied the request: no!')
    with pytest.raises(StageFailed, match="^the cluster refuses: .*denied the request: no! .HTTP 403.$"):
        deployer.deploy(2)
    assert deployer.service == before


def test_missing_permissions_are_told_with_the_role_before_anything_is_done(deployer: Deployer) -> None:
    deployer.api.forbid("update", "inferenceservices")
    deployer.api.forbid("get", "pods", "log")
    with pytest.raises(StageFailed) as failure:
        deployer.deploy(1)
    message = str(failure.value)
    assert "may not, in namespace kubeflow: update inferenceservices.serving.kserve.io, get pods/log." in message
    assert "kind: Role\n" in message
    assert "- apiGroups: [serving.kserve.io]\n  resources: [inferenceservices]\n" in message
    assert not deployer.is_there


def test_no_kserve(deployer: Deployer) -> None:
    deployer.api.delete("customresourcedefinitions", "inferenceservices.serving.kserve.io", namespace="")
    with pytest.raises(StageFailed, match="KServe is not installed"):
        deployer.deploy(1)


def test_model_that_a_cluster_cannot_read(deployer: Deployer) -> None:
    deployer.model(1)
    options = DeployOptions(service_name="digits", service=QUICK)
    with pytest.raises(InvalidInput, match="a cluster cannot read the model from there; give service.storage_uri"):
        deploy_to_cluster(deployer.directory / "1", DeployedModel(model_uri="/tmp/m"), options, deployer.directory, LOG)


def test_change_by_somebody_else_during_the_rollout_is_left_to_them(deployer: Deployer) -> None:
    deployer.deploy(1)
    deployer.model(2, "coming")
    theirs = deployer.model(3)

    def take_over() -> bool:
        if deployer.spec["predictor"]["model"]["storageUri"] != "s3://models/2":
            return False
        deployer.api.update("inferenceservices", "digits", lambda one: _serving(one, theirs))
        return True

    with (
        _meanwhile(deployer, take_over),
        pytest.raises(StageFailed, match="changed by somebody else during its rollout"),
    ):
        deployer.deploy(2, "coming")
    assert deployer.spec["predictor"]["model"]["storageUri"] == theirs


def _serving(item: dict[str, Any], uri: str) -> dict[str, Any]:
    item["spec"]["predictor"]["model"]["storageUri"] = uri
    return item


@contextlib.contextmanager
def _meanwhile(deployer: Deployer, act: Callable[[], bool]) -> Iterator[None]:
    import threading

    thread = threading.Thread(target=lambda: deployer.api.wait_for(act, 20))
    thread.start()
    yield
    thread.join()


PROGRAM = """
import json, sys
from kfp_image_classification.components.deploy.kserve.termination import terminate_with_owner
from pathlib import Path
from kfp_image_classification.components.deploy.kserve.cluster import deploy_to_cluster
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.step.errors import reported
from kfp_image_classification.components.step.stage_log import stage_log
model, uri, service, directory = sys.argv[1:]
terminate_with_owner()
with reported("deploy"):
    options = DeployOptions(service_name="digits", service=json.loads(service))
    deploy_to_cluster(Path(model), DeployedModel(model_uri=uri), options, Path(directory), stage_log("deploy"))
"""


@pytest.mark.parametrize("how", ["first", "update", "owner killed"])
def test_ended_in_the_middle_puts_the_version_before_back(deployer: Deployer, how: str) -> None:
    is_first = how == "first"
    if not is_first:
        deployer.deploy(1)
    before = None if is_first else deployer.spec
    uri = deployer.model(2, "coming")
    service = json.dumps({**QUICK, "ingress_url": deployer.kserve.url})
    model, directory = deployer.directory / "2", deployer.directory / "endpoint"
    owner = subprocess.Popen(["sleep", "100"])
    step = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model), uri, service, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "RUN_OWNER_PID": str(owner.pid)},
    )
    assert step.stdout
    said = next(line for line in step.stdout if "waiting" in line)
    assert "0 of 1 replicas of the new version are ready" in said
    if how == "owner killed":
        owner.kill()
        owner.wait()
    else:
        step.send_signal(signal.SIGTERM)
    rest, _ = step.communicate(timeout=60)
    owner.kill()
    owner.wait()
    assert step.returncode == 1
    assert "told to end (SIGTERM or Ctrl-C) in the middle of the rollout" in rest
    if is_first:
        assert "the service is removed again" in rest
        assert not deployer.is_there
    else:
        assert "the version before is put back" in rest
        assert deployer.spec == before
