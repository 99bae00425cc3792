from typing import Any

import pytest

from kfp_image_classification.components.train.launchers.pod_status import PodState, culprit, pod_state

SCHEDULED = [{"type": "PodScheduled", "status": "True"}]


def pod(status: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", "labels": labels},
        "spec": {"nodeName": "node-a"},
        "status": status,
    }


def container(state: dict[str, Any], phase: str = "Pending", **status: Any) -> dict[str, Any]:
    statuses = [{"name": "sidecar", "state": {"running": {}}}, {"name": "tensorflow", "state": state}]
    return {"phase": phase, "containerStatuses": statuses, "conditions": SCHEDULED, **status}


def ended(code: int, reason: str = "Error", **status: Any) -> dict[str, Any]:
    return container({"terminated": {"exitCode": code, "reason": reason}}, "Failed" if code else "Running", **status)


@pytest.mark.parametrize(
    ("status", "phase", "words"),
    [
        ({}, "pending", "waiting to be scheduled"),
        ({"phase": "Pending", "conditions": SCHEDULED}, "pending", "starting"),
        (container({"waiting": {"reason": "ContainerCreating"}}), "pending", "starting"),
        (
            container({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
            "pending",
            "ErrImagePull: no",
        ),
        (container({"waiting": {"reason": "CreateContainerConfigError"}}), "pending", "CreateContainerConfigError"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "x"}]},
            "pending",
            "SchedulingGated: x",
        ),
        (
            {
                "phase": "Pending",
                "conditions": SCHEDULED,
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "istio"}}}],
            },
            "pending",
            "ImagePullBackOff: istio",
        ),
        (container({"running": {}}, "Running"), "running", "running on node-a"),
        (ended(0), "succeeded", "done"),
        ({"phase": "Succeeded"}, "succeeded", "done"),
        (ended(2), "failed", "exited with code 2"),
        (ended(137, "OOMKilled"), "failed", "OOMKilled (exit code 137): it needed more memory"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "failed", "Evicted: low on memory"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "failed", "DeadlineExceeded"),
        (
            ended(
                143,
                conditions=[
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "PreemptionByScheduler",
                        "message": "for another",
                    }
                ],
            ),
            "failed",
            "PreemptionByScheduler: for another (exit code 143)",
        ),
    ],
)
def test_pod_in_words(status: dict[str, Any], phase: str, words: str) -> None:
    state = pod_state(pod(status), "tensorflow")
    assert state.phase == phase
    assert state.words.startswith(words)


@pytest.mark.parametrize(
    ("labels", "replica"),
    [
        ({"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": "3"}, "worker-3"),
        ({"training.kubeflow.org/replica-type": "chief", "training.kubeflow.org/replica-index": "0"}, "chief-0"),
        ({"batch.kubernetes.io/job-completion-index": "1"}, "worker-1"),
        ({}, "p"),
    ],
)
def test_replica(labels: dict[str, str], replica: str) -> None:
    assert pod_state(pod({}, **labels), "tensorflow").replica == replica


@pytest.mark.parametrize(
    ("codes", "blamed"),
    [([138, 2], 1), ([138, 137], 1), ([137, 2], 1), ([143, 138], 0), ([138, None], 1), ([138, 138], 0)],
)
def test_the_pod_that_failed_for_a_reason_of_its_own_is_blamed(codes: list[int | None], blamed: int) -> None:
    states = [PodState(str(index), str(index), "", "failed", "", code) for index, code in enumerate(codes)]
    assert culprit(states) is states[blamed]


def test_nobody_is_blamed_when_nobody_failed() -> None:
    assert culprit([PodState("a", "a", "", "running", "")]) is None
