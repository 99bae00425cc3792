from typing import Any

import pytest

from kfp_image_classification.components.train.launchers.pod_status import failure_before, pod_state

SCHEDULED = [{"type": "PodScheduled", "status": "True"}]


def pod(status: dict[str, Any], metadata: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", "labels": labels, **(metadata or {})},
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


def condition(reason: str, message: str = "") -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


RUNNING = {"phase": "Running", "containerStatuses": [{"name": "tensorflow", "state": {"running": {}}}]}
GOING = {"deletionTimestamp": "2026-11-26T12:00:40Z", "deletionGracePeriodSeconds": 60}


@pytest.mark.parametrize(
    ("status", "metadata", "disruption"),
    [
        (RUNNING, {}, ""),
        (RUNNING, GOING, "the pod was deleted"),
        (
            {**RUNNING, "conditions": [condition("EvictionByEvictionAPI", "Eviction API: evicting")]},
            GOING,
            "EvictionByEvictionAPI: Eviction API: evicting",
        ),
        ({**RUNNING, "conditions": [condition("PreemptionByScheduler")]}, GOING, "PreemptionByScheduler"),
        (
            {**RUNNING, "conditions": [condition("DeletionByTaintManager", "lost")]},
            GOING,
            "DeletionByTaintManager: lost",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, {}, "Evicted: low on memory"),
        ({"phase": "Failed", "reason": "Terminated", "message": "node shutdown"}, {}, "Terminated: node shutdown"),
        ({**RUNNING, "reason": "NodeLost", "message": "gone"}, GOING, "NodeLost: gone"),
        (ended(137, "OOMKilled"), {}, ""),
    ],
)
def test_pod_that_has_to_go_though_nothing_is_wrong_with_it(
    status: dict[str, Any], metadata: dict[str, Any], disruption: str
) -> None:
    state = pod_state(pod(status, metadata), "tensorflow")
    assert state.disruption == disruption
    assert state.grace_seconds == (60 if metadata else 30)
    if disruption and state.phase == "running":
        assert state.words == f"running on node-a; told to go: {disruption}"


@pytest.mark.parametrize(
    ("status", "is_permanent", "cannot_start"),
    [
        (ended(1), True, False),
        (ended(127), True, False),
        (ended(128), False, False),
        (ended(128, "StartError"), True, False),
        (ended(128, "ContainerCannotRun"), True, False),
        (ended(137), False, False),
        (container({"waiting": {"reason": "ImagePullBackOff"}}), False, False),
        (container({"waiting": {"reason": "InvalidImageName"}}), False, True),
        (container({"waiting": {"reason": "ErrImageNeverPull"}}), False, True),
        (container({"waiting": {"reason": "CreateContainerConfigError"}}), False, True),
        (container({"waiting": {"reason": "CreateContainerError"}}), False, True),
    ],
)
def test_what_another_try_would_not_mend(status: dict[str, Any], is_permanent: bool, cannot_start: bool) -> None:
    state = pod_state(pod(status), "tensorflow")
    assert (state.is_permanent, state.cannot_start) == (is_permanent, cannot_start)


def test_start_error_in_words() -> None:
    status = ended(128, "StartError")
    status["containerStatuses"][1]["state"]["terminated"]["message"] = (
        'exec: "python": executable file not found in $PATH'
    )
    words = 'StartError (exit code 128): exec: "python": executable file not found in $PATH'
    assert pod_state(pod(status), "tensorflow").words == words


def test_failure_before_a_restart_in_the_same_pod() -> None:
    status = {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "node",
                "restartCount": 2,
                "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ],
    }
    assert pod_state(pod(status), "node").restart_count == 2
    failure = failure_before(pod(status), "node")
    assert failure is not None
    assert failure.words.startswith("OOMKilled (exit code 137)")
    assert failure_before(pod(RUNNING), "tensorflow") is None
