"""Each pod counts once, and the right one is blamed."""

from typing import Any

import pytest

from kfp_image_classification.components.train.launchers.pod_history import PodHistory
from kfp_image_classification.components.train.launchers.pod_status import PodState


def state(replica: str, uid: str, phase: Any = "running", code: int | None = None, **more: Any) -> PodState:
    return PodState(f"j-{replica}", uid, replica, phase, "", code, **more)


def history(*states: PodState) -> PodHistory:
    known = PodHistory()
    for one in states:
        known.take(one)
    return known


def test_each_uid_counts_once_however_late_it_is_told() -> None:
    known = history(state("w0", "a"), state("w0", "a", "failed", 137), state("w0", "b"))
    assert known.restarts == 1
    # As a watch tells it: the old pod changes once more, and again when it is removed.
    known.take(state("w0", "a", "failed", 137))
    known.deleted("a")
    known.take(state("w0", "a", "failed", 137))
    assert known.restarts == 1
    assert [one.uid for one in known.present] == ["b"]
    known.deleted("b")
    assert known.present == []
    known.take(state("w0", "b", "failed", 137))
    assert known.restarts == 1


def test_a_restart_of_all_workers_counts_once() -> None:
    known = history(*(state(f"w{index}", f"{index}-{start}") for start in range(3) for index in range(4)))
    assert known.restarts == 2


def test_old_pods_of_a_list_are_put_in_their_order() -> None:
    """An adopted TrainJob has its failed pods beside the new ones, in the order of their names."""
    known = history(
        state("w0", "new", created="2026-11-26T12:01:00Z"), state("w0", "old", created="2026-11-26T12:00:00Z")
    )
    assert [one.uid for one in known.present] == ["new"]
    assert known.restarts == 1


def test_restarts_in_the_same_pod_count_too() -> None:
    known = history(state("w0", "a"), state("w0", "a", restart_count=2), state("w1", "b", restart_count=1))
    assert known.restarts == 2
    known.take(state("w0", "c", restart_count=1))
    assert known.restarts == 4, "two in the first pod, a new pod, one in it"


@pytest.mark.parametrize(
    ("codes", "blamed"),
    [([138, 2], 1), ([138, 137], 1), ([137, 2], 1), ([143, 138], 0), ([138, None], 1), ([138, 138], 0), ([138, 1], 1)],
)
def test_the_pod_that_failed_for_a_reason_of_its_own_is_blamed(codes: list[int | None], blamed: int) -> None:
    known = history(*(state(f"w{index}", str(index), "failed", code) for index, code in enumerate(codes)))
    culprit = known.culprit()
    assert culprit is not None
    assert culprit.uid == str(blamed)


def test_the_lack_of_memory_is_blamed_though_its_pod_is_replaced_and_its_peers_is_not() -> None:
    known = history(
        state("w0", "a"),
        state("w1", "b"),
        state("w0", "a", "failed", 137, reason="OOMKilled"),
        state("w0", "c", "pending"),
        state("w1", "b", "failed", 138),
    )
    culprit = known.culprit()
    assert culprit is not None
    assert culprit.uid == "a"


def test_of_two_faults_the_first_is_blamed() -> None:
    later, earlier = "2026-11-26T12:00:05Z", "2026-11-26T12:00:03Z"
    known = history(state("w0", "a", "failed", 139, ended=later), state("w1", "b", "failed", 134, ended=earlier))
    culprit = known.culprit()
    assert culprit is not None
    assert culprit.uid == "b"


def test_the_disrupted_pod_is_blamed_before_those_that_left_with_it() -> None:
    known = history(
        state("w0", "a", "failed", 143), state("w1", "b", "failed", 143, disruption="EvictionByEvictionAPI")
    )
    culprit = known.culprit()
    assert culprit is not None
    assert culprit.uid == "b"


def test_who_had_to_go_first() -> None:
    known = history(state("w0", "a"), state("w1", "b"), state("w2", "c"), state("w3", "d"))
    known.take(state("w2", "c", disruption="the pod was deleted"))
    known.deleted("a")  # by force, or between two looks
    known.take(state("w1", "b", disruption="EvictionByEvictionAPI"))
    known.deleted("c")
    assert [one.uid for one in known.disrupted] == ["b", "c", "a"]
    assert known.disrupted[2].disruption == "the pod was deleted"


def test_nobody_is_blamed_when_nobody_failed() -> None:
    assert history(state("w0", "a")).culprit() is None
