"""How the model server's throughput grows with its cores, beside the bare bound on one.

    python -m benchmarks.serve.scaling --cores 1 2 4 8 --out FILE

The server is pinned to so many cores and has a worker for each. Processes on the other cores ask it over loopback, from
sockets of their own, without a pause: no other program is needed, and no network. Where there are no cores left, server
and clients share them, and the table says so. A quarter of a minute for each number of cores.
"""

import argparse
import json
import multiprocessing
import os
import platform
import select
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from benchmarks.serve.process import START_SECONDS, family, make_model, our_command, running
from benchmarks.serve.requests import noise_png, v1_body, v2_raw
from kfp_image_classification.components.contracts.model_card import ONNX_MODEL
from kfp_image_classification.components.train.launchers.machine import free_ports

WARM_UP_SECONDS = 0.7
PAUSE_SECONDS = 0.3
OURS, BOUND = "ours", "bound"


@dataclass(frozen=True)
class Question:
    """What is asked, again and again.

    Attributes:
        title: In the table.
        clients: For each core of the server.
        path: Of the server.
        body: Of the request.
        headers: Beside its length.
    """

    title: str
    clients: int
    path: str
    body: bytes
    headers: dict[str, str]

    def message(self, path: str | None = None) -> bytes:
        headers = {"host": "127.0.0.1", **self.headers, "content-length": str(len(self.body))}
        lines = [f"POST {path or self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        server: Ours, or the bound.
        cores: That the server has.
        question: What it was asked.
        rate: Answers a second.
        cpu_ms: The server's CPU time of an answer.
        p50_ms: Latency in the middle.
        p99_ms: Latency that one of a hundred exceeds.
        busy: CPUs that the server used.
        clients_busy: The busiest client process, as a share of its time; near 1 it may be what limits.
        memory_mib: Resident, of all processes of the server.
        shared_cores: Whether clients ran on the server's cores.
    """

    server: str
    cores: int
    question: str
    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    busy: float
    clients_busy: float
    memory_mib: float
    shared_cores: bool


def questions() -> list[Question]:
    files = [noise_png(28, seed) for seed in range(32)]
    v1, as_json = "/v1/models/digits:predict", {"content-type": "application/json"}
    raw, headers = v2_raw(files[:1], 28)
    return [
        Question("1 PNG", 16, v1, v1_body(files[:1]), as_json),
        Question("1 image, raw pixels", 16, "/v2/models/digits/infer", raw, headers),
        Question("32 PNGs", 4, v1, v1_body(files), as_json),
    ]


def ask(
    port: int, message: bytes, clients: int, cores: set[int], begin: float, end: float, answers: Connection
) -> None:
    """A client process: so many connections that ask without a pause; tells the latencies between two moments."""
    os.sched_setaffinity(0, cores)
    poll = select.epoll()
    connections: dict[int, socket.socket] = {}
    asked: dict[int, float] = {}
    received: dict[int, bytes] = {}
    latencies: list[float] = []
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port), START_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connection.fileno()
        connections[number], received[number] = connection, b""
        poll.register(number, select.EPOLLIN)
        asked[number] = time.monotonic()
        connection.sendall(message)
    started, now, cpu_begin = False, 0.0, 0.0
    while now < end:
        for number, _ in poll.poll(1.0):
            content = received[number] + connections[number].recv(1 << 20)
            now = time.monotonic()
            if not _is_whole(content):
                received[number] = content
                continue
            if begin <= now < end:
                latencies.append(now - asked[number])
            received[number], asked[number] = b"", now
            connections[number].sendall(message)
        now = time.monotonic()
        if not started and now >= begin:
            started, cpu_begin = True, time.process_time()
    answers.send((latencies, (time.process_time() - cpu_begin) / (end - begin)))
    for connection in connections.values():
        connection.close()


def _is_whole(content: bytes) -> bool:
    head, separator, body = content.partition(b"\r\n\r\n")
    if not separator:
        if not content:
            raise RuntimeError("the server has closed a connection")
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server answers {head[:80]!r} {body[:300]!r}")
    start = head.index(b"content-length: ") + len(b"content-length: ")
    return len(body) >= int(head[start:].partition(b"\r\n")[0])


def measure(server: str, model: Path, cores: list[int], clients_on: list[int], seconds: float) -> list[Row]:
    """Starts a server on some cores, asks it from others, and stops it."""
    port = free_ports(1)[0]
    if server == OURS:
        command, ready = our_command(model, port, f"--workers={len(cores)}"), "/v2/health/ready"
    else:
        onnx = str(model / "1" / ONNX_MODEL)
        command, ready = [sys.executable, "-m", "benchmarks.serve.peers.bare_asgi", onnx, str(port)], "/"
    with running(command, f"http://127.0.0.1:{port}{ready}", cores=cores) as process:
        time.sleep(2.0 if len(cores) > 1 else 0)  # the first worker answers before the others are ready
        asked = [one for one in questions() if server == OURS or one.path.startswith("/v1")]
        return [_row(server, process.pid, port, question, cores, clients_on, seconds) for question in asked]


def _row(
    server: str, pid: int, port: int, question: Question, cores: list[int], clients_on: list[int], seconds: float
) -> Row:
    begin = time.monotonic() + WARM_UP_SECONDS
    end = begin + seconds
    message = question.message("/" if server == BOUND else None)
    share, rest = divmod(question.clients * len(cores), len(clients_on))
    forked = multiprocessing.get_context("fork")
    pipes, asking = [], []
    for index, core in enumerate(clients_on):
        clients = share + (index < rest)
        if clients:
            here, there = forked.Pipe(duplex=False)
            asking.append(forked.Process(target=ask, args=(port, message, clients, {core}, begin, end, there)))
            asking[-1].start()
            there.close()
            pipes.append(here)
    processes = family(pid)
    time.sleep(max(0.0, begin - time.monotonic()))
    before = _cpu_seconds(processes)
    time.sleep(max(0.0, end - time.monotonic()))
    used = _cpu_seconds(processes) - before
    memory = sum(one.memory_info().rss for one in processes) / 2**20
    try:
        told = [pipe.recv() for pipe in pipes]
    except EOFError:
        raise RuntimeError(f"{question.title}: a client process failed") from None
    finally:
        for client in asking:
            client.join(10)
            client.kill()
    latencies = sorted(latency for found, _ in told for latency in found)
    time.sleep(PAUSE_SECONDS)
    return Row(
        server,
        len(cores),
        question.title,
        len(latencies) / seconds,
        1000 * used / max(1, len(latencies)),
        1000 * latencies[len(latencies) // 2],
        1000 * latencies[len(latencies) * 99 // 100],
        used / seconds,
        max(busy for _, busy in told),
        memory,
        bool({*cores} & {*clients_on}),
    )


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def table(rows: list[Row]) -> str:
    """In Markdown; each rate beside that of ours on one core, or on the fewest that were measured."""
    lines = [
        "| | cores | asked about | answers/s | times one core | CPU ms | p50 ms | p99 ms | CPUs used | busiest client "
        "| MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    first = {row.question: row for row in reversed(rows) if row.server == OURS}
    for row in rows:
        times = row.rate / first[row.question].rate if row.question in first else 0.0
        lines.append(
            f"| {row.server}{' (shared cores)' if row.shared_cores else ''} | {row.cores} | {row.question} "
            f"| {row.rate:,.0f} | {times:.2f} | {row.cpu_ms:.3f} | {row.p50_ms:.1f} | {row.p99_ms:.1f} "
            f"| {row.busy:.2f} | {row.clients_busy:.0%} | {row.memory_mib:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.scaling", description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="of the server, one run each")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--model", type=Path, help="an exported model of 28 x 28 grey images; default: makes one")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    arguments = parser.parse_args()
    there = sorted(os.sched_getaffinity(0))
    if max(arguments.cores) > len(there) or min(arguments.cores) < 1:
        sys.exit(f"error: cores = {arguments.cores}: give numbers from 1 to {len(there)}, which this process may use")
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or make_model(Path(scratch))
        rows: list[Row] = []
        for server, cores in [(BOUND, 1), *((OURS, count) for count in arguments.cores)]:
            print(f"{server} on {cores} of {len(there)} cores", file=sys.stderr, flush=True)
            rows += measure(server, model, there[:cores], there[cores:] or there, arguments.seconds)
    print(table(rows))
    if arguments.out:
        machine = f"{platform.machine()}, {len(there)} cores, Python {platform.python_version()}"
        arguments.out.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
