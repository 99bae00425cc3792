"""What the status of a worker's pod means. Pure: an object in, words out.

See https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RETRYABLE_EXIT_CODE = 128
DEFAULT_GRACE_SECONDS = 30
OUT_OF_MEMORY = "OOMKilled"
DELETED = "the pod was deleted"
# The runtime could not start the program: there is none of that name, or it cannot be executed. With exit code 128,
# which the Training Operator takes for one worth another try.
NEVER_STARTED = ("StartError", "ContainerCannotRun")
# Reasons to wait that no time mends: the name of the image, what the container refers to, or its settings are wrong.
CANNOT_START = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
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
        created: When the pod was made, as the API writes it.
        ended: When the container ended, as the API writes it; empty before.
        restart_count: How often the container was started again in this pod.
        disruption: Why the pod has to go though nothing is wrong with it, in words; empty when it has not.
        grace_seconds: How long it may take to go.
    """

    name: str
    uid: str
    replica: str
    phase: Phase
    words: str
    exit_code: int | None = None
    reason: str = ""
    created: str = ""
    ended: str = ""
    restart_count: int = 0
    disruption: str = ""
    grace_seconds: int = DEFAULT_GRACE_SECONDS

    @property
    def has_started(self) -> bool:
        return self.phase == "running" or self.exit_code is not None

    @property
    def has_ended(self) -> bool:
        return self.phase in ("succeeded", "failed")

    @property
    def never_started(self) -> bool:
        """Whether its program could not be started at all."""
        return self.phase == "failed" and self.reason in NEVER_STARTED

    @property
    def cannot_start(self) -> bool:
        """Whether it waits for something that does not come by itself."""
        return self.phase == "pending" and self.reason in CANNOT_START

    @property
    def is_permanent(self) -> bool:
        """Whether the worker failed in a way that another try would not mend."""
        if self.phase != "failed" or self.exit_code is None:
            return False
        return self.never_started or 0 < self.exit_code < RETRYABLE_EXIT_CODE


def pod_state(pod: Mapping[str, Any], container: str) -> PodState:
    """Reads a pod.

    Args:
        pod: As the API gives it.
        container: Name of the container that trains.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    own = _container_status(status, container)
    phase, words, exit_code, reason = _phase(status, own, (pod.get("spec") or {}).get("nodeName", ""))
    disruption = _disruption(metadata, status)
    if disruption and phase in ("pending", "running"):
        words = f"{words}; told to go: {disruption}"
    return PodState(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        replica=replica(pod),
        phase=phase,
        words=words,
        exit_code=exit_code,
        reason=reason,
        created=metadata.get("creationTimestamp") or "",
        ended=((own.get("state") or {}).get("terminated") or {}).get("finishedAt") or "",
        restart_count=own.get("restartCount") or 0,
        disruption=disruption,
        grace_seconds=metadata.get("deletionGracePeriodSeconds") or DEFAULT_GRACE_SECONDS,
    )


def failure_before(pod: Mapping[str, Any], container: str) -> PodState | None:
    """How the container ended before it was started again in the same pod; None when it was not."""
    metadata, own = pod["metadata"], _container_status(pod.get("status") or {}, container)
    ended = (own.get("lastState") or {}).get("terminated")
    if not ended or not ended.get("exitCode"):
        return None
    return PodState(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        replica=replica(pod),
        phase="failed",
        words=_failure({}, ended, ended["exitCode"]),
        exit_code=ended["exitCode"],
        reason=ended.get("reason") or "",
        created=metadata.get("creationTimestamp") or "",
        ended=ended.get("finishedAt") or "",
    )


def replica(pod: Mapping[str, Any]) -> str:
    """The worker's name: from the Training Operator's labels, or from the index that an Indexed Job gives."""
    labels = pod["metadata"].get("labels") or {}
    role = labels.get("training.kubeflow.org/replica-type", "worker")
    index = labels.get("training.kubeflow.org/replica-index") or labels.get("batch.kubernetes.io/job-completion-index")
    return f"{role}-{index}" if index is not None else str(pod["metadata"]["name"])


def _container_status(status: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    return next((item for item in status.get("containerStatuses") or [] if item.get("name") == container), {})


def _phase(status: Mapping[str, Any], own: Mapping[str, Any], node: str) -> tuple[Phase, str, int | None, str]:
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
    if ended.get("reason") == OUT_OF_MEMORY:
        return f"OOMKilled (exit code {code}): it needed more memory than its limit; raise worker_memory"
    if ended.get("reason") in NEVER_STARTED:
        why = ended.get("message", "").strip() or "the container could not start"
        return f"{ended['reason']} (exit code {code}): {why}"
    disrupted = _condition(status, "DisruptionTarget")
    if disrupted.get("status") == "True":
        return f"{disrupted.get('reason', 'disrupted')}: {disrupted.get('message', '')} (exit code {code})"
    if code is None:
        return "failed"
    message = f": {ended['message'].strip()}" if ended.get("message") else ""
    return f"exited with code {code}{message}"


def _disruption(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """A drain, an eviction, a preemption, a node that is lost or shut down, or a `kubectl delete pod`."""
    disrupted = _condition(status, "DisruptionTarget")
    if disrupted.get("status") == "True":
        return f"{disrupted.get('reason', 'disrupted')}: {disrupted.get('message', '')}".rstrip(": ")
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message', '').strip()}".rstrip(": ")
    return DELETED if metadata.get("deletionTimestamp") else ""


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
