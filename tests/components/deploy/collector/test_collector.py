"""The collector: a real process, real HTTP, and what lies in its folder in the end."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import tenacity

from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.contracts.payload_events import PayloadEvent
from kfp_image_classification.components.contracts.payload_files import FORMATS, from_file
from kfp_image_classification.components.train.launchers.machine import free_ports

TYPE = "org.kubeflow.serving.inference."
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "r-1",
    "ce-type": f"{TYPE}request",
    "ce-time": "2026-11-26T12:00:00.123456789Z",
    "ce-inferenceservicename": "digits",
    "content-type": "application/json",
}
BODY = b'{"instances": [[0]]}'

Start = Callable[..., SimpleNamespace]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a collector of the folder `log` with options."""
    processes = []

    def run(*options: str) -> SimpleNamespace:
        port = free_ports(1)[0]
        command = [sys.executable, "-m", "kfp_image_classification.components.deploy.collector"]
        command += [f"--output={tmp_path / 'log'}", "--host=127.0.0.1", f"--port={port}", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(httpx.TransportError),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(60),
        ):
            with attempt:
                assert process.poll() is None, process.communicate()[0]
                assert httpx.get(f"{url}/healthz").json() == {"status": "alive"}
        return SimpleNamespace(url=url, process=process, folder=tmp_path / "log")

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def stopped(collector: SimpleNamespace) -> int:
    collector.process.send_signal(signal.SIGTERM)
    return int(collector.process.wait(20))


def kept(folder: Path) -> list[PayloadEvent]:
    storage = open_folder(str(folder), "events")
    return [event for file in storage.files() for event in from_file(file.name, storage.read(file.name), file.written)]


def test_events_of_every_mode_are_kept_whole(start: Start) -> None:
    collector = start()
    structured = {"specversion": "1.0", "id": "r-2", "type": f"{TYPE}response", "inferenceservicename": "digits"}
    sent = [
        (HEADERS, BODY),
        ({"content-type": "application/cloudevents+json"}, json.dumps({**structured, "data": {"predictions": []}})),
        (
            {"content-type": "application/cloudevents+json; charset=utf-8"},
            json.dumps({**structured, "data_base64": base64.b64encode(b"\x00\xff").decode()}),
        ),
    ]
    for headers, body in sent:
        assert httpx.post(collector.url, headers=headers, content=body).status_code == 200
    assert not any(collector.folder.iterdir())  # they wait for others
    assert stopped(collector) == 0
    first, second, third = kept(collector.folder)
    assert (first.id, first.kind, first.service, first.body) == ("r-1", "request", "digits", BODY)
    assert first.time == datetime(2026, 11, 26, 12, 0, 0, 123456, UTC)
    assert (second.kind, second.body, third.body) == ("response", b'{"predictions":[]}', b"\x00\xff")


REFUSED = [
    ({**HEADERS, "ce-id": ""}, BODY, 400, "ce-id"),
    ({}, BODY, 400, "ce-id"),
    ({**HEADERS, "ce-type": "dev.knative.ping"}, BODY, 400, "dev.knative.ping"),
    (HEADERS, b"x" * 2000, 413, "1,000"),
    ({**HEADERS, "content-encoding": "gzip"}, BODY, 415, "gzip"),
    ({"content-type": "application/cloudevents-batch+json"}, b"[]", 415, "one event"),
    ({"content-type": "application/cloudevents+json"}, b"[]", 400, "CloudEvent"),
    ({"content-type": "application/cloudevents+json"}, b'{"id": "1", "data_base64": 3}', 400, "CloudEvent"),
]


def test_what_is_no_event_is_refused_in_words(start: Start) -> None:
    collector = start("--max_body_bytes=1000")
    for headers, body, status, words in REFUSED:
        answer = httpx.post(collector.url, headers=headers, content=body)
        assert answer.status_code == status
        assert words in answer.json()["error"]
    assert httpx.put(collector.url).status_code == 405


@pytest.mark.parametrize("name", FORMATS)
def test_files_end_by_size_and_by_time_and_the_oldest_go(start: Start, name: str, tmp_path: Path) -> None:
    """The oldest of whatever format, but nobody else's files."""
    old, foreign = (
        tmp_path / "log" / path for path in ("20261126/12/20261126T120000-0a1b2c3d.jsonl.gz", "own.parquet")
    )
    old.parent.mkdir(parents=True)
    old.write_bytes(FORMATS["jsonl"].content([]))
    foreign.write_bytes(FORMATS["parquet"].content([]))
    collector = start("--file_bytes=100000", "--file_seconds=0.3", "--max_bytes=250000", f"--format={name}")
    noise = os.urandom(120_000)
    for number in range(4):
        assert httpx.post(collector.url, headers={**HEADERS, "ce-id": f"r-{number}"}, content=noise).status_code == 200
        time.sleep(0.5)
    httpx.post(collector.url, headers={**HEADERS, "ce-id": "small"}, content=BODY)
    until = time.monotonic() + 20
    while "small" not in [event.id for event in kept(collector.folder)]:
        assert time.monotonic() < until
        time.sleep(0.1)
    files = [path for path in collector.folder.rglob("2*/*/*") if path.is_file()]
    assert {path.name.partition(".")[2] for path in files} == {FORMATS[name].suffix.removeprefix(".")}
    assert sum(path.stat().st_size for path in files) <= 250_000
    assert not old.exists()
    assert foreign.exists()
    ids = [event.id for event in kept(collector.folder)]
    assert ids[-1] == "small"
    assert "r-0" not in ids
    assert stopped(collector) == 0


def test_folder_that_takes_nothing_costs_no_memory_and_no_time(start: Start) -> None:
    collector = start("--max_waiting_bytes=50000", "--file_seconds=0.2")
    collector.folder.rmdir()
    collector.folder.write_text("a file where the folder should be")
    answers = []
    began = time.monotonic()
    for number in range(10):
        answers.append(httpx.post(collector.url, headers={**HEADERS, "ce-id": str(number)}, content=b"x" * 10_000))
    assert time.monotonic() - began < 5
    assert [answer.status_code for answer in answers] == [200] * 4 + [503] * 6
    assert 'collector_events_total{outcome="refused"} 6.0' in httpx.get(f"{collector.url}/metrics").text
    collector.folder.unlink()
    assert stopped(collector) == 0
    assert sorted(event.id for event in kept(collector.folder)) == ["0", "1", "2", "3"]


def test_model_server_and_collector(start: Start, start_server, trained: SimpleNamespace) -> None:
    collector = start()
    server = start_server(trained.model, f"--logger_url={collector.url}")
    body = {"instances": np.zeros((2, 28, 28, 1), int).tolist()}
    answer = httpx.post(server.predict_url, json=body, headers={"ce-id": "r-7"})
    assert server.stop() == 0
    assert stopped(collector) == 0
    request, response = kept(collector.folder)
    assert (request.id, request.kind, response.id, response.kind) == ("r-7", "request", "r-7", "response")
    assert json.loads(request.body) == body
    assert response.body == answer.content


@pytest.mark.parametrize("place", ["file", "file/within", "n" * 300])
def test_a_folder_that_cannot_be_written_is_told_at_the_start(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    command = [sys.executable, "-m", "kfp_image_classification.components.deploy.collector", "--port=0"]
    ended = subprocess.run(
        [*command, f"--output={tmp_path / place}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: output = '{tmp_path / place}': cannot be written (")
    assert ended.stderr.endswith("); choose another folder\n")
