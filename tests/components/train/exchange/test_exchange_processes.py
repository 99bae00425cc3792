"""Real processes over loopback: same bits, and what becomes of the others when one of them ends, hangs or lags."""

import signal
import time
from collections.abc import Callable

import pytest
from exchange_workers import Process
from slow_cases import most_slow

Start = Callable[..., Process]
Addresses = Callable[[int], list[str]]
# Of a loaded machine; on an idle one it takes milliseconds.
AT_ONCE = 3.0


def group(start: Start, addresses: list[str], **options: object) -> list[Process]:
    return [start(addresses, index, **options) for index in range(len(addresses))]


@pytest.mark.parametrize("workers", most_slow([2, 3, 4, 5, 8, 16], 3))
def test_all_get_the_same_bits_every_time(start: Start, addresses: Addresses, workers: int) -> None:
    seen = set()
    for wire in ("float32", "float32", "bfloat16"):
        processes = group(start, addresses(workers), values=20_000, sums=3, wire=wire)
        digests = {process.told("digest")["digest"] for process in processes}
        assert [process.wait() for process in processes] == [0] * workers
        assert len(digests) == 1
        seen |= digests
    assert len(seen) == 2


@pytest.mark.parametrize("workers", most_slow([2, 3, 5, 8], 3))
def test_a_killed_worker_is_noticed_at_once_by_all(start: Start, addresses: Addresses, workers: int) -> None:
    processes = group(start, addresses(workers), values=100_000, sums=10**6)
    for process in processes:
        process.told("sum")
    victim = processes.pop(workers // 2)
    time.sleep(0.2)
    victim.send(signal.SIGKILL)
    killed = time.monotonic()
    for process in processes:
        failed = process.told("failed")
        assert failed["at"] - killed < AT_ONCE
        assert failed["failed"] == "PeerLost"
        assert failed["peer"] in range(workers)
        assert f"worker {failed['peer']} " in failed["message"]
    assert victim.index in [process.told("failed")["peer"] for process in processes]


def test_others_name_the_one_that_was_lost_not_each_other(start: Start, addresses: Addresses) -> None:
    processes = group(start, addresses(6), values=10, sums=10**6, pause=0.05)
    for process in processes:
        process.told("sum")
    processes.pop(3).send(signal.SIGKILL)
    assert {process.told("failed")["peer"] for process in processes} == {3}


@pytest.mark.parametrize("workers", most_slow([2, 4], 4))
def test_a_worker_that_stands_still_is_noticed_after_stuck_seconds(
    start: Start, addresses: Addresses, workers: int
) -> None:
    processes = group(start, addresses(workers), values=100_000, sums=10**6, stuck_seconds=3)
    for process in processes:
        process.told("sum")
    victim = processes.pop()
    victim.send(signal.SIGSTOP)
    stopped = time.monotonic()
    failures = [process.told("failed") for process in processes]
    assert all(2.5 < failed["at"] - stopped < 3 + AT_ONCE for failed in failures)
    assert victim.index in [failed["peer"] for failed in failures if failed["failed"] == "PeerStuck"]


def test_a_worker_that_stood_still_for_less_is_waited_for(start: Start, addresses: Addresses) -> None:
    processes = group(start, addresses(3), values=100_000, sums=800, stuck_seconds=30)
    processes[1].told("sum")
    processes[1].send(signal.SIGSTOP)
    time.sleep(1)
    processes[1].send(signal.SIGCONT)
    assert len({process.told("digest")["digest"] for process in processes}) == 1


def test_a_worker_that_is_done_does_not_disturb_the_others_last_sum(start: Start, addresses: Addresses) -> None:
    processes = group(start, addresses(3), values=500_000, sums=2)
    assert [process.wait() for process in processes] == [0] * 3


def test_a_worker_that_is_done_before_the_others_is_named(start: Start, addresses: Addresses) -> None:
    own = addresses(2)
    first, second = start(own, 0, sums=3), start(own, 1, sums=5)
    assert first.wait() == 0
    failed = second.told("failed")
    assert failed["peer"] == 0
    assert failed["message"] == "worker 0 is done and has left, and this worker is at sum 5"
