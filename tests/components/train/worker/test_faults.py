"""Faults in the middle of a real training: afterwards the weights are those of an undisturbed run, bit for bit."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import psutil
import pytest
from log_lines import LogLines
from network_proxy import Change, Cut, Proxy, at, garbled
from patched_workers import patch_workers, started_with

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.records import read_batches
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.train.job_folder import claim_directory
from kfp_image_classification.components.train.launchers.machine import on_cores, worker_ports
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import TrainingResult, run_job
from kfp_image_classification.components.train.worker.worker_report import WorkerReport
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

# Dropout and batches both depend on the position in the training: a run that loses it ends with other weights.
EPOCHS = 7
OPTIONS = TrainOptions(
    model_type="cnn_dropout",
    workers=2,
    epochs=EPOCHS,
    batch_size=32,
    learning_rates="0:1e-3 0.5:1e-4",
    seed=5,
    checkpoint_seconds=0.5,
    hang_seconds=3,
)

# All that a restart could forget, together.
HARDEST = {
    "learning_rates": "warmup:0.1 cosine:2e-3",
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "gradient_clip": 1.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "augmentation": "photo",
    "mixup": 0.2,
    "select_by": "macro_f1",
    "patience": 5,
}

# Python loads sitecustomize at its start. Told by this signal, a worker stands still in its next line of Python, while
# TensorFlow's own threads go on to show that it is alive.
STUCK = signal.SIGUSR1
GETS_STUCK = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1000))"


def make_job(digits: Dataset, directory: Path, **change: object) -> TrainingJob:
    options = TrainOptions(**{**OPTIONS.model_dump(), **change})
    return TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory / "job"))


def workers(of: psutil.Process) -> dict[int, psutil.Process]:
    found = {}
    for child in of.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "kfp_image_classification.components.train.worker" in child.cmdline():
                found[json.loads(child.environ()["TF_CONFIG"])["task"]["index"]] = child
    return found


def weights(job: TrainingJob) -> str:
    paths = [WorkerReport.path(job.directory, index) for index in range(job.options.workers)]
    (same,) = {WorkerReport.model_validate_json(path.read_text()).weights_sha256 for path in paths}
    return same


@pytest.fixture(scope="module")
def undisturbed(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TrainingResult]:
    directory = tmp_path_factory.mktemp("undisturbed")
    job = make_job(digits, directory)
    result = run_job(job, directory / "model", LogLines().logger)
    return weights(job), result


def disturbed_run(
    job: TrainingJob, model: Path, disturb: Callable[[dict[int, psutil.Process]], None], after: str = r"epoch +3/"
) -> tuple[LogLines, TrainingResult]:
    """Runs a job, and does something to its workers after a line of its log: during the fourth epoch."""
    log = LogLines()
    results: list[TrainingResult | BaseException] = []

    def run() -> None:
        try:
            results.append(run_job(job, model, log.logger))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    started = time.monotonic()
    thread.start()
    log.wait_for(after)
    disturb(workers(psutil.Process()))
    thread.join(300)
    assert not thread.is_alive()
    if isinstance(results[0], BaseException):
        raise results[0]
    assert sum(results[0].seconds.values()) == pytest.approx(time.monotonic() - started, abs=2), results[0].seconds
    return log, results[0]


@pytest.mark.parametrize(
    ("victim", "sent", "told", "most_seconds"),
    [
        # A worker is killed in the test of the best epoch, too.
        pytest.param(1, signal.SIGKILL, "worker-1 was ended by signal 9; restart 1 of 3", 10, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGKILL, "worker-0 was ended by signal 9; restart 1 of 3", 10, marks=pytest.mark.slow),
        (1, signal.SIGTERM, "exited with code 143; restart 1 of 3", 10),
        pytest.param(1, signal.SIGSTOP, "restart 1 of 3", 20, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGSTOP, "restart 1 of 3", 20, marks=pytest.mark.slow),
        pytest.param(1, STUCK, "worker-0 exited with code 138; restart 1 of 3", 25, marks=pytest.mark.slow),
        pytest.param(0, STUCK, "worker-1 exited with code 138; restart 1 of 3", 25, marks=pytest.mark.slow),
    ],
    ids=[
        "worker killed",
        "chief killed",
        "worker told to go",
        "worker hangs",
        "chief hangs",
        "worker stuck",
        "chief stuck",
    ],
)
def test_job_recovers_with_the_same_weights(
    victim: int,
    sent: signal.Signals,
    told: str,
    most_seconds: float,
    digits: Dataset,
    undisturbed: tuple[str, TrainingResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started_with(tmp_path, monkeypatch, GETS_STUCK)
    job = make_job(digits, tmp_path, stuck_seconds=10 if sent == STUCK else OPTIONS.stuck_seconds)
    at: list[float] = []

    def disturb(of: dict[int, psutil.Process]) -> None:
        of[victim].send_signal(sent)
        at.append(time.monotonic())

    log, result = disturbed_run(job, tmp_path / "model", disturb)
    assert weights(job) == undisturbed[0]
    assert told in log.text, log.text
    restarted = next(when for when, line in log.lines if "restart 1 of 3" in line)
    assert restarted - at[0] < most_seconds, "noticed too late"
    (restart,) = result.restarts
    assert restart.reason in log.text
    # Noticing, loading TensorFlow, joining, building.
    assert restarted - at[0] < restart.seconds == pytest.approx(result.seconds["restarts"])
    resumed = re.search(r"resumed after step (\d+); (\d+) steps are repeated", log.text)
    assert resumed, log.text
    assert int(resumed[1]) > 0
    assert re.search(r"back in training [\d.]+ s after the loss", log.text)
    if sent == signal.SIGTERM:
        assert "told to go; saved after step" in log.text
        assert int(resumed[2]) == restart.steps == 0, "a preempted job repeats nothing"
    assert [row["epoch"] for row in result.history] == list(range(1, EPOCHS + 1))
    expected = [row["val_accuracy"] for row in undisturbed[1].history]
    assert [row["val_accuracy"] for row in result.history] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{}, {"optimizer": "sgd", "learning_rates": "warmup:0.1 0:5e-2"}], ids=["adamw", "sgd"]
)
def test_job_with_every_option_recovers_with_the_same_weights(
    change: dict[str, object], digits: Dataset, tmp_path: Path
) -> None:
    whole = make_job(digits, tmp_path / "undisturbed", **{**HARDEST, **change})
    expected = run_job(whole, tmp_path / "model", LogLines().logger)
    job = make_job(digits, tmp_path, **{**HARDEST, **change})
    log, result = disturbed_run(job, tmp_path / "again", lambda of: of[0].kill())
    assert "worker-0 was ended by signal 9; restart 1 of 3" in log.text
    assert weights(job) == weights(whole)
    assert result.outcome == expected.outcome


# What XLA compiles for a GPU, on the CPU: the worker takes it for one, and hands several batches over at once.
LIKE_A_GPU = """
import dataclasses

find = loaded.find_devices
loaded.find_devices = lambda job: dataclasses.replace(find(job), gpus=1)
"""
DENSE = """
from keras import Sequential, layers

def build(shape, classes):
    return Sequential([layers.Input(shape), layers.Flatten(), layers.Dropout(0.1), layers.Dense(classes)])
"""


@pytest.mark.slow
def test_job_whose_batches_come_together_recovers_with_the_same_weights(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_workers(tmp_path, monkeypatch, "devices", LIKE_A_GPU)
    (tmp_path / "dense_model.py").write_text(DENSE)
    # 17 steps an epoch, and 16 are a group: calls and restarts begin within one.
    change = {"model_type": "dense_model:build", "workers": 1, "batch_size": 211, "epochs": 5}
    whole = make_job(digits, tmp_path / "undisturbed", **change)
    run_job(whole, tmp_path / "model", LogLines().logger)
    job = make_job(digits, tmp_path, **change)
    log, result = disturbed_run(job, tmp_path / "again", lambda of: of[0].terminate(), after=r"epoch +2/")
    assert "computes on the CPU, 1 core, with XLA" in log.text
    assert "told to go; saved after step" in log.text
    assert weights(job) == weights(whole)
    assert [row["epoch"] for row in result.history] == list(range(1, 6))


def test_restart_remembers_the_best_epoch_and_what_patience_is_left(digits: Dataset, tmp_path: Path) -> None:
    """A rate that destroys what the first epochs learned: they are the best, and seen by the killed workers alone."""
    change = {
        "model_type": "cnn_small",
        "epochs": 16,
        "learning_rates": "0:1e-3 0.1:0.5",
        "patience": 4,
        "gradient_clip": 5.0,
    }
    job = make_job(digits, tmp_path, **change)
    log, result = disturbed_run(job, tmp_path / "model", lambda of: of[1].kill())
    assert "restart 1 of 3" in log.text
    accuracy, epoch, epochs = result.outcome
    assert epoch <= 2
    assert epochs == epoch + 4
    assert accuracy > result.history[-1]["val_accuracy"] + 0.3
    model = keras.models.load_model(tmp_path / "model" / "model.keras")
    right = images = 0
    for pixels, labels in read_batches(digits, digits.manifest.splits["validation"].shards, 400):
        right += int((model(pixels.numpy() / 255).numpy().argmax(-1) == labels.numpy()).sum())
        images += len(labels)
    assert right / images == pytest.approx(accuracy, abs=1e-6)


# Patches one function of a worker, once: at its second call (or first) the worker named stands still in it.
STALLS = """
import json, os, time

name, call, worker, how, flag = json.loads(os.environ["STALL"])
calls = [0]

def stall():
    calls[0] += 1
    if calls[0] == call and not os.path.exists(flag):
        open(flag, "w").close()
        if how == "python":
            time.sleep(1000)
        import ctypes
        ctypes.PyDLL(None).sleep(1000)  # which keeps Python's lock

if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == worker:
    *owner, last = name.split(".")
    place = loaded
    for part in owner:
        place = getattr(place, part)
    original = getattr(place, last)
    def stalling(*arguments, **named):
        stall()
        return original(*arguments, **named)
    setattr(place, last, stalling)
"""
WORKER = "kfp_image_classification.components.train.worker"


@dataclass(frozen=True)
class Stall:
    """Where one worker stands still: in which call of which function, and whether it keeps Python's lock."""

    phase: str
    module: str
    function: str
    call: int
    worker: int
    how: str = "python"
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.phase}, {'chief' if self.worker == 0 else 'worker'}, {self.how}"


STALL_TABLE = [
    Stall("connect", "coordination", "_configure_coordination", 1, 1),
    Stall("connect", "coordination", "_configure_coordination", 1, 0),
    Stall("connect", "coordination", "collective_sum", 1, 1),
    Stall("gather", "tensor_exchange", "TensorExchange.join", 1, 1),
    Stall("build", "models", "build_model", 1, 1),
    Stall("restore", "checkpoints", "Checkpoints.restore", 1, 0),
    Stall("train", "steps", "Pace.steps", 1, 1),
    Stall("train", "steps", "Pace.steps", 6, 0, "lock"),
    Stall("train", "steps", "Pace.steps", 6, 1, quick=True),
    Stall("validate", "training", "_Training._scores", 3, 1),
    Stall("log", "epoch_log", "EpochLog.add", 3, 0),
    Stall("checkpoint", "checkpoints", "Checkpoints.save", 2, 0),
    Stall("export", "onnx_export", "write_onnx", 1, 0),
    Stall("report", "worker_report", "WorkerReport.write", 1, 1),
]


@pytest.mark.parametrize(
    "stall", [pytest.param(one, marks=[] if one.quick else pytest.mark.slow, id=str(one)) for one in STALL_TABLE]
)
def test_worker_that_stands_still_in_any_phase_is_noticed(
    stall: Stall,
    digits: Dataset,
    undisturbed: tuple[str, TrainingResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch_workers(tmp_path, monkeypatch, stall.module, STALLS)
    told = [stall.function, stall.call, stall.worker, stall.how, str(tmp_path / "stalled")]
    monkeypatch.setenv("STALL", json.dumps(told))
    log = LogLines()
    result = run_job(make_job(digits, tmp_path, stuck_seconds=10), tmp_path / "model", log.logger)
    assert weights(make_job(digits, tmp_path)) == undisturbed[0]
    assert "restart 1 of 3" in log.text, log.text
    assert "restart 2 of 3" not in log.text, log.text
    assert re.search(
        r"did not get on for (more than )?stuck_seconds = 10|another worker was lost|chief was lost", log.text
    )
    assert [row["epoch"] for row in result.history] == list(range(1, EPOCHS + 1))
    assert [restart.steps >= 0 for restart in result.restarts] == [True]
    # A chief whose peer stands still at its end exports meanwhile, which is not lost.
    assert result.restarts[0].seconds > (0 if stall.phase == "report" else 10)


def cut() -> None:
    raise Cut("reset")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (garbled(20_000_000), r"worker \d sent a part of sum \d+ that was garbled on its way"),
        (at(20_000_000, cut), r"worker \d (has closed|is gone|has left|closed|.*reset)"),
    ],
    ids=["garbled", "cut"],
)
def test_connection_between_two_workers_that_breaks(
    change: Change, told: str, digits: Dataset, undisturbed: tuple[str, TrainingResult], tmp_path: Path
) -> None:
    """The workers are on either side of a network that does this to them; then they start again without it."""
    job = make_job(digits, tmp_path)
    claim_directory(job)
    chief, worker, between = worker_ports(3)
    proxies = [Proxy(chief, port=between), Proxy(chief + 1, up=change, port=between + 1)]

    def run(chief_seen_by_the_worker: int) -> list[tuple[int, str]]:
        started = []
        for index, seen in enumerate((chief, chief_seen_by_the_worker)):
            addresses = [f"127.0.0.1:{seen}", f"127.0.0.1:{worker}"]
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            command = [sys.executable, "-m", WORKER, "--job", job.model_dump_json()]
            environment = {**os.environ, **WORKER_ENVIRONMENT, "TF_CONFIG": json.dumps(config)}
            with on_cores([min(os.sched_getaffinity(0))]):  # the weights depend on a worker's number of cores
                started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        told = [process.communicate(timeout=120)[0] for process in started]
        return [(process.returncode, words) for process, words in zip(started, told, strict=True)]

    try:
        ended = run(between)
    finally:
        for proxy in proxies:
            proxy.close()
    assert [code for code, _ in ended] == [138, 138]
    assert all("another worker was lost: worker " in words for _, words in ended), ended
    assert any(re.search(told, words) for _, words in ended), ended
    assert [code for code, _ in run(chief)] == [0, 0]
    assert weights(job) == undisturbed[0]


def test_rerun_after_the_launcher_was_killed(
    digits: Dataset, undisturbed: tuple[str, TrainingResult], tmp_path: Path
) -> None:
    job = make_job(digits, tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from kfp_image_classification.components.step.stage_log import stage_log\n"
        "from kfp_image_classification.components.train.options import TrainingJob\n"
        "from kfp_image_classification.components.train.run_job import run_job\n"
        "run_job(TrainingJob.model_validate_json(sys.argv[1]), Path(sys.argv[2]), stage_log('first'))"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, job.model_dump_json(), str(tmp_path / "model")], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    for line in launcher.stdout:
        if re.search(r"epoch +3/", line):
            break
    left = workers(psutil.Process(launcher.pid))
    assert sorted(left) == [0, 1]
    launcher.kill()
    launcher.wait()
    log = LogLines()
    run_job(job, tmp_path / "model", log.logger)
    assert re.search(r"resumed after step [1-9]", log.text)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left.values())
    assert weights(job) == undisturbed[0]


def test_job_gives_up_after_its_restarts(digits: Dataset, tmp_path: Path) -> None:
    job = make_job(digits, tmp_path, max_restarts=0)
    with pytest.raises(StageFailed, match="worker-1 was ended by signal 9; its last lines:"):
        disturbed_run(job, tmp_path / "model", lambda of: of[1].kill())
    assert not (tmp_path / "model").exists()


def test_infinite_loss_stops_the_job_with_step_and_rate(digits: Dataset, tmp_path: Path) -> None:
    job = make_job(digits, tmp_path, learning_rates="0:1e38")
    log = LogLines()
    with pytest.raises(StageFailed, match=r"worker-\d exited with code 3") as error:
        run_job(job, tmp_path / "model", log.logger)
    assert re.search(
        r"error: the loss is (nan|inf) by step \d+ at learning rate 1e\+38; lower learning_rates", str(error.value)
    )
    assert "restart" not in log.text


def test_folder_of_another_job_is_refused(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text(make_job(digits, tmp_path, epochs=EPOCHS + 1).identity())
    with pytest.raises(InvalidInput, match="holds the state of a job with other parameters or data"):
        run_job(make_job(digits, tmp_path), tmp_path / "model", LogLines().logger)


def run_alone(job: TrainingJob, tf_config: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the worker's program once, without any other worker."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    given = {"TF_CONFIG": tf_config} if tf_config is not None else {}
    return subprocess.run(
        [sys.executable, "-m", WORKER, "--job", job.model_dump_json()],
        env={**inherited, **given, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def chief_of(*addresses: str) -> str:
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "worker-1.does-not-exist.invalid:2222"])
def test_peer_that_never_comes(address: str, digits: Dataset, tmp_path: Path) -> None:
    own, port = worker_ports(2)
    silent = address.format(port=port)
    ended = run_alone(make_job(digits, tmp_path, peer_seconds=2), chief_of(f"127.0.0.1:{own}", silent))
    assert ended.returncode == 138
    assert f"error: no answer within peer_seconds = 2 from worker-1 at {silent}: is it running" in ended.stdout


def test_port_of_the_sums_that_is_closed_between_workers(digits: Dataset, tmp_path: Path) -> None:
    own, peer = worker_ports(2)
    with socket.create_server(("127.0.0.1", peer)):
        ended = run_alone(make_job(digits, tmp_path, peer_seconds=2), chief_of(f"127.0.0.1:{own}", f"127.0.0.1:{peer}"))
    assert ended.returncode == 138
    assert f"no answer within peer_seconds = 2 from worker-1 at 127.0.0.1:{peer + 1}: is it running" in ended.stdout


def test_worker_in_a_jobsets_pod_looks_for_its_peers_by_their_names(digits: Dataset, tmp_path: Path) -> None:
    job = make_job(digits, tmp_path, peer_seconds=2)
    ended = run_alone(job, HOSTNAME="train-cnn-1a-node-0-0", JOB_COMPLETION_INDEX="0")
    assert ended.returncode == 138
    assert "peer_seconds = 2 from worker-1 at train-cnn-1a-node-0-1.train-cnn-1a:2222: is it running" in ended.stdout


def test_malformed_tf_config(digits: Dataset, tmp_path: Path) -> None:
    ended = run_alone(make_job(digits, tmp_path), "{")
    assert ended.returncode == 2
    assert ended.stdout.startswith("error: TF_CONFIG = '{': cannot be read")
