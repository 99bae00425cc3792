"""What is known of a running job, and what follows from it. Takes objects of the API and the time; calls nobody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_image_classification.components.train.launchers.base import Verdict
from kfp_image_classification.components.train.launchers.job_status import (
    failed_by_its_pods,
    is_suspended,
    job_verdict,
    job_words,
)
from kfp_image_classification.components.train.launchers.pod_history import PodHistory
from kfp_image_classification.components.train.launchers.pod_status import PodState, failure_before, pod_state

# A worker that failed for good, and an operator that does not end the job: then the launcher does.
OPERATOR_SECONDS = 60.0
# Beyond the job's own deadline, which the operator sees to.
DEADLINE_GRACE_SECONDS = 60.0
# What a container refers to may be made a moment after it; no longer is waited for it.
CANNOT_START_SECONDS = 30.0
# Beyond the time that a pod has to go. It stays for as long as its node does not answer.
LOST_NODE_SECONDS = 30.0


@dataclass(frozen=True)
class Limits:
    """How long, and how often.

    Attributes:
        workers: Pods that the job needs.
        max_restarts: Starts of the job from its last checkpoint.
        start_seconds: Until a pod must have started.
        deadline_seconds: The job's longest duration.
    """

    workers: int
    max_restarts: int
    start_seconds: float
    deadline_seconds: float


class JobProgress:
    """Follows one job: tells changes of state as they come, and judges."""

    def __init__(
        self,
        kind: str,
        operator: str,
        container: str,
        limits: Limits,
        tell: Callable[[str], None],
        restarts_before: int = 0,
    ) -> None:
        """Starts with nothing known.

        Args:
            kind: TFJob or TrainJob.
            operator: Who should act on it, for messages.
            container: Name of the container that trains.
            limits: How long, and how often.
            tell: Told each change of state.
            restarts_before: Those of the jobs in whose place this one was made.
        """
        self._kind, self._operator, self._container = kind, operator, container
        self._limits, self._tell, self._restarts_before = limits, tell, restarts_before
        self._job: Mapping[str, Any] = {}
        self._is_gone = False
        self._history = PodHistory()
        self._since: dict[str, float] = {}
        self._going_since: dict[str, float] = {}
        self._waits_since: float | None = None
        self._started_at: float | None = None
        self._warnings: dict[tuple[str, str], str] = {}

    @property
    def restarts(self) -> int:
        """How often the training has started again, in this job and in those before it."""
        return self._restarts_before + self._history.restarts

    @property
    def job_uid(self) -> str:
        return str(self._job.get("metadata", {}).get("uid", ""))

    @property
    def pods(self) -> list[PodState]:
        """Of each worker the newest pod, unless it is gone."""
        return self._history.present

    def job_changed(self, job: Mapping[str, Any]) -> None:
        words = job_words(job)
        if words and words != job_words(self._job):
            self._tell(f"{self._kind} {job['metadata']['name']}: {words}")
        self._job = job

    def job_deleted(self) -> None:
        self._is_gone = True

    def pod_changed(self, pod: Mapping[str, Any], now: float) -> None:
        state, restarts = pod_state(pod, self._container), self.restarts
        before = self._history.take(state)
        if state.restart_count:
            ended = failure_before(pod, self._container)
            if ended and self._history.restarted_in_place(ended, state.restart_count):
                self._tell(f"{state.replica} (pod {state.name}): {ended.words}")
        if self.restarts > restarts:
            self._tell_restart()
        if before is None or before.words != state.words:
            self._tell(f"{state.replica} (pod {state.name}): {state.words}")
        if before is None or _stage(before) != _stage(state):
            self._since[state.uid] = now
        if state.disruption:
            self._going_since.setdefault(state.uid, now)

    def pod_deleted(self, uid: str) -> None:
        self._history.deleted(uid)

    def warned(self, event: Mapping[str, Any]) -> None:
        """Takes an event of type Warning about the job or one of its pods."""
        name, message = event["involvedObject"].get("name", ""), event.get("message", "").strip()
        if (name, message) not in self._warnings:
            self._warnings[name, message] = event.get("reason", "")
            self._tell(f"{name}: warning {event.get('reason', '')}: {message}")

    @property
    def knows_why(self) -> bool:
        """Whether a pod failed, or had to go."""
        return bool(self._history.failures or self._history.disrupted)

    def culprit(self) -> PodState | None:
        """The pod to blame for a failure."""
        return self._history.culprit()

    def verdict(self, now: float) -> Verdict:
        """Judges the job: by its own status first, then by what its operator does not see.

        A failure is retryable when the same job, made anew, may go on from its last checkpoint.
        """
        told = job_verdict(self._job)
        if told.state == "failed":
            return self._failed(told)
        if told.state == "succeeded":
            return told
        if self._is_gone:
            return Verdict("failed", f"{self._named} was deleted while it ran")
        if self._started_at is None:
            self._started_at = now
        if now - self._started_at > self._limits.deadline_seconds + DEADLINE_GRACE_SECONDS:
            return Verdict(
                "failed", f"{self._named} ran longer than job.deadline_seconds = {self._limits.deadline_seconds}"
            )
        if wrong := self._is_useless(now):
            return wrong
        if self.restarts > self._limits.max_restarts:
            return Verdict("failed", f"{self._named} failed after max_restarts = {self._limits.max_restarts} restarts")
        return self._lost_node(now) or self._start(now)

    def _failed(self, told: Verdict) -> Verdict:
        """The operator has given up: for a pod that had to go, say, which the Training Operator takes for a failure."""
        reason = f"{self._named} {told.reason}".rstrip(".")
        failures, disrupted = self._history.failures, self._history.disrupted
        if not failed_by_its_pods(self._job) or any(state.is_permanent for state in failures):
            return Verdict("failed", reason)
        if self._kind != "TFJob" and not failures and not disrupted:
            return Verdict("failed", reason)
        if disrupted:
            state = disrupted[0]
            reason += f"; {state.replica} (pod {state.name}) had to go: {state.disruption}"
        return Verdict("failed", reason, retryable=True)

    def _is_useless(self, now: float) -> Verdict | None:
        """Whether what has happened would happen again."""
        for state in self._history.failures:
            if state.never_started:
                return Verdict("failed", f"{self._named} cannot start its workers")
            if state.is_permanent and self._history.is_replaced(state):
                return Verdict("failed", f"{self._named} starts {state.replica} again, which failed for good")
            if state.is_permanent and now - self._since[state.uid] > OPERATOR_SECONDS:
                return Verdict("failed", f"{self._named} goes on without {state.replica}, which failed for good")
        for state in self.pods:
            if state.cannot_start and now - self._since[state.uid] > CANNOT_START_SECONDS:
                return Verdict("failed", f"{state.replica} (pod {state.name}) cannot start: {self._why(state)}")
        return None

    def _lost_node(self, now: float) -> Verdict | None:
        for state in self.pods:
            since = self._going_since.get(state.uid)
            if since is not None and not state.has_ended and now - since > state.grace_seconds + LOST_NODE_SECONDS:
                return Verdict(
                    "failed",
                    f"{self._named}: {state.replica} (pod {state.name}) does not go, its node may be lost: "
                    f"{state.disruption}",
                    retryable=True,
                )
        return None

    def _start(self, now: float) -> Verdict:
        limit, pods = self._limits.start_seconds, self.pods
        if is_suspended(self._job) or len(pods) >= self._limits.workers:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > limit:
            found = f"{len(pods)} of {self._limits.workers} pods" if pods else "no pod"
            warnings = [f"{reason}: {message}" for (_, message), reason in self._warnings.items()]
            hint = f"last warning: {warnings[-1]}" if warnings else f"does the {self._operator} run?"
            return Verdict("failed", f"{self._named} got {found} within job.start_seconds = {limit:g}; {hint}")
        late = [state for state in pods if not state.has_started and now - self._since[state.uid] > limit]
        if not late:
            return Verdict("running")
        state = late[0]
        return Verdict(
            "failed",
            f"{state.replica} (pod {state.name}) did not start within job.start_seconds = {limit:g}: "
            f"{self._why(state)}",
        )

    def _tell_restart(self) -> None:
        if self.restarts <= self._limits.max_restarts:
            self._tell(f"restart {self.restarts} of {self._limits.max_restarts} from the last checkpoint")

    def _why(self, state: PodState) -> str:
        """What a pod waits for, and the cluster's last warning about it."""
        found = [f"{reason}: {message}" for (about, message), reason in self._warnings.items() if about == state.name]
        return f"{state.words}; last warning: {found[-1]}" if found else state.words

    @property
    def _named(self) -> str:
        return f"{self._kind} {self._job.get('metadata', {}).get('name', '')}".strip()


def _stage(state: PodState) -> tuple[object, ...]:
    return state.phase, state.exit_code, state.cannot_start
