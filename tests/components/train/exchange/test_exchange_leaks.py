"""Nothing grows: threads, files, maps and memory after thousands of sums are those after the first third."""

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from exchange_workers import as_threads
from slow_cases import most_slow

from kfp_image_classification.components.train.exchange import Exchange
from kfp_image_classification.components.train.exchange.numbers import Wire

SIZES = (1000, 1, 0, 2000)


def usage() -> dict[str, int]:
    process = psutil.Process()
    return {
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "maps": len(Path("/proc/self/maps").read_text().splitlines()),
        "bytes": process.memory_info().rss,
    }


@pytest.mark.parametrize("count", most_slow([5_000, 20_000], 5_000))
@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_nothing_grows(wire: Wire, count: int) -> None:
    seen: list[dict[str, int]] = []

    def run(exchange: Exchange, index: int) -> None:
        arrays = [np.ones(size, np.float32) for size in SIZES]
        for number in range(count):
            exchange.sum(arrays[number % len(arrays)], wire=wire)
            if index == 0 and number in (count // 3, count - 100):
                seen.append(usage())

    assert as_threads(2, 2000, run) == [None, None]
    before, after = seen
    assert after["threads"] == before["threads"]
    assert after["files"] == before["files"]
    assert after["maps"] - before["maps"] < 5
    assert after["bytes"] - before["bytes"] < 2**20
