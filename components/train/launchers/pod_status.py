"""What the status of a worker's pod means. Pure: an object in, words out.

See https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kfp_image_classification.components.train.worker.exit_codes import PEER_LOST, PREEMPTED

RETRYABLE_EXIT_CODE = 128
KILLED = 137
Phase = Literal["pending", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class PodState:
    """One pod of a job.

    Attributes:
        name: The pod's name.
        uid: Sets a pod apart from its successors of the same name.
        replica: The worker's name in the job, such as `worker-1`.
        phase: pending until the container has started.
        words: What is the matter, for the user.
        exit_code: Of the container, once it has ended.
        reason: Why the container or the pod ended or waits, in one word of Kubernetes.
    """

    name: str
    uid: str
    replica: str
    phase: Phase
    words: str
    exit_code: int | None = None
    reason: str = ""

    @property
    def has_started(self) -> bool:
        return self.phase == "running" or self.exit_code is not None

    @property
    def has_ended(self) -> bool:
        return self.phase in ("succeeded", "failed")

    @property
    def is_permanent(self) -> bool:
        """Whether the worker failed in a way that another try would not mend."""
        return self.phase == "failed" and self.exit_code is not None and 0 < self.exit_code < RETRYABLE_EXIT_CODE


def pod_state(pod: Mapping[str, Any], container: str) -> PodState:
    """Reads a pod.

    Args:
        pod: As the API gives it.
        container: Name of the container that trains.
    """
    status = pod.get("status") or {}
    phase, words, exit_code, reason = _phase(status, container, (pod.get("spec") or {}).get("nodeName", ""))
    return PodState(
        name=pod["metadata"]["name"],
        uid=pod["metadata"].get("uid", ""),
        replica=replica(pod),
        phase=phase,
        words=words,
        exit_code=exit_code,
        reason=reason,
    )


def replica(pod: Mapping[str, Any]) -> str:
    """The worker's name: from the Training Operator's labels, or from the index that an Indexed Job gives."""
    labels = pod["metadata"].get("labels") or {}
    role = labels.get("training.kubeflow.org/replica-type", "worker")
    index = labels.get("training.kubeflow.org/replica-index") or labels.get("batch.kubernetes.io/job-completion-index")
    return f"{role}-{index}" if index is not None else str(pod["metadata"]["name"])


def culprit(states: Iterable[PodState]) -> PodState | None:
    """The failed pod that tells most: one that failed for a reason of its own, before those that lost their peer."""

    def rank(state: PodState) -> int:
        if state.is_permanent:
            return 0
        if state.exit_code not in (PEER_LOST, PREEMPTED):
            return 1
        return 2 if state.exit_code == PREEMPTED else 3

    failed = [state for state in states if state.phase == "failed"]
    return min(failed, key=rank, default=None)


def _phase(status: Mapping[str, Any], container: str, node: str) -> tuple[Phase, str, int | None, str]:
    own: Mapping[str, Any] = next(
        (item for item in status.get("containerStatuses") or [] if item.get("name") == container), {}
    )
    state = own.get("state") or {}
    ended = state.get("terminated")
    if status.get("phase") == "Failed" or (ended and ended.get("exitCode")):
        code = ended.get("exitCode") if ended else None
        reason = status.get("reason") or (ended or {}).get("reason") or ""
        return "failed", _failure(status, ended or {}, code), code, reason
    if status.get("phase") == "Succeeded" or ended:
        return "succeeded", "done", 0, ""
    if "running" in state:
        return "running", f"running on {node}" if node else "running", None, ""
    return _waiting(status, state)


def _failure(status: Mapping[str, Any], ended: Mapping[str, Any], code: int | None) -> str:
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost ...: about the pod, and of more use than its code
        return f"{status['reason']}: {status.get('message', '').strip()}".rstrip(": ")
    if ended.get("reason") == "OOMKilled":
        return f"OOMKilled (exit code {code}): it needed more memory than its limit; raise worker_memory"
    disrupted = _condition(status, "DisruptionTarget")
    if disrupted.get("status") == "True":
        return f"{disrupted.get('reason', 'disrupted')}: {disrupted.get('message', '')} (exit code {code})"
    if code is None:
        return "failed"
    message = f": {ended['message'].strip()}" if ended.get("message") else ""
    return f"exited with code {code}{message}"


def _waiting(status: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Phase, str, int | None, str]:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        reason = scheduled.get("reason", "Unschedulable")
        return "pending", f"{reason}: {scheduled.get('message', '')}".rstrip(": "), None, reason
    waiting = state.get("waiting") or _waiting_init_container(status)
    reason = waiting.get("reason", "")
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return "pending", "starting" if scheduled else "waiting to be scheduled", None, reason
    return "pending", f"{reason}: {waiting.get('message', '')}".rstrip(": "), None, reason


def _waiting_init_container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for item in status.get("initContainerStatuses") or []:
        if waiting := (item.get("state") or {}).get("waiting"):
            return dict(waiting)
    return {}


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((condition for condition in status.get("conditions") or [] if condition.get("type") == kind), {})
