"""Workers of an exchange for the tests: as threads over socket pairs, and as real processes over loopback."""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kfp_image_classification.components.train.exchange import Exchange, ExchangeFailed
from kfp_image_classification.components.train.exchange.numbers import Floats, Wire
from kfp_image_classification.components.train.exchange.schedule import neighbours

TOKEN = b"the job's secret of 32 bytes ...."
GATHER_SECONDS = 60.0


def numbers(index: int, size: int, seed: int = 0) -> Floats:
    """One worker's summands: of all magnitudes and both signs, so that the order of additions shows in the bits."""
    random = np.random.default_rng([index, size, seed])
    return (random.standard_normal(size) * 10.0 ** random.integers(-6, 6, size)).astype(np.float32)


def as_threads(workers: int, size: int, run: Callable[[Exchange, int], Any], stuck_seconds: float = 60.0) -> list[Any]:
    """Runs a function as every worker, each in a thread, connected by socket pairs; returns their results or errors."""
    ends: list[dict[int, socket.socket]] = [{} for _ in range(workers)]
    for one in range(workers):
        for other in neighbours(workers, one):
            if other > one:
                ends[one][other], ends[other][one] = socket.socketpair()
    results: list[Any] = [None] * workers

    def work(index: int) -> None:
        with Exchange(
            ends[index], index, workers, job="job", attempt=0, values=size, stuck_seconds=stuck_seconds
        ) as exchange:
            try:
                results[index] = run(exchange, index)
            except Exception as error:
                results[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


class Process:
    """A worker as a process of its own, which tells in lines what it does."""

    def __init__(self, addresses: Sequence[str], index: int, **options: object) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.index = index
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments, str(index), *addresses], stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._lines: list[dict[str, Any]] = []
        self._came = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._came:
                self._lines.append({"at": time.monotonic(), **json.loads(line)})
                self._came.notify_all()
        self._process.stdout.close()

    def told(self, what: str, seconds: float = 90.0) -> dict[str, Any]:
        """Waits for the first line that tells something."""
        with self._came:
            found = self._came.wait_for(lambda: [line for line in self._lines if what in line], seconds)
        assert found, f"worker {self.index} has not told {what!r}, but {self._lines[-3:]}"
        return found[0]

    def sums(self) -> int:
        with self._came:
            return max([line["sum"] for line in self._lines if "sum" in line], default=0)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        return self._process.wait(30)

    def wait(self) -> int:
        return self._process.wait(90)


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=int)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--sums", type=int, default=1)
    parser.add_argument("--values", type=int, default=1000)
    parser.add_argument("--wire", default="float32")
    parser.add_argument("--job", default="job")
    parser.add_argument("--attempt", type=int, default=0)
    parser.add_argument("--token", default=TOKEN.decode())
    parser.add_argument("--gather-seconds", type=float, default=GATHER_SECONDS)
    parser.add_argument("--stuck-seconds", type=float, default=60.0)
    parser.add_argument("--listen", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr)
    own = numbers(arguments.index, arguments.values, arguments.seed)
    total = np.empty_like(own)
    wire: Wire = arguments.wire
    try:
        with Exchange.join(
            arguments.addresses,
            arguments.index,
            token=arguments.token.encode(),
            job=arguments.job,
            attempt=arguments.attempt,
            values=arguments.values,
            gather_seconds=arguments.gather_seconds,
            stuck_seconds=arguments.stuck_seconds,
            listen=arguments.listen,
        ) as exchange:
            tell(joined=True)
            for number in range(1, arguments.sums + 1):
                exchange.sum(own, total, wire)
                if number in (1, arguments.sums) or number % 100 == 0:
                    tell(sum=number)
                time.sleep(arguments.pause)
    except ExchangeFailed as error:
        tell(failed=type(error).__name__, peer=getattr(error, "peer", None), message=str(error))
        sys.exit(1)
    tell(digest=hashlib.sha256(total.tobytes()).hexdigest())


if __name__ == "__main__":
    main()
