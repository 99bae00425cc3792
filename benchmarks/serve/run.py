"""`make bench-serve`: our model server, kserve's as its documentation writes it, mlserver, and a bound, in one run."""

import argparse
import base64
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.serve.load import Load, run_load
from benchmarks.serve.process import family, make_model, our_command, running
from benchmarks.serve.requests import noise_png, v1_body, v2_raw
from kfp_image_classification.components.contracts.model_card import ONNX_MODEL
from kfp_image_classification.components.train.launchers.machine import free_ports

RESULTS = Path(__file__).with_name("results.json")
PEERS = Path(__file__).with_name("peers")
WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Setting:
    """So many clients, each asking about so many images at once."""

    clients: int
    images: int

    @property
    def title(self) -> str:
        return f"{self.clients} client{'s' * (self.clients > 1)}, {self.images} image{'s' * (self.images > 1)}"


SETTINGS = [Setting(1, 1), Setting(5, 1), Setting(32, 1), Setting(32, 32)]


@dataclass(frozen=True)
class Server:
    """A model server.

    Attributes:
        title: Its name in the table.
        command: Starts it.
        ready: Path that answers 200 once it can predict.
        predict: Path of predictions.
        protocol: Of its requests: V1 or V2 with image files as base64, or V2 with pixels as raw bytes.
        environment: Added variables.
    """

    title: str
    command: list[str]
    ready: str
    predict: str
    protocol: Literal["v1", "v2", "v2 raw"] = "v1"
    environment: dict[str, str] | None = None


OURS = "ours"
OURS_ALONE = "ours, one worker"
OURS_RAW = "ours, raw pixels (V2)"
KSERVE_TENSORFLOW = "kserve + TensorFlow"
KSERVE_ONNX = "kserve + ONNX Runtime"
MLSERVER = "mlserver + ONNX Runtime"
BOUND = "bare ASGI + ONNX Runtime (a bound)"


def servers(model: Path, mlserver_python: Path, folder: Path, port: int) -> list[Server]:
    version = model / "1"
    python, v1 = [sys.executable, "-m"], "/v1/models/digits"
    ours = our_command(model, port)
    kserve = [*python, "benchmarks.serve.peers.kserve_model", "--model_name=digits", f"--folder={version}"]
    kserve += [f"--http_port={port}", "--enable_grpc=false"]
    settings = {"name": "digits", "implementation": "mlserver_model.DigitModel"}
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    # Its best: no worker processes (they cost a copy of every request), no log line a request; its adaptive batching
    # was slower in all columns.
    quiet = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_ports(1)[0],
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps({**quiet, "metrics_endpoint": None}), encoding="utf-8")
    environment = {"ONNX_MODEL": str(version / ONNX_MODEL), "PYTHONPATH": str(PEERS)}
    onnx = str(version / ONNX_MODEL)
    mlserver = [str(mlserver_python.with_name("mlserver")), "start", str(folder)]
    return [
        Server(OURS, ours, v1, f"{v1}:predict"),
        Server(OURS_ALONE, [*ours, "--workers=1"], v1, f"{v1}:predict"),
        Server(OURS_RAW, ours, v1, "/v2/models/digits/infer", "v2 raw"),
        Server(KSERVE_TENSORFLOW, [*kserve, "--backend=tensorflow"], v1, f"{v1}:predict"),
        Server(KSERVE_ONNX, [*kserve, "--backend=onnx"], v1, f"{v1}:predict"),
        Server(MLSERVER, mlserver, "/v2/models/digits/ready", "/v2/models/digits/infer", "v2", environment),
        Server(BOUND, [*python, "benchmarks.serve.peers.bare_asgi", onnx, str(port)], "/", "/"),
    ]


def measure(server: Server, port: int, seconds: float) -> tuple[dict[str, Load], float, float]:
    """Returns the loads by setting, the seconds to start, and the memory in MiB after it all."""
    url = f"http://127.0.0.1:{port}"
    start = time.monotonic()
    with running(server.command, url + server.ready, server.environment) as process:
        started = time.monotonic() - start
        loads = {}
        for setting in SETTINGS:
            body, headers = _request(setting.images, server.protocol)
            run_load(url + server.predict, body, setting.clients, WARM_UP_SECONDS, headers)
            loads[setting.title] = run_load(url + server.predict, body, setting.clients, seconds, headers)
            if loads[setting.title].failed:
                raise RuntimeError(f"{server.title}, {setting.title}: {loads[setting.title].statuses}")
        return loads, started, sum(one.memory_info().rss for one in family(process.pid)) / 2**20


def _request(images: int, protocol: str) -> tuple[bytes, dict[str, str]]:
    files = [noise_png(28, seed) for seed in range(images)]
    if protocol == "v1":
        return v1_body(files), {}
    if protocol == "v2":
        data = [base64.b64encode(file).decode() for file in files]
        tensor = {"name": "image_bytes", "shape": [images], "datatype": "BYTES", "data": data}
        return json.dumps({"inputs": [tensor]}).encode(), {}
    return v2_raw(files, 28)


def main() -> None:
    """Measures, prints a table, and writes results.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.run", description=__doc__)
    parser.add_argument(
        "--mlserver-python", required=True, type=Path, help="python of an environment with mlserver.txt"
    )
    parser.add_argument("--seconds", type=float, default=4, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--only", nargs="+", help="titles of servers that start with one of these")
    arguments = parser.parse_args()
    if not shutil.which("hey"):
        sys.exit("error: hey is not installed; it is the Debian package hey (apt-get install hey), and on Homebrew")
    measured: dict[str, list[tuple[dict[str, Load], float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        model, port = make_model(Path(scratch)), free_ports(1)[0]
        for round_number in range(arguments.rounds):
            for server in servers(model, arguments.mlserver_python, Path(scratch), port):
                if arguments.only and not server.title.startswith(tuple(arguments.only)):
                    continue
                print(f"round {round_number + 1}: {server.title}", flush=True)
                measured.setdefault(server.title, []).append(measure(server, port, arguments.seconds))
    results = {title: _summary(rounds) for title, rounds in measured.items()}
    RESULTS.write_text(
        json.dumps({"machine": _machine(), "results": results, "rounds": _plain(measured)}, indent=1), encoding="utf-8"
    )
    Console(width=160, markup=False, emoji=False).print(_table(results))


def _summary(rounds: list[tuple[dict[str, Load], float, float]]) -> dict[str, dict[str, float]]:
    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    summary = {
        setting.title: {
            "rps": middle([loads[setting.title].rate for loads, _, _ in rounds]),
            "p50": middle([loads[setting.title].milliseconds[50] for loads, _, _ in rounds]),
            "p99": middle([loads[setting.title].milliseconds[99] for loads, _, _ in rounds]),
        }
        for setting in SETTINGS
    }
    start, memory = middle([start for _, start, _ in rounds]), middle([memory for _, _, memory in rounds])
    return {**summary, "process": {"start_seconds": start, "memory_mib": memory}}


def _plain(measured: dict[str, list[tuple[dict[str, Load], float, float]]]) -> dict[str, list[dict[str, object]]]:
    return {
        title: [{setting: asdict(load) for setting, load in loads.items()} for loads, _, _ in rounds]
        for title, rounds in measured.items()
    }


def _machine() -> str:
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def _table(results: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table(title="Requests a second (ours is so many times as fast); p50 / p99 in ms", title_justify="left")
    table.add_column("server")
    for setting in SETTINGS:
        table.add_column(setting.title, justify="right")
    table.add_column("start, s", justify="right")
    table.add_column("MiB", justify="right")
    for title, summary in results.items():
        cells = []
        for setting in SETTINGS:
            one = summary[setting.title]
            ratio = f" ({results[OURS][setting.title]['rps'] / one['rps']:.2f})" if OURS in results else ""
            cells.append(f"{one['rps']:,.0f}{ratio}\n{one['p50']:.1f} / {one['p99']:.1f}")
        process = summary["process"]
        table.add_row(title, *cells, f"{process['start_seconds']:.1f}", f"{process['memory_mib']:,.0f}")
    return table


if __name__ == "__main__":
    main()
