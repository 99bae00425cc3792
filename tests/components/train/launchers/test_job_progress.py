"""Verdicts from the status of a job and its pods, and the time: no API, no waiting."""

from typing import Any

import pytest

from kfp_image_classification.components.train.launchers.base import Verdict
from kfp_image_classification.components.train.launchers.job_progress import JobProgress, Limits
from kfp_image_classification.components.train.launchers.job_status import job_verdict, job_words


def job(*conditions: tuple[str, str]) -> dict[str, Any]:
    listed = [{"type": kind, "status": "True", "message": message} for kind, message in conditions]
    return {"metadata": {"name": "j"}, "status": {"conditions": listed}}


def pod(index: int = 0, uid: str = "u", **status: Any) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"name": f"j-{index}", "uid": uid, "labels": labels}, "status": status}


def container(state: dict[str, Any], phase: str = "Running") -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]}


RUNNING = container({"running": {}})


@pytest.fixture
def progress() -> JobProgress:
    return JobProgress("TrainJob", "Kubeflow Trainer", "node", Limits(1, 1, 10, 1000), lambda _: None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, Verdict("running")),
        (job(), Verdict("running")),
        (job(("Created", ""), ("Running", "")), Verdict("running")),
        (job(("Running", ""), ("Succeeded", "fine")), Verdict("succeeded")),
        (job(("Complete", "fine")), Verdict("succeeded")),
        (job(("Failed", "no more")), Verdict("failed", "failed: no more")),
        (job(("Restarting", "once more")), Verdict("running")),
        (
            {"status": {"conditions": [{"type": "Failed", "status": "False"}, {"type": "Running", "status": "True"}]}},
            Verdict("running"),
        ),
    ],
)
def test_verdict_by_conditions(status: dict[str, Any], expected: Verdict) -> None:
    assert job_verdict(status) == expected


def test_newest_condition_in_words() -> None:
    assert job_words(job(("Created", "made"), ("Restarting", "a worker failed"))) == "restarting: a worker failed"
    assert job_words({"metadata": {}}) == ""


def test_start_is_waited_for_from_each_pods_own_beginning(progress: JobProgress) -> None:
    progress.job_changed(job())
    assert progress.verdict(0).state == "running"
    assert progress.verdict(9).state == "running"
    progress.pod_changed(pod(), 9)
    assert progress.verdict(18).state == "running"
    assert progress.verdict(20).reason == (
        "worker-0 (pod j-0) did not start within job.start_seconds = 10: waiting to be scheduled"
    )
    progress.pod_changed(pod(**RUNNING), 20)
    assert progress.verdict(500).state == "running"


def test_no_pods_names_the_operator(progress: JobProgress) -> None:
    progress.job_changed(job())
    progress.verdict(0)
    reason = "TrainJob j got no pod within job.start_seconds = 10; does the Kubeflow Trainer run?"
    assert progress.verdict(11) == Verdict("failed", reason)


def test_too_few_pods_are_told_with_the_clusters_last_warning() -> None:
    progress = JobProgress("TFJob", "Training Operator", "node", Limits(2, 1, 10, 1000), lambda _: None)
    progress.job_changed(job())
    progress.pod_changed(pod(**RUNNING), 0)
    progress.warned({"involvedObject": {"name": "j"}, "reason": "FailedCreate", "message": "exceeded quota"})
    assert progress.verdict(0).state == progress.verdict(9).state == "running"
    reason = "TFJob j got 1 of 2 pods within job.start_seconds = 10; last warning: FailedCreate: exceeded quota"
    assert progress.verdict(11) == Verdict("failed", reason)


def test_restarts_are_counted_by_the_pods_made_anew(progress: JobProgress) -> None:
    progress.job_changed(job())
    for attempt, expected in enumerate(["running", "running", "failed"]):
        for index in (0, 1):
            progress.pod_changed(pod(index, f"{index}-{attempt}", **RUNNING), attempt)
        assert progress.verdict(attempt).state == expected
    assert "after max_restarts = 1 restarts" in progress.verdict(3).reason


def test_worker_that_failed_for_good_is_not_waited_for_when_the_operator_does_nothing(progress: JobProgress) -> None:
    progress.job_changed(job())
    progress.pod_changed(pod(**container({"terminated": {"exitCode": 2}}, "Failed")), 0)
    assert progress.verdict(59).state == "running"
    assert progress.verdict(61).reason == "TrainJob j goes on without worker-0, which failed for good"


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}
BY_ITS_PODS = "TFJob ns/j has failed because 1 Worker replica(s) failed."
JOBSET_FAILED = "jobset failed due to one or more job failures (first failed job: j-node-0)"


@pytest.mark.parametrize(
    ("kind", "message", "reason", "status", "retryable"),
    [
        ("TFJob", BY_ITS_PODS, "", {**RUNNING, "conditions": [DISRUPTED]}, True),
        ("TFJob", BY_ITS_PODS, "", {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, True),
        ("TFJob", BY_ITS_PODS, "", container({"terminated": {"exitCode": 2}}, "Failed"), False),
        ("TFJob", BY_ITS_PODS, "", RUNNING, False),
        (
            "TFJob",
            "Job j has failed because it has reached the specified backoff limit",
            "",
            {**RUNNING, "conditions": [DISRUPTED]},
            False,
        ),
        (
            "TFJob",
            "Job j has failed because it was active longer than specified deadline",
            "",
            {**RUNNING, "conditions": [DISRUPTED]},
            False,
        ),
        # A runtime of the user's, whose Job allows less failures than max_restarts.
        ("TrainJob", JOBSET_FAILED, "FailedJobs", container({"terminated": {"exitCode": 137}}, "Failed"), True),
        ("TrainJob", JOBSET_FAILED, "FailedJobs", container({"terminated": {"exitCode": 2}}, "Failed"), False),
        ("TrainJob", "deadline", "DeadlineExceeded", container({"terminated": {"exitCode": 143}}, "Failed"), False),
        ("TrainJob", JOBSET_FAILED, "FailedJobs", RUNNING, False),
    ],
)
def test_job_that_its_operator_gave_up_for_what_passes_may_be_made_anew(
    kind: str, message: str, reason: str, status: dict[str, Any], retryable: bool
) -> None:
    progress = JobProgress(kind, "operator", "node", Limits(1, 1, 10, 1000), lambda _: None)
    condition = {"type": "Failed", "status": "True", "message": message, "reason": reason}
    progress.pod_changed(pod(**status), 0)
    progress.job_changed({"kind": kind, "metadata": {"name": "j"}, "status": {"conditions": [condition]}})
    verdict = progress.verdict(0)
    assert (verdict.state, verdict.retryable) == ("failed", retryable)


def test_restarts_of_the_jobs_before_count() -> None:
    told: list[str] = []
    progress = JobProgress("TFJob", "operator", "node", Limits(1, 2, 10, 1000), told.append, restarts_before=2)
    progress.job_changed(job())
    progress.pod_changed(pod(uid="a", **RUNNING), 0)
    assert progress.verdict(0).state == "running"
    progress.pod_changed(pod(uid="b", **RUNNING), 1)
    assert "after max_restarts = 2 restarts" in progress.verdict(1).reason


def test_containers_restart_in_its_pod_counts_and_is_told() -> None:
    told: list[str] = []
    progress = JobProgress("TrainJob", "operator", "node", Limits(1, 1, 10, 1000), told.append)
    progress.job_changed(job())
    again = {"name": "node", "restartCount": 1, "state": {"running": {}}}
    again["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    for _ in range(2):
        progress.pod_changed(pod(phase="Running", containerStatuses=[again]), 0)
    assert progress.restarts == 1
    assert progress.verdict(0).state == "running"
    assert [line for line in told if "OOMKilled" in line] == [
        "worker-0 (pod j-0): OOMKilled (exit code 137): it needed more memory than its limit; raise worker_memory"
    ]
    progress.pod_changed(pod(phase="Running", containerStatuses=[{**again, "restartCount": 2}]), 0)
    assert "after max_restarts = 1 restarts" in progress.verdict(0).reason
    culprit = progress.culprit()
    assert culprit is not None
    assert culprit.reason == "OOMKilled"


def test_worker_that_failed_for_good_is_not_started_again(progress: JobProgress) -> None:
    progress.job_changed(job())
    progress.pod_changed(pod(uid="a", **container({"terminated": {"exitCode": 2}}, "Failed")), 0)
    progress.pod_changed(pod(uid="b", **RUNNING), 1)
    assert progress.verdict(1).reason == "TrainJob j starts worker-0 again, which failed for good"


def test_program_that_cannot_be_started_ends_the_job_at_once(progress: JobProgress) -> None:
    progress.job_changed(job())
    progress.pod_changed(pod(**container({"terminated": {"exitCode": 128, "reason": "StartError"}}, "Failed")), 0)
    assert progress.verdict(0).reason == "TrainJob j cannot start its workers"


def test_deadline_is_the_launchers_as_well(progress: JobProgress) -> None:
    progress.job_changed(job())
    progress.pod_changed(pod(**RUNNING), 0)
    assert progress.verdict(0).state == "running"
    assert progress.verdict(1061).reason == "TrainJob j ran longer than job.deadline_seconds = 1000"


def test_each_change_is_told_once() -> None:
    told: list[str] = []
    progress = JobProgress("TFJob", "Training Operator", "node", Limits(1, 1, 10, 1000), told.append)
    for _ in range(2):
        progress.job_changed(job(("Running", "it runs")))
        progress.pod_changed(pod(**RUNNING), 0)
        progress.warned({"involvedObject": {"name": "j-0"}, "reason": "BackOff", "message": "again"})
    assert told == ["TFJob j: running: it runs", "worker-0 (pod j-0): running", "j-0: warning BackOff: again"]
