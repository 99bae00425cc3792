"""`python -m benchmarks.exchange`: what a sum between workers costs, in time and in CPU, as processes of a machine."""

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kfp_image_classification.components.train.exchange import Exchange
from kfp_image_classification.components.train.exchange.numbers import WIRES, Wire, check
from kfp_image_classification.components.train.launchers.machine import free_ports

CORES = sorted(os.sched_getaffinity(0))
PROCESSES = multiprocessing.get_context("spawn")
WARM_UP = 20


def work(index: int, addresses: list[str], values: int, wire: Wire, count: int, results: Any) -> None:
    """One worker, on a core that it shares with others where there are too few."""
    os.sched_setaffinity(0, {CORES[index % len(CORES)]})
    own = np.random.default_rng(index).standard_normal(values, np.float32)
    total = np.empty_like(own)
    with Exchange.join(
        addresses,
        index,
        token=b"0" * 32,
        job="benchmark",
        attempt=0,
        values=values,
        gather_seconds=120,
        stuck_seconds=60,
    ) as exchange:
        for _ in range(WARM_UP):
            exchange.sum(own, total, wire)
        cpu, times = time.process_time(), []
        for _ in range(count):
            begun = time.perf_counter()
            exchange.sum(own, total, wire)
            times.append(time.perf_counter() - begun)
        results.put((statistics.median(times), statistics.mean(times), (time.process_time() - cpu) / count))


def measure(workers: int, values: int, wire: Wire, count: int) -> list[float]:
    """Milliseconds a sum takes, as median and mean, and milliseconds of CPU a worker spends on it."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    results = PROCESSES.Queue()
    processes = [
        PROCESSES.Process(target=work, args=(index, addresses, values, wire, count, results))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=180) for _ in processes]
    for process in processes:
        process.join()
    return [statistics.mean(column) * 1000 for column in zip(*found, strict=True)]


def milliseconds(do: Callable[[], object], count: int = 50) -> float:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        do()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def checks(values: int) -> Table:
    """What it costs to notice garbled numbers, beside the two checks that the standard library has."""
    data = np.random.default_rng(0).standard_normal(values, np.float32).view(np.uint8)
    table = Table("check", "ms", title=f"over {values:,} float32")
    for name, do in (
        ("ours", lambda: check([data])),
        ("crc32", lambda: zlib.crc32(data)),
        ("adler32", lambda: zlib.adler32(data)),
    ):
        table.add_row(name, f"{milliseconds(do):.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchange", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--values", type=int, nargs="+", default=[1024, 350_000, 2_500_000])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, interleaved; the table has medians")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, about")
    arguments = parser.parse_args()
    settings = list(itertools.product(arguments.values, WIRES, arguments.workers))
    found: dict[tuple[int, Wire, int], list[list[float]]] = {setting: [] for setting in settings}
    for _ in range(arguments.rounds):
        for values, wire, workers in settings:
            guess = (0.03 + values * 1e-6) * workers / len(CORES) / 1000 * 1.5
            count = int(min(3000, max(10, arguments.seconds / guess)))
            found[values, wire, workers].append(measure(workers, values, wire, count))
            median, mean, cpu = found[values, wire, workers][-1]
            print(f"{workers} workers, {values:,} {wire}: {median:.3f} / {mean:.3f} ({cpu:.3f}) ms", flush=True)
    table = Table(
        "values",
        "wire",
        *(f"N={workers}" for workers in arguments.workers),
        title="ms a sum, median / mean (CPU ms a worker)",
    )
    for values, wire in itertools.product(arguments.values, WIRES):
        cells = []
        for workers in arguments.workers:
            columns = zip(*found[values, wire, workers], strict=True)
            median, mean, cpu = (statistics.median(column) for column in columns)
            cells.append(f"{median:.2f} / {mean:.2f} ({cpu:.2f})")
        table.add_row(f"{values:,}", wire, *cells)
    console = Console(soft_wrap=True, markup=False, emoji=False)
    console.print(table)
    console.print(checks(350_000))
