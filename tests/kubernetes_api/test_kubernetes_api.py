"""The test's API server behaves as the real one does, seen through the official client."""

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient, ApiException, AuthorizationV1Api, CoreV1Api, CustomObjectsApi
from kubernetes.watch import Watch
from repository import REPOSITORY

from kfp_image_classification.components.cluster.kubernetes_client import api_client, own_namespace, patiently
from kfp_image_classification.components.cluster.outage import Outage
from kfp_image_classification.components.step.errors import StageFailed
from kubernetes_api import KubernetesApi
from kubernetes_api.crds import needs_definitions
from kubernetes_api.selectors import matches_labels

RUNTIME = REPOSITORY / "manifests" / "trainer" / "training-runtime.yaml"
JOBS = ("trainer.kubeflow.org", "v1alpha1", "kubeflow", "trainjobs")


def job(name: str = "a", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, **metadata},
        "spec": {"runtimeRef": {"name": "tensorflow-distributed"}, "trainer": {"numNodes": 2}},
    }


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "tensorflow", "image": "x"}]},
    }


def owner(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "uid": item["metadata"]["uid"],
    }


@pytest.fixture
def client(kubernetes_api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    """One that may do everything."""
    kubernetes_api.create(yaml.safe_load(RUNTIME.read_text()))
    config = kubernetes_api.write_kubeconfig(tmp_path / "admin", token=kubernetes_api.admin_token)
    monkeypatch.setenv("KUBECONFIG", str(config))
    return api_client()


def refused(call: Any, *arguments: Any, **named: Any) -> ApiException:
    with pytest.raises(ApiException) as error:
        call(*arguments, **named)
    return error.value


def test_objects_through_their_life(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    assert own_namespace() == "kubeflow"
    api = CustomObjectsApi(client)
    created = api.create_namespaced_custom_object(*JOBS, job(labels={"model": "cnn"}) | {"status": {"x": 1}})
    assert created["metadata"]["generation"] == 1
    assert created["metadata"]["uid"]
    assert "status" not in created, "a new object has no status but what its controller gives it"
    assert refused(api.create_namespaced_custom_object, *JOBS, job()).status == 409
    assert api.list_namespaced_custom_object(*JOBS, label_selector="model in (cnn,resnet)")["items"] == [created]
    assert api.list_namespaced_custom_object(*JOBS, label_selector="model!=cnn")["items"] == []

    suspended = created | {"spec": created["spec"] | {"suspend": True}}
    replaced = api.replace_namespaced_custom_object(*JOBS, "a", suspended)
    assert replaced["metadata"]["generation"] == 2
    assert refused(api.replace_namespaced_custom_object, *JOBS, "a", created).status == 409, "an older version"
    newest = api.get_namespaced_custom_object(*JOBS, "a")
    status = api.replace_namespaced_custom_object_status(
        *JOBS, "a", newest | {"spec": {}, "status": {"jobsStatus": []}}
    )
    assert (status["status"], status["metadata"]["generation"]) == ({"jobsStatus": []}, 2), "status and nothing else"
    api.patch_namespaced_custom_object(*JOBS, "a", {"metadata": {"labels": {"b": "1"}}})
    assert api.get_namespaced_custom_object(*JOBS, "a")["metadata"]["labels"] == {"model": "cnn", "b": "1"}

    kubernetes_api.create(pod("a-0", ownerReferences=[owner(created)]))
    api.delete_namespaced_custom_object(*JOBS, "a")
    assert refused(api.get_namespaced_custom_object, *JOBS, "a").status == 404
    kubernetes_api.wait_for(lambda: CoreV1Api(client).list_namespaced_pod("kubeflow").items == [])  # garbage


def test_an_empty_name_is_a_list(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    answer = CoreV1Api(client).read_namespaced_pod("", "kubeflow", _preload_content=False)
    assert json.loads(answer.data)["kind"] == "PodList"


def test_foreground_deletion_waits_for_dependents(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CustomObjectsApi(client)
    made = api.create_namespaced_custom_object(*JOBS, job())
    kubernetes_api.create(pod("a-0", ownerReferences=[owner(made)], finalizers=["test/slow"]))
    api.delete_namespaced_custom_object(*JOBS, "a", propagation_policy="Foreground")
    assert "deletionTimestamp" in api.get_namespaced_custom_object(*JOBS, "a")["metadata"]
    CoreV1Api(client).patch_namespaced_pod("a-0", "kubeflow", {"metadata": {"finalizers": None}})
    kubernetes_api.wait_for(lambda: kubernetes_api.objects("trainjobs") == [])


def test_watch_tells_what_happened_since(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    version = changed_pods(client, kubernetes_api)
    told = seen(client, resource_version=version)
    assert told == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")], "a pod is told to go before it is gone"


@pytest.mark.fake_api
def test_watch_marks_breaks_and_expires(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    version = changed_pods(client, kubernetes_api)
    # A real server sends one a minute.
    assert ("BOOKMARK", "") in seen(client, resource_version=version, allow_watch_bookmarks=True)
    kubernetes_api.fail(verb="watch", after_events=1)
    with pytest.raises(Exception, match="ended prematurely|Connection broken"):
        seen(client, resource_version=version)
    kubernetes_api.store.forget_history()
    assert refused(seen, client, resource_version=version).status == 410


def changed_pods(client: ApiClient, kubernetes_api: KubernetesApi) -> str:
    """Makes and deletes pods; returns the version before most of it."""
    kubernetes_api.create(pod("a", labels={"job": "x"}))
    version = CoreV1Api(client).list_namespaced_pod("kubeflow").metadata.resource_version
    kubernetes_api.create(pod("b", labels={"job": "x"}))
    kubernetes_api.create(pod("c"))
    kubernetes_api.delete("pods", "a")
    return str(version)


def seen(client: ApiClient, **options: Any) -> list[tuple[str, str]]:
    pods = CoreV1Api(client).list_namespaced_pod
    events = Watch().stream(pods, "kubeflow", label_selector="job=x", timeout_seconds=1, **options)
    return [(event["type"], event["raw_object"]["metadata"].get("name", "")) for event in events]


def test_log_is_followed_until_the_pod_ends(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CoreV1Api(client)
    kubernetes_api.create(pod("a"))
    assert api.read_namespaced_pod_log("a", "kubeflow") == "", "on no node yet"
    kubernetes_api.bind("a", "node-a")
    assert "waiting to start" in refused(api.read_namespaced_pod_log, "a", "kubeflow").body
    running = {"name": "tensorflow", "state": {"running": {}}}
    kubernetes_api.set_status("pods", "a", {"phase": "Running", "containerStatuses": [running]})
    kubernetes_api.write_log("a", "one\ntwo")
    kubernetes_api.wait_for(lambda: "two" in api.read_namespaced_pod_log("a", "kubeflow"))
    lines: list[str] = []

    def follow() -> None:
        lines.extend(Watch().stream(api.read_namespaced_pod_log, name="a", namespace="kubeflow", tail_lines=1))

    reader = threading.Thread(target=follow)
    reader.start()
    kubernetes_api.wait_for(lambda: lines == ["two"])
    kubernetes_api.write_log("a", "three")
    ended = {"name": "tensorflow", "state": {"terminated": {"exitCode": 0}}}
    kubernetes_api.set_status("pods", "a", {"phase": "Succeeded", "containerStatuses": [ended]})
    reader.join(10)
    assert lines == ["two", "three"]


def test_the_client_has_its_roles_rights(kubernetes_api: KubernetesApi) -> None:
    client = api_client()
    elsewhere = refused(CustomObjectsApi(client).list_namespaced_custom_object, *JOBS[:2], "default", JOBS[3])
    assert 'cannot list resource \\"trainjobs\\"' in elsewhere.body
    kubernetes_api.forbid("create", "trainjobs")
    assert (
        "cannot create resource" in refused(CustomObjectsApi(client).create_namespaced_custom_object, *JOBS, job()).body
    )
    asked = {"verb": "create", "group": JOBS[0], "resource": "trainjobs", "namespace": "kubeflow"}
    review = AuthorizationV1Api(client).create_self_subject_access_review({"spec": {"resourceAttributes": asked}})
    assert not review.status.allowed


def test_webhooks_are_asked(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    name = "validator.trainjob.trainer.kubeflow.org"
    kubernetes_api.admission.append(lambda resource, item: f'"{name}" denied the request: no')
    error = refused(CustomObjectsApi(client).create_namespaced_custom_object, *JOBS, job())
    assert error.status == 403
    assert f'admission webhook \\"{name}\\" denied the request: no' in error.body


@needs_definitions
def test_schema(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CustomObjectsApi(client)
    wrong = job()
    wrong["spec"]["trainer"]["numNodes"] = "two"
    assert refused(api.create_namespaced_custom_object, *JOBS, wrong).status == 422
    typo = job()
    typo["spec"]["trainer"]["nodes"] = 2
    error = refused(api.create_namespaced_custom_object, *JOBS, typo, field_validation="Strict")
    assert 'unknown field \\"spec.trainer.nodes\\"' in error.body
    assert "nodes" not in api.create_namespaced_custom_object(*JOBS, typo)["spec"]["trainer"], "pruned without Strict"


@pytest.mark.fake_api
@pytest.mark.parametrize(
    "faults",
    [
        [{"status": 500}, {"status": 503}],
        [{"status": 429, "headers": {"Retry-After": "0.1"}}],
        [{"status": 0}],
        [{"status": 401}],
    ],
    ids=["server errors", "throttled", "connection closed", "token expired"],
)
def test_client_is_patient_with_what_passes(
    faults: list[dict[str, Any]], client: ApiClient, kubernetes_api: KubernetesApi
) -> None:
    for fault in faults:
        kubernetes_api.fail(**fault)
    told: list[str] = []
    pods = patiently(client, lambda: CoreV1Api(client).list_namespaced_pod("kubeflow"), told.append)
    assert pods.items == []
    assert len(told) == 2, "an outage is told once, and its end"
    assert told[0].startswith("the cluster's API: ")
    assert told[1].startswith("the cluster's API answers again, after ")


def test_long_outage_is_told_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was 70 lines in 110 s, from the watches and logs of one job."""
    now, told = [0.0], list[str]()
    monkeypatch.setattr("kfp_image_classification.components.cluster.outage.time.monotonic", lambda: now[0])
    outage = Outage()
    for second in range(600):
        now[0] = float(second)
        for _ in range(5):
            outage.failed("connection refused", 15.0, told.append)
    outage.answered(told.append)
    outage.answered(told.append)
    assert told == [
        "the cluster's API: connection refused; trying again in 15.0 s, and then until it answers",
        *(f"the cluster's API is still away after {second} s: connection refused" for second in (30, 90, 210, 450)),
        "the cluster's API answers again, after 599.0 s",
    ]


@pytest.mark.fake_api
def test_client_gives_up_with_words(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.token = "another"
    with contextlib.closing(client), pytest.raises(StageFailed, match=r"cannot be used: Unauthorized \(HTTP 401\)"):
        patiently(client, lambda: CoreV1Api(client).list_namespaced_pod("kubeflow"), lambda _: None)
    kubernetes_api.stop()
    with pytest.raises(StageFailed, match="the cluster's API cannot be used"):
        patiently(client, lambda: CoreV1Api(client).list_namespaced_pod("kubeflow"), lambda _: None, seconds=1)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("", True), ("a=1", True), ("a==1,b!=1", True), ("a in (1, 2),!c", True), ("b", True), ("a notin (1)", False)],
)
def test_label_selectors(selector: str, expected: bool) -> None:
    assert matches_labels(selector, {"a": "1", "b": "2"}) is expected
