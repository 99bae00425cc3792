"""The test's API server behaves as the real one does, seen through the official client."""

import contextlib
import threading
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException, AppsV1Api, AuthorizationV1Api, CoreV1Api, CustomObjectsApi
from kubernetes.watch import Watch

from kfp_image_classification.components.cluster.kubernetes_client import api_client, own_namespace, patiently
from kfp_image_classification.components.step.errors import StageFailed
from kubernetes_api import KubernetesApi
from kubernetes_api.crds import needs_definitions
from kubernetes_api.selectors import matches_labels

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


@pytest.fixture
def client(kubernetes_api: KubernetesApi) -> ApiClient:
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

    owner = {"apiVersion": "v1", "kind": "TrainJob", "name": "a", "uid": created["metadata"]["uid"]}
    kubernetes_api.create(pod("a-0", ownerReferences=[owner]))
    api.delete_namespaced_custom_object(*JOBS, "a")
    assert refused(api.get_namespaced_custom_object, *JOBS, "a").status == 404
    assert CoreV1Api(client).list_namespaced_pod("kubeflow").items == [], "garbage is collected"


def test_foreground_deletion_waits_for_dependents(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CustomObjectsApi(client)
    uid = api.create_namespaced_custom_object(*JOBS, job())["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "TrainJob", "name": "a", "uid": uid}
    kubernetes_api.create(pod("a-0", ownerReferences=[owner], finalizers=["test/slow"]))
    api.delete_namespaced_custom_object(*JOBS, "a", propagation_policy="Foreground")
    assert "deletionTimestamp" in api.get_namespaced_custom_object(*JOBS, "a")["metadata"]
    CoreV1Api(client).patch_namespaced_pod("a-0", "kubeflow", {"metadata": {"finalizers": None}})
    assert kubernetes_api.objects("trainjobs") == []


def test_watch_resumes_and_expires(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CoreV1Api(client)
    kubernetes_api.create(pod("a", labels={"job": "x"}))
    version = api.list_namespaced_pod("kubeflow").metadata.resource_version
    kubernetes_api.create(pod("b", labels={"job": "x"}))
    kubernetes_api.create(pod("c"))
    kubernetes_api.delete("pods", "a")

    def seen(**options: Any) -> list[tuple[str, str]]:
        events = Watch().stream(
            api.list_namespaced_pod, "kubeflow", label_selector="job=x", timeout_seconds=1, **options
        )
        return [(event["type"], event["raw_object"]["metadata"].get("name", "")) for event in events]

    assert seen(resource_version=version) == [("ADDED", "b"), ("DELETED", "a")]
    assert ("BOOKMARK", "") in seen(resource_version=version, allow_watch_bookmarks=True)
    kubernetes_api.fail(verb="watch", after_events=1)
    with pytest.raises(Exception, match="ended prematurely|Connection broken"):
        seen(resource_version=version)
    kubernetes_api.store.forget_history()
    assert refused(seen, resource_version=version).status == 410


def test_log_is_followed_until_the_pod_ends(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CoreV1Api(client)
    kubernetes_api.create(pod("a"))
    assert "waiting to start" in refused(api.read_namespaced_pod_log, "a", "kubeflow").body
    kubernetes_api.set_status("pods", "a", {"phase": "Running"})
    kubernetes_api.write_log("a", "one\ntwo")
    lines: list[str] = []

    def follow() -> None:
        lines.extend(Watch().stream(api.read_namespaced_pod_log, name="a", namespace="kubeflow", tail_lines=1))

    reader = threading.Thread(target=follow)
    reader.start()
    kubernetes_api.wait_for(lambda: ("log", "/api/v1/namespaces/kubeflow/pods/a/log") in kubernetes_api.requests[1:])
    kubernetes_api.write_log("a", "three")
    kubernetes_api.set_status("pods", "a", {"phase": "Succeeded"})
    reader.join(10)
    assert lines[-1] == "three"
    assert "one" not in lines


def test_permissions_admission_and_schema(client: ApiClient, kubernetes_api: KubernetesApi) -> None:
    api = CustomObjectsApi(client)
    kubernetes_api.forbid("create", "deployments")
    assert "cannot create resource" in refused(AppsV1Api(client).create_namespaced_deployment, "kubeflow", {}).body
    review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "deployments"}}}
    assert not AuthorizationV1Api(client).create_self_subject_access_review(review).status.allowed
    kubernetes_api.admission.append(lambda resource, item: '"x.y" denied the request: no')
    assert "admission webhook" in refused(api.create_namespaced_custom_object, *JOBS, job()).body
    kubernetes_api.admission.clear()


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
    assert len(told) == len(faults)


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
