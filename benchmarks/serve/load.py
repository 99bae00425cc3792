"""`make load`: some clients ask a service without a pause, on this machine or on a cluster; prints what they got.

python -m benchmarks.serve.load --url http://127.0.0.1:8080 [--name image-classifier] [--seconds 30] [--clients 5]
"""

import argparse
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.serve.requests import noise_png, v1_body
from kfp_image_classification.components.step.direct_network import http_client

TIMEOUT_SECONDS = 20
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Load:
    """What the clients got.

    Attributes:
        seconds: How long they asked.
        milliseconds: Latencies by percentile: 50, 90 and 99.
        statuses: How often each HTTP status came; 0 is no answer.
    """

    seconds: float
    milliseconds: dict[int, float]
    statuses: dict[int, int]

    @property
    def good(self) -> int:
        """Requests with an answer."""
        return self.statuses.get(200, 0)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(self.statuses.values()) - self.good


def run_load(url: str, body: bytes, clients: int, seconds: float, headers: dict[str, str] | None = None) -> Load:
    """Asks without a pause, with `hey` where it is installed, and otherwise from Python threads, which are slower."""
    ask = _with_hey if shutil.which("hey") else _with_httpx
    return ask(url, body, clients, seconds, {"content-type": "application/json", **(headers or {})})


def _with_hey(url: str, body: bytes, clients: int, seconds: float, headers: dict[str, str]) -> Load:
    with tempfile.NamedTemporaryFile() as request:
        request.write(body)
        request.flush()
        command = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST"]
        command += ["-t", str(TIMEOUT_SECONDS), "-D", request.name, "-host", headers.get("host", "")]
        for name, value in headers.items():
            command += ["-T", value] if name == "content-type" else ["-H", f"{name}: {value}"]
        command.append(url)
        output = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    total = re.search(r"Total:\s+([\d.]+) secs", output)
    answers, _, errors = output.partition("Error distribution:")
    statuses = {int(status): int(count) for status, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", answers)}
    unanswered = sum(int(count) for count in re.findall(r"^\s+\[(\d+)\]", errors, re.MULTILINE))
    latencies = {int(share): 1000 * float(value) for share, value in re.findall(r"(\d+)% in ([\d.]+) secs", output)}
    return Load(
        seconds=float(total[1]) if total else seconds,
        milliseconds={share: latencies.get(share, math.nan) for share in PERCENTILES},
        statuses={**statuses, **({0: unanswered} if unanswered else {})},
    )


def _with_httpx(url: str, body: bytes, clients: int, seconds: float, headers: dict[str, str]) -> Load:
    until = time.monotonic() + seconds

    def client(_: int) -> list[tuple[int, float]]:
        answers = []
        with http_client(url, headers=headers, timeout=TIMEOUT_SECONDS) as http:
            while (start := time.monotonic()) < until:
                try:
                    status = http.post(url, content=body).status_code
                except httpx.HTTPError:
                    status = 0
                answers.append((status, time.monotonic() - start))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for gathered in pool.map(client, range(clients)) for answer in gathered]
    latencies = sorted(1000 * latency for _, latency in answers)
    milliseconds = {share: latencies[int(share / 100 * len(latencies))] for share in PERCENTILES}
    return Load(seconds, milliseconds, dict(Counter(status for status, _ in answers)))


def _table(load: Load) -> Table:
    table = Table(show_header=False)
    table.add_row("good answers", f"{load.good:,}")
    table.add_row("failed", f"{load.failed:,}")
    table.add_row("good answers a second", f"{load.rate:,.0f}")
    for share, value in load.milliseconds.items():
        table.add_row(f"p{share}, ms", f"{value:.1f}")
    for status, count in sorted(load.statuses.items()):
        if status != 200:
            table.add_row(f"status {status}" if status else "no answer", f"{count:,}")
    return table


def main() -> None:
    """Asks, prints a table, and ends with 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.load", description=__doc__)
    parser.add_argument("--url", required=True, help="base URL of the service")
    parser.add_argument("--name", default="image-classifier", help="the model's name")
    parser.add_argument("--host", help="Host header, where an ingress tells services apart by it")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--images", type=int, default=1, help="in a request")
    parser.add_argument("--request", type=Path, help="a file with another request than noise, such as request.json")
    arguments = parser.parse_args()
    console = Console(markup=False, emoji=False)
    url = f"{arguments.url.rstrip('/')}/v1/models/{arguments.name}:predict"
    body = (
        arguments.request.read_bytes()
        if arguments.request
        else v1_body([noise_png(28, seed) for seed in range(arguments.images)])
    )
    headers = {"host": arguments.host} if arguments.host else {}
    try:
        with http_client(url, headers=headers, timeout=TIMEOUT_SECONDS) as http:
            answer = http.post(url, content=body)
    except (httpx.HTTPError, ValueError) as error:
        sys.exit(f"error: {url} does not answer: {error}")
    if not answer.is_success:
        sys.exit(f"error: {url} answers {answer.status_code}: {answer.text[:500]}")
    if not shutil.which("hey"):
        console.print("hey is not installed (Debian package hey); Python threads ask instead, and are slower")
    load = run_load(url, body, arguments.clients, arguments.seconds, headers)
    console.print(url)
    console.print(_table(load))
    sys.exit(1 if load.failed else 0)


if __name__ == "__main__":
    main()
