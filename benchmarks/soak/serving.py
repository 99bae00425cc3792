"""A long life of the model server: whether threads, open files, memory maps, memory and speed stay as they began.

`make bench-soak` runs it, or `python -m benchmarks.soak.serving --requests 20000 --reloads 10` a part. Several clients
ask all kinds of requests without a pause while version folders come and go. It ends with 1 when a request fails, or a
figure grows that must not.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.serve.process import NAME, QUIET, START_SECONDS, make_model, our_command
from benchmarks.soak.traffic import Client
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.train.launchers.machine import free_ports

CLIENTS = 4
RELOAD_SECONDS = 0.1
PARTS = 20
LEAST_SPEED = 0.97
# Connections and the threads that serve them come and go by a few.
MOST_GROWTH = {"threads": 4, "files": 10, "maps": 40}
MOST_RSS_GROWTH = 32 * 2**20


@dataclass(frozen=True)
class Sample:
    """What the server's processes hold together, and what they have done, at some moment.

    Attributes:
        requests: Answered until then.
        seconds: Since the first request, without the pauses of this program.
        cpu_seconds: Of all cores together, that the server has used since its start.
        rss: Resident bytes.
    """

    requests: int
    seconds: float
    cpu_seconds: float
    threads: int
    files: int
    maps: int
    rss: int


@dataclass(frozen=True)
class Soak:
    """A life of the server.

    Attributes:
        samples: After each part of the requests; the first is taken when all kinds of requests were answered once.
        reloads: How many times another version took over.
        failures: Requests that were not answered as they should be, in words.
    """

    samples: list[Sample]
    reloads: int
    failures: list[str]

    @property
    def rates(self) -> list[float]:
        """Requests a second, by part."""
        return [
            (after.requests - before.requests) / (after.seconds - before.seconds)
            for before, after in itertools.pairwise(self.samples)
        ]

    @property
    def speed(self) -> float:
        """Requests a second of the last tenth of the parts, against those of the first tenth."""
        tenth = max(1, len(self.rates) // 10)
        return sum(self.rates[-tenth:]) / sum(self.rates[:tenth])

    def problems(self, least_speed: float = LEAST_SPEED, most_rss_growth: int = MOST_RSS_GROWTH) -> list[str]:
        """What did not stay as it began, in words.

        Args:
            least_speed: Of the last requests, as a share of that of the first.
            most_rss_growth: By which resident memory may grow in the second half, in bytes.
        """
        first, last = self.samples[0], self.samples[-1]
        found = [f"{len(self.failures)} requests failed, such as {self.failures[0]}"] if self.failures else []
        for name, most in MOST_GROWTH.items():
            before, after = getattr(first, name), getattr(last, name)
            if after - before > most:
                found.append(f"{name} grew from {before} to {after}")
        # The first half may still fill what is kept for good: pools, caches of allocators, TensorFlow's or ONNX's own.
        half = self.samples[len(self.samples) // 2]
        if last.rss - half.rss > most_rss_growth:
            found.append(f"memory grew from {half.rss / 2**20:.0f} to {last.rss / 2**20:.0f} MiB in the second half")
        if self.speed < least_speed:
            found.append(f"the last requests came at {self.speed:.2f} of the speed of the first")
        return found


class Server:
    """A model server process on loopback."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log = model, log
        self.http_port, self.grpc_port = free_ports(2)
        command = our_command(model, self.http_port, "--enable_grpc=true", f"--grpc_port={self.grpc_port}")
        command.append(f"--reload_seconds={RELOAD_SECONDS}")
        with log.open("wb") as output:
            self.process = psutil.Popen(command, env={**os.environ, **QUIET}, stdout=output, stderr=subprocess.STDOUT)

    @property
    def version(self) -> str:
        """Of the model that answers now; empty while nothing does."""
        try:
            with http_client("http://127.0.0.1", timeout=5) as client:
                answer = client.get(f"http://127.0.0.1:{self.http_port}/v2/models/{NAME}")
        except httpx.HTTPError:
            return ""
        return str(answer.json()["versions"][0])

    def wait_for(self, version: str) -> None:
        """Waits until a version answers.

        Raises:
            RuntimeError: When it does not, with the end of the server's log.
        """
        until = time.monotonic() + START_SECONDS
        while self.version != version:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"version {version} is not served:\n{self.log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.05)

    def sample(self, requests: int, seconds: float) -> Sample:
        processes = [self.process, *self.process.children(recursive=True)]
        times = [process.cpu_times() for process in processes]
        maps = [Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8") for process in processes]
        return Sample(
            requests=requests,
            seconds=seconds,
            cpu_seconds=sum(time.user + time.system for time in times),
            threads=sum(process.num_threads() for process in processes),
            files=sum(process.num_fds() for process in processes),
            maps=sum(text.count("\n") for text in maps),
            rss=sum(process.memory_info().rss for process in processes),
        )

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(40)
        except psutil.TimeoutExpired:
            self.process.kill()


@contextmanager
def served(model: Path, log: Path) -> Iterator[Server]:
    server = Server(model, log)
    try:
        server.wait_for("1")
        while server.process.children() and "workers answer" not in log.read_text(encoding="utf-8"):
            time.sleep(0.05)
        yield server
    finally:
        server.stop()


def soak(model: Path, requests: int, reloads: int, log: Path) -> Soak:
    """Lets a server answer so many requests, and take over another version so many times, evenly spread over them.

    Args:
        model: A model's folder with version 1 alone; versions come and go in it.
        requests: At least `PARTS` for each client.
        reloads: At least none.
        log: File for what the server prints.
    """
    with served(model, log) as server:
        clients = [Client(NAME, server.http_port, server.grpc_port) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda client: [client.ask(number) for number in range(1000)], clients))
            samples, seconds = [server.sample(0, 0.0)], 0.0
            changes = _Versions(server)
            for part in range(1, PARTS + 1):
                first, last = requests * (part - 1) // PARTS, requests * part // PARTS
                began = time.monotonic()
                with changes.made(reloads * part // PARTS - reloads * (part - 1) // PARTS):
                    list(pool.map(_ask, clients, (range(first + n, last, CLIENTS) for n in range(CLIENTS))))
                    seconds += time.monotonic() - began
                samples.append(server.sample(last, seconds))
        for client in clients:
            client.close()
        return Soak(samples, changes.count, [failure for client in clients for failure in client.failures])


def _ask(client: Client, numbers: Sequence[int]) -> None:
    for number in numbers:
        client.ask(number)


class _Versions:
    """Puts version folders there and takes them away, each time until another one answers."""

    def __init__(self, server: Server) -> None:
        self.count = 0
        self._server = server
        self._newest = 1

    @contextmanager
    def made(self, changes: int) -> Iterator[None]:
        """Makes so many changes while the block runs; the block's end waits for them."""
        failed: list[BaseException] = []

        def make() -> None:
            try:
                for _ in range(changes):
                    self._change()
            except BaseException as error:
                failed.append(error)

        changing = threading.Thread(target=make)
        changing.start()
        yield
        changing.join()
        if failed:
            raise failed[0]

    def _change(self) -> None:
        model, before = self._server.model, str(self._newest)
        if self.count % 4 == 3:  # the newest one is taken away, and the one before it answers again
            shutil.rmtree(model / before)
            self._newest -= 1
        else:
            self._newest += 1
            partial = Path(shutil.copytree(model / "1", model / f"{self._newest}.partial"))
            partial.rename(model / str(self._newest))
        self._server.wait_for(str(self._newest))
        self.count += 1


def table(soak: Soak) -> Table:
    """The figures at the start, in the middle and at the end."""
    shown = Table(title=f"{soak.samples[-1].requests:,} requests, {soak.reloads} reloads", title_justify="left")
    shown.add_column("")
    for heading in ("start", "middle", "end"):
        shown.add_column(heading, justify="right")
    samples = [soak.samples[0], soak.samples[len(soak.samples) // 2], soak.samples[-1]]
    shown.add_row("threads", *(f"{sample.threads}" for sample in samples))
    shown.add_row("open files", *(f"{sample.files}" for sample in samples))
    shown.add_row("memory maps", *(f"{sample.maps}" for sample in samples))
    shown.add_row("resident memory, MiB", *(f"{sample.rss / 2**20:.0f}" for sample in samples))
    tenth, middle = max(1, len(soak.rates) // 10), len(soak.rates) // 2
    spans = (slice(0, tenth), slice(middle - tenth // 2, middle - tenth // 2 + tenth), slice(-tenth, None))
    shown.add_row("requests/s", *(f"{sum(soak.rates[span]) / tenth:,.0f}" for span in spans))
    costs = [
        1000 * (after.cpu_seconds - before.cpu_seconds) / (after.requests - before.requests)
        for before, after in itertools.pairwise(soak.samples)
    ]
    shown.add_row("server's CPU, ms a request", *(f"{sum(costs[span]) / tenth:.3f}" for span in spans))
    shown.add_row("last tenth / first, requests/s", "", "", f"{soak.speed:.3f}")
    shown.add_row("failed requests", "", "", f"{len(soak.failures)}")
    return shown


def main() -> None:
    """Runs it, prints the table, and says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.serving", description=__doc__)
    parser.add_argument("--requests", type=int, default=500_000, help="default: %(default)s")
    parser.add_argument("--reloads", type=int, default=200, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        result = soak(make_model(folder), arguments.requests, arguments.reloads, folder / "server.log")
    Console(soft_wrap=True, markup=False, emoji=False).print(table(result))
    problems = result.problems()
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
