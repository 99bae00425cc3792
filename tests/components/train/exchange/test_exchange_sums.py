"""What is summed: every worker gets the same bits, which depend on the number of workers alone."""

import math
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from exchange_workers import as_threads, numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_cases import most_slow

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.exchange import Exchange, ExchangeFailed
from kfp_image_classification.components.train.exchange.numbers import Floats, Wire, check
from kfp_image_classification.components.train.exchange.schedule import schedule, skips

SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WIRES: list[Wire] = ["float32", "bfloat16"]


def sums(workers: int, size: int, wire: Wire, seed: int = 0, in_place: bool = False, jitter: float = 0) -> list[Floats]:
    random = np.random.default_rng(seed)
    delays = random.random(workers) * jitter

    def run(exchange: Exchange, index: int) -> Floats:
        own = numbers(index, size, seed)
        time.sleep(delays[index])
        if in_place:
            exchange.sum(own, wire=wire)
            return own
        total = np.full_like(own, np.nan)
        exchange.sum(own, total, wire)
        assert (own == numbers(index, size, seed)).all(), "the summands were changed"
        return total

    return as_threads(workers, size, run)


def simulated(workers: int, size: int, seed: int = 0) -> Floats:
    """The same additions in the same order, one worker after the other, without a socket."""
    held = [numbers(index, size, seed) for index in range(workers)]
    plans = [schedule(workers, index, size) for index in range(workers)]
    for turn in range(len(skips(workers))):
        before = [array.copy() for array in held]
        for index, plan in enumerate(plans):
            for part in plan.rounds[turn].taken:
                held[index][part] = before[index][part] + before[plan.rounds[turn].behind][part]
    total = np.empty(size, np.float32)
    for index, plan in enumerate(plans):
        for part in plan.own:
            total[part] = held[index][part]
    return total


def error_bound(workers: int, wire: Wire) -> float:
    """How far a sum may be off, in units of the sum of absolute values: each round rounds once, and so does the end.

    By 2^-24 of the number in float32, and by 2^-8 more where it travels as bfloat16.
    """
    rounding = 2.0**-24 + (2.0**-8 if wire == "bfloat16" else 0.0)
    return float((1 + rounding) ** (math.ceil(math.log2(workers)) + 1) - 1)


def bits(total: Floats) -> bytes:
    assert isinstance(total, np.ndarray), total
    return total.tobytes()


@SOME
@given(
    workers=st.integers(1, 12),
    size=st.one_of(st.sampled_from([0, 1, 2, 15, 16, 17, 31, 33, 511, 4097]), st.integers(0, 20_000)),
    wire=st.sampled_from(WIRES),
    seed=st.integers(0, 5),
    in_place=st.booleans(),
)
def test_sums(workers: int, size: int, wire: Wire, seed: int, in_place: bool) -> None:
    totals = sums(workers, size, wire, seed, in_place)
    assert len({bits(total) for total in totals}) == 1
    summands = np.stack([numbers(index, size, seed) for index in range(workers)]).astype(np.float64)
    error = np.abs(totals[0] - summands.sum(0))
    assert (error <= error_bound(max(workers, 2), wire) * np.abs(summands).sum(0) + 1e-40).all()
    if wire == "float32":
        assert bits(totals[0]) == bits(simulated(workers, size, seed))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("workers", most_slow([16, 23, 32, 61, 64], 16, 61))
def test_sums_of_many_workers(workers: int, wire: Wire) -> None:
    totals = sums(workers, 3001, wire)
    assert len({bits(total) for total in totals}) == 1
    if wire == "float32":
        assert bits(totals[0]) == bits(simulated(workers, 3001))


@pytest.mark.parametrize("workers", most_slow([2, 3, 5], 3))
@pytest.mark.parametrize("wire", WIRES)
def test_sums_more_than_any_buffer_holds(workers: int, wire: Wire) -> None:
    totals = sums(workers, 4_000_003, wire)
    assert len({bits(total) for total in totals}) == 1
    if wire == "float32":
        assert bits(totals[0]) == bits(simulated(workers, 4_000_003))


def test_bits_do_not_depend_on_who_comes_when() -> None:
    assert len({bits(total) for _ in range(5) for total in sums(7, 500, "float32", jitter=0.05)}) == 1


def test_sizes_and_types_may_change_from_sum_to_sum() -> None:
    kinds: list[tuple[int, Wire]] = [(5, "float32"), (100, "bfloat16"), (0, "float32"), (1, "bfloat16")] * 5
    kinds += [(size, "float32") for size in range(20)]

    def run(exchange: Exchange, index: int) -> list[bytes]:
        found = []
        for size, wire in kinds:
            total = numbers(index, size)
            exchange.sum(total, wire=wire)
            found.append(total.tobytes())
        return found

    found = as_threads(3, 100, run)
    assert found[0] == found[1] == found[2]
    assert found[0][0] == simulated(3, 5).tobytes()


@pytest.mark.parametrize("wire", WIRES)
def test_infinite_gradients_arrive_as_such_without_a_warning(wire: Wire) -> None:
    def run(exchange: Exchange, index: int) -> Floats:
        values = np.array([1, np.nan, np.inf, 3e38, -np.inf if index else np.inf], np.float32)
        values.view(np.uint32)[1] = 0x7FFFFFFF if index else 0xFF800001  # not the NaN that arithmetic makes
        with np.errstate(all="raise"):
            exchange.sum(values, wire=wire)
        return values

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        totals = as_threads(2, 5, run)
    assert len({bits(total) for total in totals}) == 1
    assert totals[0][0] == 2
    assert np.isnan(totals[0][[1, 4]]).all()
    assert np.isposinf(totals[0][[2, 3]]).all()


def test_arrays_that_cannot_be_used_are_refused_before_anything_is_sent() -> None:
    good = np.ones(10, np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    bad: list[tuple[Any, ...]] = [
        (np.ones(10),),
        (np.ones((2, 5), np.float32),),
        (np.ones(20, np.float32)[::2],),
        (frozen,),
        (good, np.ones(9, np.float32)),
        (np.ones(11, np.float32),),
        (good, None, "float16"),
    ]

    def run(exchange: Exchange, index: int) -> Floats:
        for arguments in bad:
            with pytest.raises(ValueError, match="expected|agreed"):
                exchange.sum(*arguments)
        exchange.sum(frozen, total := np.empty(10, np.float32))
        return total

    assert [total.tolist() for total in as_threads(2, 10, run)] == [[2.0] * 10] * 2


def test_one_thread_at_a_time() -> None:
    begun = threading.Event()

    def run(exchange: Exchange, index: int) -> float:
        if index == 1:
            begun.wait(10)
            time.sleep(0.3)
        total = np.ones(10, np.float32)
        if index == 0:
            second = threading.Timer(0.1, other, [exchange])
            second.start()
        exchange.sum(total)
        return float(total[0])

    refused: list[str] = []

    def other(exchange: Exchange) -> None:
        try:
            exchange.sum(np.ones(10, np.float32))
        except ExchangeFailed as error:
            refused.append(str(error))
        begun.set()

    assert as_threads(2, 10, run) == [2.0, 2.0]
    assert refused == ["another thread is in the middle of a sum of this exchange"]


def test_a_closed_exchange_says_so() -> None:
    exchange = Exchange({}, 0, 1, job="job", attempt=0, values=3, stuck_seconds=1)
    exchange.sum(total := np.ones(3, np.float32))
    assert total.tolist() == [1, 1, 1]
    exchange.close()
    exchange.close()
    with pytest.raises(ExchangeFailed, match="closed"):
        exchange.sum(total)


@SOME
@given(
    data=st.binary(min_size=1, max_size=20_000),
    where=st.integers(0, 10**9),
    flip=st.integers(1, 255),
)
def test_check_notices_a_changed_byte(data: bytes, where: int, flip: int) -> None:
    garbled = np.frombuffer(data, np.uint8).copy()
    before = check([garbled])
    garbled[where % len(garbled)] ^= flip
    assert check([garbled]) != before


@SOME
@given(st.permutations(range(6)).filter(lambda order: list(order) != sorted(order)))
def test_check_notices_pieces_in_another_order(order: list[int]) -> None:
    pieces = np.random.default_rng(0).integers(0, 256, (6, 4096), np.uint8)
    assert check([pieces.reshape(-1)]) != check([pieces[order].reshape(-1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 2}, "index = 2: expected 0 to 1"),
        ({"index": -1}, "index = -1"),
        ({"token": b"short"}, "token: 5 bytes are too few"),
        ({"addresses": ["a:1", "a:1"]}, "two workers have the same one"),
        ({"addresses": ["a:1", "b"]}, "address = 'b': expected host:port"),
        ({"addresses": ["a:1", "b:0"]}, "address = 'b:0'"),
        ({"addresses": ["a:1", "b:65536"]}, "address = 'b:65536'"),
        ({"addresses": ["a:1", "::1:80"]}, "address = '::1:80'"),
        ({"listen": "2223"}, "address = '2223'"),
        ({"attempt": -1}, "attempt = -1"),
        ({"values": -1}, "values = -1"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "addresses": ["a:1", "b:2"],
        "index": 0,
        "token": b"0" * 32,
        "job": "job",
        "attempt": 0,
        "values": 1,
        "gather_seconds": 1,
        "stuck_seconds": 1,
    }
    with pytest.raises(InvalidInput, match=message.replace("[", r"\[")):
        Exchange.join(**{**arguments, **change})
