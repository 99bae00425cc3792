"""What the status of a TFJob or TrainJob means. Pure: an object in, words and a verdict out.

The conditions of a TFJob are Created, Running, Restarting, Suspended, Succeeded and Failed; those of a TrainJob are
Suspended, Complete and Failed.
"""

from collections.abc import Mapping
from typing import Any

from kfp_image_classification.components.train.launchers.base import Verdict

_SUCCESS = ("Succeeded", "Complete")
_FAILURE = "Failed"
_SUSPENDED = "Suspended"


def job_verdict(job: Mapping[str, Any]) -> Verdict:
    """Judges a job by its conditions."""
    true = _true_conditions(job)
    if any(condition["type"] in _SUCCESS for condition in true):
        return Verdict("succeeded")
    for condition in true:
        if condition["type"] == _FAILURE:
            return Verdict("failed", _words(condition))
    return Verdict("running")


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
