"""Every pod that a job has had, each counted once, and which of them is to blame. Pure."""

from collections import defaultdict
from dataclasses import replace

from kfp_image_classification.components.train.launchers.pod_status import DELETED, OUT_OF_MEMORY, PodState
from kfp_image_classification.components.train.worker.exit_codes import PEER_LOST, PREEMPTED


class PodHistory:
    """Remembers pods by uid: an event that comes late tells more of a pod that is known, and is never a new one."""

    def __init__(self) -> None:
        self._states: dict[str, PodState] = {}
        self._failures: dict[tuple[str, int], PodState] = {}
        self._generations: dict[str, list[str]] = defaultdict(list)
        self._disrupted: dict[str, None] = {}
        self._gone: set[str] = set()

    def take(self, state: PodState) -> PodState | None:
        """Notes a pod's state; returns the one before, None for a pod that was not known."""
        before = self._states.get(state.uid)
        self._states[state.uid] = state
        if before is None:
            uids = self._generations[state.replica]
            uids.append(state.uid)
            # A list of pods comes in the order of their names.
            uids.sort(key=lambda uid: self._states[uid].created)
        if state.disruption:
            self._disrupted[state.uid] = None
        if state.phase == "failed":
            self._failures[state.uid, state.restart_count] = state
        return before

    def restarted_in_place(self, failure: PodState, restart_count: int) -> bool:
        """Notes how a container ended before its restart in the same pod; returns whether that was not known."""
        key = (failure.uid, restart_count - 1)
        is_new = key not in self._failures
        self._failures[key] = replace(failure, restart_count=restart_count - 1)
        return is_new

    def deleted(self, uid: str) -> None:
        """Notes that a pod is gone: one that had not ended was made to go, by force when nothing was heard before."""
        self._gone.add(uid)
        state = self._states.get(uid)
        if state and not state.has_ended and not state.disruption:
            self._states[uid] = replace(state, disruption=DELETED)
            self._disrupted[uid] = None

    @property
    def restarts(self) -> int:
        """How often the job has started again: as often as the worker that did most, in new pods or in the same."""
        return max(
            (
                len(uids) - 1 + sum(self._states[uid].restart_count for uid in uids)
                for uids in self._generations.values()
            ),
            default=0,
        )

    @property
    def present(self) -> list[PodState]:
        """Of each worker the newest pod, unless it is gone."""
        return [self._states[uids[-1]] for uids in self._generations.values() if uids[-1] not in self._gone]

    @property
    def disrupted(self) -> list[PodState]:
        """The pods that had to go though nothing was wrong with them, the first one first.

        An operator that gives up deletes the other pods at once. So those of which the cluster says why they had to go
        are before those that were just deleted; else the order is that in which they were seen to go.
        """
        return sorted((self._states[uid] for uid in self._disrupted), key=lambda state: state.disruption == DELETED)

    @property
    def failures(self) -> list[PodState]:
        return list(self._failures.values())

    def is_replaced(self, state: PodState) -> bool:
        return self._generations[state.replica][-1] != state.uid or self._states[state.uid].phase != "failed"

    def culprit(self) -> PodState | None:
        """The failed pod that tells most.

        One that failed for a reason of its own goes before those that lost their peer or were told to go, also when
        it has been replaced since; among such ones, those of the newest start, and there the permanent failure, the
        lack of memory, and then the first.
        """
        own = [state for state in self.failures if state.exit_code not in (PEER_LOST, PREEMPTED)]
        if own:
            newest = max(self._start_of(state) for state in own)
            return min((state for state in own if self._start_of(state) == newest), key=_rank)
        return min(self.failures, key=lambda state: (-self._start_of(state), _rank(state)), default=None)

    def _start_of(self, state: PodState) -> int:
        uids = self._generations[state.replica]
        before = uids[: uids.index(state.uid)]
        return len(before) + sum(self._states[uid].restart_count for uid in before) + state.restart_count


def _rank(state: PodState) -> tuple[int, str]:
    if state.is_permanent:
        return 0, state.ended
    if state.reason == OUT_OF_MEMORY:
        return 1, state.ended
    if state.exit_code not in (PEER_LOST, PREEMPTED):
        return 2, state.ended
    if state.disruption:
        return 3, state.ended
    return (4 if state.exit_code == PREEMPTED else 5), state.ended
