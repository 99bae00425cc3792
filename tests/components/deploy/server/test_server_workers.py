"""Several processes answer as one."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest
from skips import Need, skip_unless

from kfp_image_classification.components.train.launchers.machine import free_ports

BODY = {"instances": np.random.default_rng(3).integers(0, 256, (2, 28, 28, 1), np.uint8).tolist()}

pytestmark = skip_unless(hasattr(os, "sched_setaffinity"), Need.SYSTEM, "several workers need Linux")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def start_workers(start_server, trained: SimpleNamespace) -> Callable[..., SimpleNamespace]:
    def start(count: int, *options: str, model: Path = trained.model) -> SimpleNamespace:
        server = start_server(model, f"--workers={count}", *options)
        eventually(lambda: f"{count} workers answer" in server.log)
        return SimpleNamespace(server=server, workers=psutil.Process(server.process.pid).children())

    return start


@pytest.fixture
def clients() -> Iterator[Callable[[int], list[httpx.Client]]]:
    """Each with a connection of its own, which stays open."""
    with ExitStack() as opened:
        yield lambda count: [opened.enter_context(httpx.Client()) for _ in range(count)]


def connections(worker: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in worker.connections("tcp"))


def test_connections_go_to_the_worker_that_has_the_fewest(start_workers, clients) -> None:
    started = start_workers(3)
    opened = clients(9)
    for client in opened:
        assert client.post(started.server.predict_url, json=BODY).status_code == 200
    assert [connections(worker) for worker in started.workers] == [3, 3, 3]
    for client in opened[:2]:
        client.close()
    eventually(lambda: sum(connections(worker) for worker in started.workers) == 7)
    time.sleep(1)  # a worker tells ten times a second what it has
    for client in clients(2):
        assert client.post(started.server.predict_url, json=BODY).status_code == 200
    assert [connections(worker) for worker in started.workers] == [3, 3, 3]


def test_any_worker_tells_what_all_have_counted(start_workers, clients) -> None:
    started = start_workers(3)
    url = started.server.url
    opened = clients(6)
    for client in opened:
        client.post(started.server.predict_url, json=BODY)
        client.post(started.server.predict_url, content=b"{")
    for client in opened:
        lines = client.get(f"{url}/metrics").text.splitlines()
        assert 'classifier_requests_total{protocol="v1",status="200"} 6.0' in lines
        assert 'classifier_requests_total{protocol="v1",status="400"} 6.0' in lines
        assert 'classifier_request_seconds_count{protocol="v1"} 12.0' in lines
        assert "classifier_batch_images_sum 12.0" in lines
        assert 'classifier_model_info{backend="onnx",model_type="cnn",version="1"} 1.0' in lines
        assert "# TYPE classifier_requests_total counter" in lines
        (told,) = client.get(f"{url}/v2/models/digits/stats").json()["model_stats"]
        assert (told["version"], told["inference_count"], told["execution_count"]) == ("1", 12, 6)
        assert told["inference_stats"]["success"]["count"] == 6
        assert [(one["batch_size"], one["compute_infer"]["count"]) for one in told["batch_stats"]] == [(2, 6)]
    memory = started.server.metric("process_resident_memory_bytes")
    assert memory == pytest.approx(sum(worker.memory_info().rss for worker in started.workers), rel=0.2)


def test_all_workers_take_another_version_at_the_same_moment(start_workers, clients, trained, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "model"))
    started = start_workers(2, "--reload_seconds=2", model=model)
    partial = Path(shutil.copytree(model / "1", model / "2.partial"))
    first, second = clients(2)

    def version(client: httpx.Client) -> str:
        return str(client.get(f"{started.server.url}/v2/models/digits").json()["versions"][0])

    assert (version(first), version(second)) == ("1", "1")
    partial.rename(model / "2")
    eventually(lambda: version(first) == "2")
    time.sleep(0.3)
    assert version(second) == "2"
    assert started.server.log.count("version 2 (cnn) is served") == 1


def test_worker_that_is_killed_takes_the_others_with_it(start_workers) -> None:
    """As a single process would end: whoever started the server starts it anew."""
    started = start_workers(2)
    started.workers[1].kill()
    assert started.server.process.wait(30) == 1
    assert "error: a worker ended by itself, killed by signal 9" in started.server.log
    assert "Traceback" not in started.server.log
    eventually(lambda: not any(worker.is_running() for worker in started.workers))


def test_workers_end_with_a_supervisor_that_is_killed(start_workers) -> None:
    started = start_workers(2)
    started.server.process.kill()
    eventually(lambda: not any(worker.is_running() for worker in started.workers))


def test_workers_do_not_end_by_signals_that_are_for_the_supervisor(start_workers) -> None:
    """A terminal, or an init system, tells every process."""
    started = start_workers(2, "--drain_seconds=1")
    for worker in started.workers:
        worker.terminate()
    assert httpx.post(started.server.predict_url, json=BODY).status_code == 200
    assert started.server.stop() == 0


def test_grpc_is_answered_by_all(start_workers) -> None:
    port = free_ports(1)[0]
    started = start_workers(2, f"--grpc_port={port}")
    for worker in started.workers:
        assert any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in worker.connections("tcp"))


@pytest.mark.parametrize(("options", "reason"), [([], "one core"), (["--backend=tensorflow"], "TensorFlow")])
def test_one_process_where_more_would_not_pay(
    start_server, trained: SimpleNamespace, options: list[str], reason: str
) -> None:
    cores = os.sched_getaffinity(0)
    if reason == "one core":
        os.sched_setaffinity(0, {min(cores)})
    try:
        server = start_server(trained.model, *options)
    finally:
        os.sched_setaffinity(0, cores)
    assert psutil.Process(server.process.pid).children() == []
    assert httpx.post(server.predict_url, json=BODY).status_code == 200


def test_model_that_only_tensorflow_can_run_has_one_worker(
    start_server, trained: SimpleNamespace, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "model"))
    (model / "1" / "assets.extra" / "model.onnx").unlink()
    server = start_server(model)
    assert "TensorFlow serves it instead" in server.log
    assert len(psutil.Process(server.process.pid).children()) <= 1
    assert httpx.get(f"{server.url}/metrics").status_code == 200


def test_number_of_workers_that_is_none(start_server, trained: SimpleNamespace) -> None:
    server = start_server(trained.model, "--workers=-1", wait=False)
    assert server.process.wait(30) == 2
    assert "argument --workers: expected a whole number from 0, got '-1'" in server.log
