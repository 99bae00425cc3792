"""What is known of a running job, and what follows from it. Takes objects of the API and the time; calls nobody."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_image_classification.components.train.launchers.base import Verdict
from kfp_image_classification.components.train.launchers.job_status import is_suspended, job_verdict, job_words
from kfp_image_classification.components.train.launchers.pod_status import PodState, culprit, pod_state

# A worker that failed for good, and an operator that does not end the job: then the launcher does.
OPERATOR_SECONDS = 60.0
# Beyond the job's own deadline, which the operator sees to.
DEADLINE_GRACE_SECONDS = 60.0


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

    def __init__(self, kind: str, operator: str, container: str, limits: Limits, tell: Callable[[str], None]) -> None:
        """Starts with nothing known.

        Args:
            kind: TFJob or TrainJob.
            operator: Who should act on it, for messages.
            container: Name of the container that trains.
            limits: How long, and how often.
            tell: Told each change of state.
        """
        self._kind, self._operator, self._container = kind, operator, container
        self._limits, self._tell = limits, tell
        self._job: Mapping[str, Any] = {}
        self._is_gone = False
        self._pods: dict[str, PodState] = {}
        self._ended: dict[str, PodState] = {}
        self._generations: dict[str, list[str]] = defaultdict(list)
        self._since: dict[str, float] = {}
        self._waits_since: float | None = None
        self._started_at: float | None = None
        self._warnings: dict[tuple[str, str], str] = {}

    @property
    def restarts(self) -> int:
        """How often the job has started again: as often as the worker that was made anew most."""
        return max((len(uids) for uids in self._generations.values()), default=1) - 1

    @property
    def pods(self) -> list[PodState]:
        return list(self._pods.values())

    def job_changed(self, job: Mapping[str, Any]) -> None:
        words = job_words(job)
        if words and words != job_words(self._job):
            self._tell(f"{self._kind} {job['metadata']['name']}: {words}")
        self._job = job

    def job_deleted(self) -> None:
        self._is_gone = True

    def pod_changed(self, pod: Mapping[str, Any], now: float) -> None:
        state = pod_state(pod, self._container)
        before = self._pods.get(state.uid)
        if before is None:
            restarts = self.restarts
            self._generations[state.replica].append(state.uid)
            if self.restarts > restarts:
                limit = self._limits.max_restarts
                if self.restarts <= limit:
                    self._tell(f"restart {self.restarts} of {limit} from the last checkpoint")
            for uid in self._generations[state.replica][:-1]:
                self._pods.pop(uid, None)
        if before is None or before.words != state.words:
            self._tell(f"{state.replica} (pod {state.name}): {state.words}")
        if before is None or (before.phase, before.exit_code) != (state.phase, state.exit_code):
            self._since[state.uid] = now
        self._pods[state.uid] = state
        if state.phase == "failed":
            self._ended[state.uid] = state

    def pod_deleted(self, uid: str) -> None:
        self._pods.pop(uid, None)

    def warned(self, event: Mapping[str, Any]) -> None:
        """Takes an event of type Warning about the job or one of its pods."""
        name, message = event["involvedObject"].get("name", ""), event.get("message", "").strip()
        if (name, message) not in self._warnings:
            self._warnings[name, message] = event.get("reason", "")
            self._tell(f"{name}: warning {event.get('reason', '')}: {message}")

    def culprit(self) -> PodState | None:
        """The pod to blame: among the failed ones of the last start, else of the one before."""
        newest = {uids[-1] for uids in self._generations.values()}
        current = culprit(state for uid, state in self._ended.items() if uid in newest)
        return current or culprit(reversed(self._ended.values()))

    def verdict(self, now: float) -> Verdict:
        """Judges the job: by its own status first, then by what its operator does not see."""
        told = job_verdict(self._job)
        if told.state != "running":
            return Verdict(told.state, f"{self._named} {told.reason}" if told.reason else "")
        if self._is_gone:
            return Verdict("failed", f"{self._named} was deleted while it ran")
        if self._started_at is None:
            self._started_at = now
        if now - self._started_at > self._limits.deadline_seconds + DEADLINE_GRACE_SECONDS:
            return Verdict(
                "failed", f"{self._named} ran longer than job.deadline_seconds = {self._limits.deadline_seconds}"
            )
        if self.restarts > self._limits.max_restarts:
            return Verdict("failed", f"{self._named} failed after max_restarts = {self._limits.max_restarts} restarts")
        for state in self.pods:
            if state.is_permanent and now - self._since[state.uid] > OPERATOR_SECONDS:
                return Verdict("failed", f"{self._named} goes on without {state.replica}, which failed for good")
        return self._start(now)

    def _start(self, now: float) -> Verdict:
        limit = self._limits.start_seconds
        if is_suspended(self._job) or len(self._pods) >= self._limits.workers:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > limit:
            found = f"{len(self._pods)} of {self._limits.workers} pods" if self._pods else "no pod"
            warnings = [f"{reason}: {message}" for (_, message), reason in self._warnings.items()]
            hint = f"last warning: {warnings[-1]}" if warnings else f"does the {self._operator} run?"
            return Verdict("failed", f"{self._named} got {found} within job.start_seconds = {limit:g}; {hint}")
        late = [state for state in self.pods if not state.has_started and now - self._since[state.uid] > limit]
        if not late:
            return Verdict("running")
        state = late[0]
        warning = self._last_warning_about(state.name)
        return Verdict(
            "failed",
            f"{state.replica} (pod {state.name}) did not start within job.start_seconds = {limit:g}: {state.words}"
            + (f"; last warning: {warning}" if warning else ""),
        )

    def _last_warning_about(self, name: str) -> str:
        found = [f"{reason}: {message}" for (about, message), reason in self._warnings.items() if about == name]
        return found[-1] if found else ""

    @property
    def _named(self) -> str:
        return f"{self._kind} {self._job.get('metadata', {}).get('name', '')}".strip()
