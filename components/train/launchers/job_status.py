"""What the status of a TFJob or TrainJob means. Pure: an object in, words and a verdict out.

The conditions of a TFJob are Created, Running, Restarting, Suspended, Succeeded and Failed; those of a TrainJob are
Suspended, Complete and Failed.
"""

import re
from collections.abc import Mapping
from typing import Any

from kfp_image_classification.components.train.launchers.base import Verdict

_SUCCESS = ("Succeeded", "Complete")
_FAILURE = "Failed"
_SUSPENDED = "Suspended"
# The Training Operator says this when a running pod has a deletionTimestamp: it counts it as failed
# (UpdateJobReplicaStatuses in pkg/core/status.go, UpdateJobStatus in pkg/controller.v1/tensorflow/tfjob_controller.go).
# Of a permanent exit code it says `job "NAME" is failing because ...` (ReconcilePods in
# pkg/controller.v1/common/pod.go), and of a limit that was reached `Job NAME has failed because it ...`.
_BY_ITS_PODS = re.compile(r"has failed because \d+ \w+ replica\(s\) failed")
# Of a TrainJob: TrainJobDeadlineExceededReason in Trainer's pkg/apis/trainer/v1alpha1/trainjob_types.go, and
# FailJobSetActionReason in JobSet's pkg/constants/constants.go: the runtime's rule for permanent failures.
_FINAL = ("DeadlineExceeded", "FailJobSetFailurePolicyAction")


def job_verdict(job: Mapping[str, Any]) -> Verdict:
    """Judges a job by its conditions."""
    true = _true_conditions(job)
    if any(condition["type"] in _SUCCESS for condition in true):
        return Verdict("succeeded")
    for condition in true:
        if condition["type"] == _FAILURE:
            return Verdict("failed", _words(condition))
    return Verdict("running")


def failed_by_its_pods(job: Mapping[str, Any]) -> bool:
    """Whether a job has failed because of what became of its pods, and not at a limit that was set for it.

    Of a TFJob that means that a pod had to go; of a TrainJob, whose operator says less, it may have failed as well.
    """
    for condition in _true_conditions(job):
        if condition["type"] == _FAILURE:
            if job.get("kind") == "TFJob":
                return bool(_BY_ITS_PODS.search(condition.get("message", "")))
            return condition.get("reason") not in _FINAL
    return False


def job_words(job: Mapping[str, Any]) -> str:
    """The newest condition in words; empty while there is none."""
    true = _true_conditions(job)
    return _words(true[-1]) if true else ""


def is_suspended(job: Mapping[str, Any]) -> bool:
    """Whether the job waits for its turn, in a queue for one, and has no pods on purpose."""
    return any(condition["type"] == _SUSPENDED for condition in _true_conditions(job))


def _true_conditions(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    conditions = (job.get("status") or {}).get("conditions") or []
    return [condition for condition in conditions if condition.get("status") == "True"]


def _words(condition: Mapping[str, Any]) -> str:
    message = condition.get("message") or condition.get("reason") or ""
    return f"{condition['type'].lower()}: {message}" if message else condition["type"].lower()
