"""Who sends what to whom: for any number of workers, without a socket."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_image_classification.components.train.exchange.schedule import (
    GRAIN,
    block_start,
    largest_message,
    neighbours,
    schedule,
    skips,
)

SOME = settings(max_examples=40, deadline=None)


def covered(size: int, *parts: tuple[slice, ...]) -> list[int]:
    return sorted(itertools.chain.from_iterable(range(size)[segment] for part in parts for segment in part))


@SOME
@given(workers=st.integers(1, 200), size=st.integers(0, 5000))
def test_blocks_are_the_whole_array_and_nearly_alike(workers: int, size: int) -> None:
    starts = [block_start(block, workers, size) for block in range(workers + 1)]
    assert starts[0] == 0
    assert starts[-1] == size
    lengths = np.diff(starts)
    assert (lengths >= 0).all()
    assert max(lengths) - min(lengths) <= 2 * GRAIN - 1
    assert all(start % GRAIN == 0 or start == size for start in starts)


@SOME
@given(workers=st.integers(2, 64), size=st.integers(0, 3000))
def test_what_one_gives_is_what_the_other_takes(workers: int, size: int) -> None:
    plans = [schedule(workers, index, size) for index in range(workers)]
    assert len(plans[0].rounds) == math.ceil(math.log2(workers))
    for index, plan in enumerate(plans):
        for turn, one in enumerate(plan.rounds):
            assert plans[one.ahead].rounds[turn].behind == index
            assert plans[one.ahead].rounds[turn].taken == one.given
            assert {one.ahead, one.behind} <= set(neighbours(workers, index))
            assert sum(part.stop - part.start for part in one.taken) <= largest_message(workers, size)
        assert covered(size, plan.own, *(one.given for one in plan.rounds)) == list(range(size))
        first = plan.rounds[0]
        assert covered(size, first.given, first.taken, plan.untouched) == list(range(size))


@SOME
@given(workers=st.integers(1, 64))
def test_each_summand_counts_once(workers: int) -> None:
    size = workers * GRAIN
    plans = [schedule(workers, index, size) for index in range(workers)]
    # counts[w][v]: how often the number that worker v holds for each place is in what worker w holds.
    counts = np.zeros((workers, workers, size), int)
    for index in range(workers):
        counts[index, index] = 1
    for turn in range(len(skips(workers))):
        before = counts.copy()
        for index, plan in enumerate(plans):
            for part in plan.rounds[turn].taken:
                counts[index, :, part] += before[plan.rounds[turn].behind, :, part]
    for index, plan in enumerate(plans):
        for part in plan.own:
            assert (counts[index, :, part] == 1).all()


@pytest.mark.parametrize(("workers", "expected"), [(1, []), (2, [1]), (3, [2, 1]), (8, [4, 2, 1]), (13, [7, 4, 2, 1])])
def test_skips_halve(workers: int, expected: list[int]) -> None:
    assert skips(workers) == expected


def test_a_worker_has_few_neighbours() -> None:
    assert neighbours(1, 0) == []
    assert neighbours(2, 1) == [0]
    assert neighbours(3, 0) == [1, 2]
    assert len(neighbours(1024, 5)) == 19
