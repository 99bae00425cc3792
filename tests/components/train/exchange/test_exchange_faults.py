"""What happens to the bytes between two workers, in each phase: cut, killed, garbled, delayed, held back."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exchange_workers import Process, as_threads, numbers
from network_proxy import Cut, Proxy, at, garbled
from slow_cases import most_slow

from kfp_image_classification.components.train.exchange import Exchange, PeerLost, PeerStuck, WrongMessage
from kfp_image_classification.components.train.exchange.messages import GREETING_BYTES, HEADER_BYTES, Headers, seal
from kfp_image_classification.components.train.exchange.numbers import check

Start = Callable[..., Process]
Addresses = Callable[[int], list[str]]
Proxied = Callable[..., Proxy]

AT_ONCE = 3.0
VALUES = 100_000
PART = HEADER_BYTES + VALUES // 2 * 4
# What the worker that calls has sent: hello and ready, two empty parts when all are there, two parts for each sum.
HELLO, READY = GREETING_BYTES, 2 * GREETING_BYTES
GATHERED = READY + 2 * HEADER_BYTES
IN_HANDSHAKE = {"in the hello": 50, "after the hello": HELLO, "in ready": HELLO + 50}
IN_SUM = {
    "right after the handshake": READY + 1,
    "while others are waited for": READY + 20,
    "in the second word of it": READY + HEADER_BYTES + 10,
    "between sums": GATHERED,
    "in a header": GATHERED + 10,
    "after a header": GATHERED + HEADER_BYTES,
    "in a part": GATHERED + PART // 2,
    "after a part": GATHERED + PART,
    "in the second header": GATHERED + PART + 10,
    "in the second part": GATHERED + PART + PART // 2,
    "after a sum": GATHERED + 2 * PART,
    "later": GATHERED + 21 * PART + PART // 3,
}
GARBLED = {
    "magic": GATHERED + 1,
    "kind": GATHERED + 4,
    "type of numbers": GATHERED + 5,
    "turn": GATHERED + 7,
    "sender": GATHERED + 11,
    "job": GATHERED + 15,
    "attempt": GATHERED + 27,
    "step": GATHERED + 35,
    "size": GATHERED + 42,
    "check": GATHERED + 48,
    "first number": GATHERED + HEADER_BYTES,
    "a number": GATHERED + PART // 2,
    "last number": GATHERED + PART - 1,
    "a finished number": GATHERED + PART + PART // 2,
}
# One of each kind; the others are among the slow tests.
PHASES = (
    "while others are waited for",
    "between sums",
    "in a header",
    "in a part",
    "after a part",
    "in the second part",
    "later",
)


def pair(start: Start, own: list[str], proxy: Proxy, **options: Any) -> tuple[Process, Process]:
    """Two workers; the second finds the first behind the proxy."""
    options = {"values": VALUES, "sums": 10**6, **options}
    return start(own, 0, **options), start([f"127.0.0.1:{proxy.port}", own[1]], 1, **options)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("phase", most_slow(IN_SUM, *PHASES))
def test_killed(start: Start, addresses: Addresses, proxied: Proxied, phase: str) -> None:
    own, killed = addresses(2), list[float]()
    second: list[Process] = []

    def kill() -> None:
        killed.append(time.monotonic())
        second[0].send(signal.SIGKILL)
        raise Cut("close")

    first, other = pair(start, own, proxied(port(own[0]), up=at(IN_SUM[phase], kill)))
    second.append(other)
    failed = first.told("failed")
    assert failed["failed"] == "PeerLost"
    assert failed["peer"] == 1
    assert failed["at"] - killed[0] < AT_ONCE


@pytest.mark.parametrize("phase", most_slow(IN_HANDSHAKE, "after the hello"))
def test_killed_before_the_handshake_is_done(start: Start, addresses: Addresses, proxied: Proxied, phase: str) -> None:
    own = addresses(2)
    second: list[Process] = []

    def kill() -> None:
        second[0].send(signal.SIGKILL)
        raise Cut("close")

    first, other = pair(start, own, proxied(port(own[0]), up=at(IN_HANDSHAKE[phase], kill)), gather_seconds=4)
    second.append(other)
    failed = first.told("failed")
    assert failed["failed"] == "PeersMissing"
    assert f"no answer within 4 s from worker 1 at {own[1]} (it has not called)" in failed["message"]


@pytest.mark.parametrize(
    ("phase", "way", "how"),
    most_slow(
        [(phase, *way) for phase in IN_SUM for way in (("up", "reset"), ("down", "close"))],
        ("while others are waited for", "down", "close"),
        ("in a header", "up", "reset"),
        ("in the second part", "down", "close"),
    ),
)
def test_cut(start: Start, addresses: Addresses, proxied: Proxied, phase: str, way: str, how: Any) -> None:
    own, cut_at, offset = addresses(2), list[float](), IN_SUM[phase]
    if way == "down":
        offset -= HELLO  # the worker that is called says one greeting less

    def cut() -> None:
        cut_at.append(time.monotonic())
        raise Cut(how)

    for process in pair(start, own, proxied(port(own[0]), **{way: at(offset, cut)})):
        failed = process.told("failed")
        assert failed["failed"] == "PeerLost", failed
        assert failed["peer"] == 1 - process.index
        assert failed["at"] - cut_at[0] < AT_ONCE


def test_half_closed(start: Start, addresses: Addresses, proxied: Proxied) -> None:
    def cut() -> None:
        raise Cut("half")

    own = addresses(2)
    for process in pair(start, own, proxied(port(own[0]), up=at(GATHERED + PART // 2, cut))):
        failed = process.told("failed")
        assert (failed["failed"], failed["peer"]) == ("PeerLost", 1 - process.index)


def test_silence(start: Start, addresses: Addresses, proxied: Proxied) -> None:
    def cut() -> None:
        raise Cut("silence")

    own = addresses(2)
    first, _ = pair(start, own, proxied(port(own[0]), up=at(GATHERED + PART // 2, cut)), stuck_seconds=1)
    failed = first.told("failed")
    assert (failed["failed"], failed["peer"]) == ("PeerStuck", 1)
    assert failed["message"] == ("worker 1 has sent no part of sum 2 for 1 s: it hangs, or waits for one that does")


@pytest.mark.parametrize(
    ("what", "way"),
    most_slow(
        [(what, way) for what in GARBLED for way in ("up", "down")],
        ("step", "up"),
        ("check", "down"),
        ("first number", "up"),
        ("a finished number", "down"),
    ),
)
def test_garbled(start: Start, addresses: Addresses, proxied: Proxied, what: str, way: str) -> None:
    offset = GARBLED[what]
    own = addresses(2)
    if way == "down":
        offset -= HELLO
    processes = pair(start, own, proxied(port(own[0]), **{way: garbled(offset)}))
    reader = processes[0 if way == "up" else 1]
    failed = reader.told("failed")
    assert (failed["failed"], failed["peer"]) == ("WrongMessage", 1 - reader.index), failed
    assert processes[1 - reader.index].told("failed")["failed"] in ("PeerLost", "WrongMessage")
    assert all(process.wait() == 1 for process in processes)


def once(offset: int) -> Callable[[int, bytes], bytes]:
    """Garbles a byte of the first connection only."""
    left = [garbled(offset)]

    def change(where: int, piece: bytes) -> bytes:
        if left and where <= offset < where + len(piece):
            return left.pop()(where, piece)
        return piece

    return change


@pytest.mark.parametrize("offset", most_slow([2, 5, 6, 9, 30, 50, HELLO - 1], 50))
def test_a_garbled_hello_is_said_again(start: Start, addresses: Addresses, proxied: Proxied, offset: int) -> None:
    own = addresses(2)
    processes = pair(start, own, proxied(port(own[0]), up=once(offset)), sums=1)
    assert len({process.told("digest")["digest"] for process in processes}) == 1


@pytest.mark.parametrize("offset", most_slow([HELLO + 2, HELLO + 60, READY - 1], HELLO + 60))
def test_a_worker_whose_last_word_was_garbled_comes_again(
    start: Start, addresses: Addresses, proxied: Proxied, offset: int
) -> None:
    own = addresses(2)
    proxy = proxied(port(own[0]), up=once(offset))
    first, second = pair(start, own, proxy, sums=1)
    assert second.told("failed")["peer"] == 0
    again = start([f"127.0.0.1:{proxy.port}", own[1]], 1, values=VALUES)
    assert first.told("digest")["digest"] == again.told("digest")["digest"]


@pytest.mark.parametrize(("piece", "delay"), most_slow([(1000, 0), (37, 0), (65536, 0.02)], (37, 0)))
def test_slow_and_in_pieces(start: Start, addresses: Addresses, proxied: Proxied, piece: int, delay: float) -> None:
    own = addresses(2)
    proxy = proxied(port(own[0]), piece=piece, delay=delay)
    processes = pair(start, own, proxy, sums=3, values=20_000)
    through_proxy = {process.told("digest")["digest"] for process in processes}
    own = addresses(2)
    direct = {start(own, index, sums=3, values=20_000).told for index in (0, 1)}
    assert {told("digest")["digest"] for told in direct} == through_proxy


def test_a_trickle_does_not_count_as_life_for_ever(start: Start, addresses: Addresses, proxied: Proxied) -> None:
    def drip(where: int, piece: bytes) -> bytes:
        if where > GATHERED + HEADER_BYTES:
            time.sleep(0.3)
        return piece

    own = addresses(2)
    first, _ = pair(start, own, proxied(port(own[0]), up=drip, piece=60), stuck_seconds=1)
    failed = first.told("failed")
    assert (failed["failed"], failed["peer"]) == ("PeerStuck", 1)


def beside(act: Callable[[socket.socket], None], values: int, stuck_seconds: float = 1) -> list[Exception]:
    """Sums as worker 0 of two until it fails, beside something else that has the other end of its connection."""
    mine, its = socket.socketpair()
    threading.Thread(target=act, args=(its,), daemon=True).start()
    exchange = Exchange({1: mine}, 0, 2, job="job", attempt=3, values=values, stuck_seconds=stuck_seconds)
    with pytest.raises(PeerLost) as failed:
        exchange.sum(np.ones(values, np.float32))
    assert mine.fileno() == -1, "still open"
    its.close()
    return [failed.value]


def test_one_that_takes_nothing() -> None:
    size = 8_000_000

    def act(connection: socket.socket) -> None:
        part = np.ones(size // 2, np.float32).view(np.uint8)
        connection.sendall(seal(Headers("job", 3).part(1, 0, 0, 1, size), check([part])))
        connection.sendall(part)

    (failed,) = beside(act, size)
    assert isinstance(failed, PeerStuck)
    assert str(failed) == "worker 1 takes no part of sum 1 for 1 s: it hangs, or waits for one that does"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (Headers("other", 3).part(1, 0, 0, 1, 10), "worker 1 sent a part of another job's sum"),
        (Headers("job", 2).part(1, 0, 0, 1, 10), "worker 1 sent a part of attempt 2, and this is attempt 3"),
        (Headers("job", 3).part(1, 0, 0, 7, 10), "worker 1 sent a part of sum 7, and sum 1 is due"),
        (Headers("job", 3).part(1, 0, 0, 1, 99), "worker 1 sums 99 values, and this worker 10"),
        (Headers("job", 3).part(1, 1, 0, 1, 10), "worker 1 sends its numbers as another type than this worker"),
        (
            Headers("job", 3).part(1, 0, 1, 1, 10),
            "worker 1 sent message 1 of worker 1, and message 0 of worker 1 is due",
        ),
        (b"GET / HTTP/1.1\r\n".ljust(HEADER_BYTES), "worker 1 sent something that is no part of a sum"),
        (b"\0" * HEADER_BYTES, "worker 1 sent something that is no part of a sum"),
    ],
)
def test_a_message_that_is_not_due(header: bytes, message: str) -> None:
    (failed,) = beside(lambda its: its.sendall(header.ljust(HEADER_BYTES, b"\0") + b"\0" * 100), 10)
    assert isinstance(failed, WrongMessage)
    assert str(failed) == message


def test_workers_that_sum_other_sizes_tell_both() -> None:
    def run(exchange: Exchange, index: int) -> None:
        exchange.sum(np.ones(10 + index, np.float32))

    errors = as_threads(2, 20, run)
    assert {str(error) for error in errors} <= {
        "worker 1 sums 11 values, and this worker 10",
        "worker 0 sums 10 values, and this worker 11",
        "worker 1 has left: it waited too long for this worker, or did not understand it",
        "worker 0 has left: it waited too long for this worker, or did not understand it",
    }
    assert any(isinstance(error, WrongMessage) for error in errors)


def test_signals_in_the_middle_of_a_sum() -> None:
    sizes = 200_000
    seen = []

    def run(exchange: Exchange, index: int) -> bytes:
        total = numbers(index, sizes)
        for _ in range(100):
            exchange.sum(numbers(index, sizes), total)
        return total.tobytes()

    undisturbed = as_threads(2, sizes, lambda exchange, index: run(exchange, index))
    former = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    mine, its = socket.socketpair()
    results: list[bytes] = []
    try:
        with (
            Exchange({1: mine}, 0, 2, job="j", attempt=0, values=sizes, stuck_seconds=30) as first,
            Exchange({0: its}, 1, 2, job="j", attempt=0, values=sizes, stuck_seconds=30) as second,
        ):
            other = threading.Thread(target=lambda: results.append(run(second, 1)))
            other.start()
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            results.append(run(first, 0))  # signals reach the main thread
            signal.setitimer(signal.ITIMER_REAL, 0)
            other.join(30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert len(seen) > 20
    assert set(results) == set(undisturbed)


def test_an_exception_in_the_middle_of_a_sum_tells_the_others() -> None:
    class Told(Exception):
        pass

    def leave(*_: object) -> None:
        raise Told

    mine, its = socket.socketpair()
    first = Exchange({1: mine}, 0, 2, job="j", attempt=0, values=10, stuck_seconds=30)
    second = Exchange({0: its}, 1, 2, job="j", attempt=0, values=10, stuck_seconds=30)
    former = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Told):
            first.sum(np.ones(10, np.float32))
    finally:
        signal.signal(signal.SIGALRM, former)
    with pytest.raises(PeerLost, match="worker 0 has left"):
        second.sum(np.ones(10, np.float32))
