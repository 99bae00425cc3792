"""Statuses as KServe, Knative and kubelets write them, and what is to be thought of them."""

from typing import Any

import pytest

from kfp_image_classification.components.contracts.deployed_model import REVISION_ANNOTATION
from kfp_image_classification.components.deploy.kserve.status import Target, Verdict, verdict

NEW, OLD = "new", "old"
READY = [{"type": "Ready", "status": "True"}]
STANDARD = Target(revision=NEW)
# A canary beside the stable version; and the stable version when it becomes what its canary is.
CANARY = Target(NEW, app="isvc.digits-v2-predictor", is_alone=False, canary="v2")
BESIDE = Target(NEW, app="isvc.digits-predictor", is_alone=False)
KNATIVE = Target(revision=NEW, knative=True, knative_revision_before="digits-00001")


def pod(revision: str, ready: bool = True, name: str = "", knative: str = "", **extra: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"conditions": [{"type": "Ready", "status": str(ready)}], **extra}
    metadata: dict[str, Any] = {"name": name or f"pod-{revision}", "annotations": {REVISION_ANNOTATION: revision}}
    if knative:
        metadata["labels"] = {"serving.knative.dev/revision": knative}
    return {"metadata": metadata, "status": status}


def of_app(app: str, revision: str) -> dict[str, Any]:
    one = pod(revision)
    one["metadata"]["labels"] = {"app": app}
    return one


def leaving(revision: str) -> dict[str, Any]:
    gone = pod(revision)
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return gone


def service(conditions: list[dict[str, Any]] = READY, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "digits"}, "status": {"conditions": conditions, **status}}


def knative(created: str, ready: str, percent: int, conditions: list[dict[str, Any]] = READY) -> dict[str, Any]:
    predictor = {
        "latestCreatedRevision": created,
        "latestReadyRevision": ready,
        "traffic": [{"revisionName": ready, "percent": percent, "latestRevision": True}],
    }
    return service(conditions, components={"predictor": predictor})


def waiting(revision: str, reason: str, message: str = "", ended: dict[str, Any] | None = None) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "kserve-container", "state": {"waiting": {"reason": reason}}}
    if message:
        container["state"]["waiting"]["message"] = message
    if ended:
        container["lastState"] = {"terminated": ended}
    return pod(revision, ready=False, containerStatuses=[container])


@pytest.mark.parametrize(
    ("status", "pods", "target", "waits_for"),
    [
        (service(), [pod(NEW)], STANDARD, ""),
        (service(), [pod(NEW), leaving(OLD)], STANDARD, ""),
        (service(), [], STANDARD, "0 of 1 replicas of the new version are ready"),
        # Ready, up to date, and a generation that looks right: all of it about the version before.
        (
            service(observedGeneration=9, modelStatus={"transitionStatus": "UpToDate"}),
            [pod(OLD)],
            STANDARD,
            "0 of 1 replicas of the new version are ready",
        ),
        (service(), [pod(NEW, ready=False), pod(OLD)], STANDARD, "0 of 1 replicas of the new version are ready"),
        (service(), [pod(NEW), pod(OLD)], STANDARD, "1 pods that are to go are still there"),
        (service(), [pod(NEW)], Target(NEW, min_replicas=2), "1 of 2 replicas of the new version are ready"),
        (
            service([{"type": "Ready", "status": "False", "reason": "IngressNotReady", "message": "no gateway"}]),
            [pod(NEW)],
            STANDARD,
            "the service is not ready yet: IngressNotReady: no gateway",
        ),
        ({"metadata": {"name": "digits"}}, [pod(NEW)], STANDARD, "the service is not ready yet"),
        (service(), [pod("")], Target(revision=""), ""),
        (
            service(canaryStatuses=[{"name": "v2", "ready": True, "trafficPercent": 10}]),
            [of_app("isvc.digits-v2-predictor", NEW), of_app("isvc.digits-predictor", OLD)],
            CANARY,
            "",
        ),
        (
            service(canaryStatuses=[{"name": "v2", "ready": False, "trafficPercent": 10}]),
            [of_app("isvc.digits-v2-predictor", NEW), of_app("isvc.digits-predictor", OLD)],
            CANARY,
            "the canary v2 is not ready yet",
        ),
        # The canary's pods are of the same version, but not those that are waited for.
        (
            service(canaryStatuses=[{"name": "v2", "ready": True, "trafficPercent": 10}]),
            [of_app("isvc.digits-v2-predictor", NEW), of_app("isvc.digits-predictor", OLD)],
            BESIDE,
            "0 of 1 replicas of the new version are ready",
        ),
        (
            service(),
            [of_app("isvc.digits-v2-predictor", NEW), of_app("isvc.digits-predictor", NEW)],
            BESIDE,
            "",
        ),
        (
            service(),
            [of_app("isvc.digits-v2-predictor", NEW), of_app("isvc.digits-predictor", NEW)],
            Target(NEW, app="isvc.digits-predictor"),
            "1 pods that are to go are still there",
        ),
        (knative("digits-00002", "digits-00002", 100), [pod(NEW, knative="digits-00002"), pod(OLD)], KNATIVE, ""),
        (
            knative("digits-00002", "digits-00001", 100),
            [pod(NEW, knative="digits-00002")],
            KNATIVE,
            "Knative's revision digits-00002 is not ready yet",
        ),
        (
            knative("digits-00001", "digits-00001", 100),
            [pod(OLD, knative="digits-00001")],
            KNATIVE,
            "no pod of the new version is there yet",
        ),
        (knative("digits-00002", "digits-00002", 100), [], KNATIVE, ""),  # scaled to zero by now
        (
            knative("digits-00002", "digits-00002", 10),
            [pod(NEW, knative="digits-00002")],
            KNATIVE,
            "the new version gets 10% of the requests, not yet 100%",
        ),
        (
            knative("digits-00002", "digits-00002", 10),
            [pod(NEW, knative="digits-00002")],
            Target(NEW, traffic_percent=10, knative=True),
            "",
        ),
        (service(), [], KNATIVE, "Knative has made no revision yet"),
    ],
)
def test_ready_or_waiting(status: dict, pods: list, target: Target, waits_for: str) -> None:
    expected = Verdict("waiting", waits_for) if waits_for else Verdict("ready")
    assert verdict(status, pods, [], target) == expected


@pytest.mark.parametrize(
    ("status", "pods", "deployments", "evidence", "words"),
    [
        (
            service(),
            [waiting(NEW, "ImagePullBackOff", 'Back-off pulling image "x"'), pod(OLD)],
            [],
            "pod",
            'pod pod-new, container kserve-container: ImagePullBackOff: Back-off pulling image "x"',
        ),
        (
            service(),
            [waiting(NEW, "CrashLoopBackOff", "", {"exitCode": 137, "reason": "OOMKilled"})],
            [],
            "pod",
            "pod pod-new, container kserve-container: CrashLoopBackOff; it ended with exit code 137, OOMKilled",
        ),
        (service(), [pod(NEW, ready=False, phase="Failed", reason="Evicted")], [], "pod", "pod pod-new: Evicted"),
        (
            service(),
            [
                {
                    "metadata": {"name": "p", "annotations": {REVISION_ANNOTATION: NEW}},
                    "status": {
                        "conditions": [
                            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}
                        ]
                    },
                }
            ],
            [],
            "unschedulable",
            "pod p: Unschedulable: no cpu",
        ),
        (
            service(
                modelStatus={
                    "transitionStatus": "InvalidSpec",
                    "lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "no such runtime"},
                }
            ),
            [],
            [],
            "status",
            "InvalidSpec: RuntimeNotRecognized: no such runtime",
        ),
        (
            service(
                canaryStatuses=[
                    {
                        "name": "v2",
                        "ready": False,
                        "modelStatus": {
                            "transitionStatus": "BlockedByFailedLoad",
                            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "bad", "exitCode": 3},
                        },
                    }
                ]
            ),
            [],
            [],
            "status",
            "BlockedByFailedLoad: ModelLoadFailed: bad (exit code 3)",
        ),
        (
            service([{"type": "ConfigurationsReady", "status": "False", "reason": "RevisionFailed", "message": "m"}]),
            [],
            [],
            "status",
            "RevisionFailed: m",
        ),
        (
            service(),
            [],
            [
                {
                    "metadata": {"name": "digits-predictor"},
                    "status": {
                        "conditions": [
                            {
                                "type": "ReplicaFailure",
                                "status": "True",
                                "reason": "FailedCreate",
                                "message": "exceeded quota",
                            }
                        ]
                    },
                }
            ],
            "status",
            "deployment digits-predictor: FailedCreate: exceeded quota",
        ),
    ],
)
def test_failing(status: dict, pods: list, deployments: list, evidence: str, words: str) -> None:
    found = verdict(status, pods, deployments, STANDARD)
    assert (found.state, found.evidence, found.reason) == ("failing", evidence, words)


@pytest.mark.parametrize(
    ("status", "pods"),
    [
        (service(), [waiting(OLD, "CrashLoopBackOff"), pod(NEW)]),
        (service(), [waiting(NEW, "ContainerCreating")]),
        (service(), [waiting(NEW, "ErrImagePull", "one failure is not yet the end")]),
        (
            service([{"type": "PredictorReady", "status": "False", "reason": "MinimumReplicasUnavailable"}]),
            [pod(NEW, ready=False)],
        ),
        # What is left of an earlier failure, once the model is loaded.
        (
            service(modelStatus={"transitionStatus": "UpToDate", "lastFailureInfo": {"reason": "ModelLoadFailed"}}),
            [pod(NEW, ready=False)],
        ),
    ],
)
def test_not_failing(status: dict, pods: list) -> None:
    assert verdict(status, pods, [], STANDARD).state == "waiting"


def test_missing_runtime_is_named() -> None:
    info = {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime to become available"}
    status = service(modelStatus={"transitionStatus": "InvalidSpec", "lastFailureInfo": info})
    status["spec"] = {"predictor": {"model": {"runtime": "my-server"}}}
    assert verdict(status, [], [], STANDARD).reason == (
        "InvalidSpec: RuntimeNotRecognized: Waiting for runtime to become available (the ServingRuntime or "
        "ClusterServingRuntime 'my-server' is asked for)"
    )
