"""Jobs on a cluster: a real launcher and the official client, against an API server that behaves like the real one."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes_api import KubernetesApi
from kubernetes_api.store import ApiError
from log_lines import LogLines
from skips import Need, skip_unless
from training_operator import KINDS, TrainingOperator, leave_results

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed, checked
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.components.train.launchers.pod_template import TaskSettings
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import TrainingResult, job_directory, run_job
from kfp_image_classification.components.train.worker.worker_report import WorkerReport

RUN_ID = "0b7f2c1e-5a3d-4c66-9b1e-2f8f3e6d7a10"
BACKENDS = pytest.mark.parametrize("backend", ["tfjob", "trainjob"])


class Launch:
    """A launcher that runs in a thread."""

    def __init__(self, job: TrainingJob, model: Path, options: JobOptions, task: TaskSettings) -> None:
        self.job, self.model, self.log = job, model, LogLines()
        self._outcome: list[TrainingResult | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(options, task), daemon=True)
        self._thread.start()

    def _run(self, options: JobOptions, task: TaskSettings) -> None:
        try:
            self._outcome.append(run_job(self.job, self.model, self.log.logger, options, task))
        except BaseException as error:
            self._outcome.append(error)

    def wait(self, seconds: float = 60) -> None:
        self._thread.join(seconds)

    def result(self, seconds: float = 60) -> TrainingResult:
        self.wait(seconds)
        assert not self._thread.is_alive(), self.log.text
        if isinstance(self._outcome[0], BaseException):
            raise self._outcome[0]
        return self._outcome[0]

    def failure(self, error: type[Exception] = StageFailed) -> str:
        with pytest.raises(error) as caught:
            self.result()
        assert not self.model.exists(), "no model of a failed job"
        return str(caught.value)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared volume, as the step of a run sees it."""
    path = tmp_path / "storage"
    path.mkdir()
    monkeypatch.setenv("STORAGE_PATH", str(path))
    monkeypatch.setenv("RUN_ID", RUN_ID)
    return path


@pytest.fixture
def launch(
    kubernetes_api: KubernetesApi, storage: Path, digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> Iterator[Callable[..., Launch]]:
    """Launches a job; options of train as they are named, those of the cluster among them."""
    launches: list[Launch] = []

    def start(
        backend: str = "tfjob", task: TaskSettings | None = None, job: dict[str, Any] | None = None, **change: Any
    ) -> Launch:
        own = {name: change.pop(name) for name in list(change) if name in JobOptions.model_fields}
        options = checked(TrainOptions, **{**train_options.model_dump(), "backend": backend, **change})
        model = tmp_path / f"model-{len(launches)}"
        directory = job_directory(options, str(digits.directory), model, "")
        training = TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory), run=RUN_ID)
        job_options = checked(JobOptions, **{"pvc": "claim", **own}, job=job or {})
        launches.append(Launch(training, model, job_options, task or TaskSettings()))
        return launches[-1]

    yield start
    for kind in KINDS.values():
        with contextlib.suppress(ApiError, StopIteration):  # a kind that the test took away
            for job in kubernetes_api.objects(kind.plural):
                kubernetes_api.delete(kind.plural, job["metadata"]["name"])
    for launched in launches:
        launched.wait()


@pytest.fixture
def own_pod(kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pod of the step, as KFP makes it known to the step."""
    spec = {"containers": [{"name": "main", "image": "x"}]}
    pod = kubernetes_api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step"}, "spec": spec})
    monkeypatch.setenv("KFP_POD_NAME", "step")
    monkeypatch.setenv("KFP_POD_UID", pod["metadata"]["uid"])
    return pod["metadata"]["uid"]


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    if job["kind"] == "TrainJob":
        return job["spec"]["trainer"]
    return job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]


# Ends well


@BACKENDS
def test_job_to_its_good_end(
    backend: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace, own_pod: str
) -> None:
    operator, launched = TrainingOperator(kubernetes_api, backend), launch(backend)
    job = operator.wait_for_job()
    assert re.fullmatch(r"train-cnn-[0-9a-f]{10}", job["metadata"]["name"])
    assert job["metadata"]["ownerReferences"][0]["uid"] == own_pod
    assert job["metadata"]["labels"]["pipeline/runid"] == RUN_ID
    assert launched.job.directory.endswith(f"/storage/runs/{RUN_ID}/{job['metadata']['name']}")
    pods = operator.start(job)
    kubernetes_api.write_log(pods[0], "epoch 1\nepoch 2")
    kubernetes_api.write_log(pods[1], "worker 1 of 2")
    launched.log.wait_for("worker-0 . epoch 2")
    leave_results(Path(launched.job.directory), trained)
    kubernetes_api.write_log(pods[0], "the last word")
    for pod in pods:
        operator.end(pod)
    operator.succeed(job)
    result = launched.result()
    assert result.card.model_type == "cnn"
    assert (launched.model / "1" / "saved_model.pb").is_file()
    for line in (
        "worker-0 | the last word",
        "worker-1 | worker 1 of 2",
        f"worker-1 (pod {pods[1]}): running on node-a",
    ):
        assert launched.log.lines_with(line) == 1, launched.log.text
    assert operator.jobs(), "an ended job is kept for a while"
    # What the worker is given is the job, with the data set's manifest where it can see it.
    given = TrainingJob.model_validate_json(container_of(job)["args"][1])
    assert Dataset(given.dataset).manifest.fingerprint == Dataset(launched.job.dataset).manifest.fingerprint
    assert given.dataset.startswith(launched.job.directory)


def test_step_that_is_run_again_takes_the_job_that_is_done(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    operator, first = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    leave_results(Path(first.job.directory), trained)
    operator.succeed(job)
    first.result()
    again = launch()
    assert again.result().card == trained.result.card
    assert [found["metadata"]["uid"] for found in operator.jobs()] == [job["metadata"]["uid"]]


@BACKENDS
def test_running_job_is_adopted(
    backend: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace, own_pod: str
) -> None:
    operator, first = TrainingOperator(kubernetes_api, backend), launch(backend)
    job = operator.wait_for_job()
    pods = operator.start(job)
    first.log.wait_for("running on node-a")
    os.environ["KFP_POD_UID"] = "another"  # restored by the fixture
    second = launch(backend)
    second.log.wait_for("adopted")
    kubernetes_api.write_log(pods[0], "both hear this")
    second.log.wait_for("worker-0 . both hear this")
    owners = kubernetes_api.wait_for(lambda: operator.jobs()[0]["metadata"]["ownerReferences"][1:] or None)
    assert owners[0]["uid"] == "another"
    assert len(operator.jobs()) == 1
    leave_results(Path(first.job.directory), trained)
    for pod in pods:
        operator.end(pod)
    operator.succeed(job)
    assert first.result().card == second.result().card


def test_job_of_the_same_name_with_another_spec_is_refused_and_left_alone(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator = TrainingOperator(kubernetes_api)
    launch()
    job = operator.wait_for_job()
    refused = launch(worker_cpu="3").failure(InvalidInput)
    assert "is there already with a different spec: delete it (kubectl delete tfjobs.kubeflow.org" in refused
    assert [found["metadata"]["uid"] for found in operator.jobs()] == [job["metadata"]["uid"]]


@pytest.mark.slow_on_real_api
@pytest.mark.parametrize("ended", ["failed", "without its model"])
def test_failed_job_is_started_anew(
    ended: str,
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
    trained: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.run_job.VISIBLE_SECONDS", 0.5)
    operator, first = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    if ended == "failed":
        operator.fail(job)
    else:
        operator.succeed(job)
    first.failure()
    second = launch()
    second.log.wait_for("started anew")
    anew = kubernetes_api.wait_for(
        lambda: [found for found in operator.jobs() if found["metadata"]["uid"] != job["metadata"]["uid"]]
    )[0]
    leave_results(Path(second.job.directory), trained)
    operator.succeed(anew)
    second.result()


def test_two_runs_share_nothing(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, first = TrainingOperator(kubernetes_api), launch()
    operator.wait_for_job()
    monkeypatch.setenv("RUN_ID", "another-run")
    second = launch()
    jobs = kubernetes_api.wait_for(lambda: operator.jobs() if len(operator.jobs()) == 2 else None)
    assert len({job["metadata"]["name"] for job in jobs}) == 2
    assert first.job.directory.split("/")[-2] == RUN_ID
    assert second.job.directory.split("/")[-2] == "another-run"


# Fails well


def test_failure_names_pod_code_and_last_lines(launch: Callable[..., Launch], kubernetes_api: KubernetesApi) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    pods = operator.start(job)
    kubernetes_api.write_log(pods[0], "another worker was lost")
    kubernetes_api.write_log(pods[1], "\n".join(f"line {index}" for index in range(30)) + "\nerror: shard x is altered")
    operator.end(pods[0], 138)
    operator.end(pods[1], 2)
    operator.fail(job)
    reason = launched.failure()
    first, *lines = reason.splitlines()
    assert first == (
        f"TFJob {job['metadata']['name']} failed: 1 Worker replica(s) failed; worker-1 (pod {pods[1]}): "
        "exited with code 2; its last lines:"
    )
    assert lines[-1] == "  error: shard x is altered"
    assert len(lines) == 15


@pytest.mark.slow_on_real_api
def test_success_without_a_model_is_a_failure(
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
    trained: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.run_job.VISIBLE_SECONDS", 1.0)
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    leave_results(Path(launched.job.directory), trained)
    Path(launched.job.directory, "model").rename(Path(launched.job.directory, "model.partial"))
    operator.succeed(job)
    assert "the job is done, but there is no model in" in launched.failure()


def test_worker_out_of_memory_fails_after_its_restarts(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch(max_restarts=1)
    job = operator.wait_for_job()
    operator.start(job)
    name = job["metadata"]["name"]
    for start in range(2):
        operator.end(f"{name}-worker-1", 137, "OOMKilled")
        launched.log.wait_for(rf"(?s)(worker-1 .pod \S+ OOMKilled.*){{{start + 1}}}")
        operator.end(f"{name}-worker-0", 138)
        for index in (0, 1):  # as the operator does for an exit code from 128 on
            kubernetes_api.delete("pods", f"{name}-worker-{index}")
            operator.run(operator.make_pod(job, index))
    reason = launched.failure()
    assert "failed after max_restarts = 1 restarts; worker-1" in reason
    assert "OOMKilled (exit code 137): it needed more memory than its limit; raise worker_memory" in reason
    assert "restart 1 of 1 from the last checkpoint" in launched.log.text
    assert operator.jobs() == [], "the job is deleted, or its operator would go on restarting it"
    assert kubernetes_api.objects("pods") == []


def test_evicted_worker_is_told_and_the_job_goes_on(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    operator, launched = TrainingOperator(kubernetes_api, "trainjob"), launch("trainjob")
    job = operator.wait_for_job()
    pods = operator.start(job)
    operator.evict(pods[1], "The node was low on resource: memory.")
    operator.end(pods[0], 138)
    launched.log.wait_for("worker-1 .* Evicted: The node was low on resource: memory")
    for pod in pods:
        kubernetes_api.delete("pods", pod)
    pods = operator.start(job)
    launched.log.wait_for("restart 1 of 3 from the last checkpoint")
    leave_results(Path(launched.job.directory), trained)
    for pod in pods:
        operator.end(pod)
    operator.succeed(job)
    launched.result()


DISRUPTIONS = [
    ("EvictionByEvictionAPI", "Eviction API: evicting"),
    ("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
    ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
    ("", "the pod was deleted"),
]


def drained(operator: TrainingOperator, pods: list[str], reason: str = "", message: str = "") -> None:
    """A pod is told to go; its peer leaves with it, both having saved, and the kubelet lets the pod go."""
    operator.tell_to_go(pods[1], reason, message)
    operator.api.wait_for(lambda: "Failed" in str(operator.jobs()[0].get("status")), 10)
    for pod in pods:
        operator.let_go(pod)


def anew(operator: TrainingOperator, job: dict[str, Any]) -> dict[str, Any]:
    """The job that was made in place of another."""
    return operator.api.wait_for(
        lambda: [found for found in operator.jobs() if found["metadata"]["uid"] != job["metadata"]["uid"]], 40
    )[0]


def run_to_the_end(operator: TrainingOperator, job: dict[str, Any], launched: Launch, trained: SimpleNamespace) -> None:
    pods = operator.wait_for_pods(job)
    for pod in pods:
        operator.run(pod)
    leave_results(Path(launched.job.directory), trained)
    for pod in pods:
        operator.end(pod)
    launched.result()


@pytest.mark.slow_on_real_api
@pytest.mark.parametrize(("reason", "message"), DISRUPTIONS)
def test_drained_node_costs_a_tfjob_one_restart(
    reason: str, message: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    """The Training Operator calls a job failed for good when one of its pods is told to go."""
    operator, launched = TrainingOperator(kubernetes_api), launch(max_restarts=1)
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        for pod in pods:
            operator.run(pod)
        launched.log.wait_for("worker-1 .* running on node-a")
        drained(operator, pods, reason, message)
        again = anew(operator, job)
        assert again["metadata"]["name"] == job["metadata"]["name"]
        assert again["spec"] == job["spec"]
        run_to_the_end(operator, again, launched, trained)
    why = f"{reason}: {message}" if reason else message
    words = f"worker-1 (pod {pods[1]}) had to go: {why}; restart 1 of 1 from the last checkpoint: the job is made anew"
    assert launched.log.text.count(words) == 1, launched.log.text


def test_pod_that_is_deleted_by_force_costs_a_tfjob_one_restart(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    """Seen on the real operator: it counts a pod that is gone at once as one that failed, too."""
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    pods = operator.start(job)
    launched.log.wait_for("worker-1 .* running on node-a")
    kubernetes_api.delete("pods", pods[1])
    operator.fail(job, f"TFJob kubeflow/{job['metadata']['name']} has failed because 1 Worker replica(s) failed.")
    kubernetes_api.delete("pods", pods[0])
    again = anew(operator, job)
    with operator.at_work():
        run_to_the_end(operator, again, launched, trained)
    assert "had to go: the pod was deleted; restart 1 of 3" in launched.log.text


@pytest.mark.slow_on_real_api
def test_drained_nodes_cost_no_more_than_max_restarts(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch(max_restarts=1)
    with operator.at_work():
        job = operator.wait_for_job()
        for start in (1, 2):
            pods = operator.wait_for_pods(job)
            for pod in pods:
                operator.run(pod)
            launched.log.wait_for(rf"(?ms)(^worker-1 \(pod {pods[1]}\): running on node-a$.*){{{start}}}")
            drained(operator, pods, "EvictionByEvictionAPI", "evicting")
            job = anew(operator, job) if start == 1 else job
        reason = launched.failure()
    assert "replica(s) failed" in reason
    assert f"worker-1 (pod {pods[1]}) had to go: EvictionByEvictionAPI: evicting" in reason


def test_permanent_failure_stays_one_though_the_operator_deletes_the_others(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch()
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        for pod in pods:
            operator.run(pod)
        launched.log.wait_for("worker-1 .* running on node-a")
        operator.end(pods[1], 2)
        assert "worker-1" in launched.failure()
    assert "exited with code 2" in launched.log.text
    assert "made anew" not in launched.log.text


@pytest.mark.slow
@pytest.mark.slow_on_real_api
def test_lost_node_keeps_its_pod_and_the_job_gets_another_name_that_a_restarted_launcher_finds(
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
    trained: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.kubernetes_launcher.GONE_SECONDS", 1.0)
    operator, launched = TrainingOperator(kubernetes_api), launch()
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        for pod in pods:
            operator.run(pod)
        launched.log.wait_for("worker-1 .* running on node-a")
        # The node does not answer: nobody lets the pod go.
        operator.tell_to_go(pods[1], "DeletionByTaintManager", "deleting due to NoExecute taint")
        again = anew(operator, job)
        assert again["metadata"]["name"] == f"{job['metadata']['name']}-2"
        second = launch()
        second.log.wait_for(f"adopted TFJob {again['metadata']['name']} ")
        run_to_the_end(operator, again, launched, trained)
        assert second.result().card == trained.result.card
    assert [pod["metadata"]["name"] for pod in kubernetes_api.objects("pods") if "finalizers" in pod["metadata"]] == [
        pods[1]
    ]


@pytest.mark.slow
@pytest.mark.slow_on_real_api
def test_lost_node_of_a_trainjob_is_noticed_by_the_launcher(
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
    trained: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else does: the Job waits for the end of a pod that is told to go."""
    launchers = "kfp_image_classification.components.train.launchers"
    monkeypatch.setattr(f"{launchers}.kubernetes_launcher.GONE_SECONDS", 1.0)
    monkeypatch.setattr(f"{launchers}.job_progress.LOST_NODE_SECONDS", 1.0)
    monkeypatch.setattr(f"{launchers}.pod_status.DEFAULT_GRACE_SECONDS", 0)
    operator, launched = TrainingOperator(kubernetes_api, "trainjob"), launch("trainjob")
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        for pod in pods:
            operator.run(pod)
        launched.log.wait_for("worker-1 .* running on node-a")
        operator.tell_to_go(pods[1], "DeletionByTaintManager", "deleting due to NoExecute taint")
        run_to_the_end(operator, anew(operator, job), launched, trained)
    assert "does not go, its node may be lost: DeletionByTaintManager" in launched.log.text


@pytest.mark.slow_on_real_api
@pytest.mark.parametrize("max_restarts", [1, 3])
def test_one_fault_of_a_trainjob_is_one_restart(
    max_restarts: int, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    """It was counted three times: a late change of a pod that was replaced already counted as a new pod."""
    operator, launched = TrainingOperator(kubernetes_api, "trainjob"), launch("trainjob", max_restarts=max_restarts)
    job = operator.wait_for_job()
    pods = operator.start(job)
    launched.log.wait_for("worker-1 .* running on node-a")
    for pod, code in zip(pods, (138, 137), strict=True):
        operator.end(pod, code)
    again = operator.start(job)
    launched.log.wait_for("restart 1 of")
    for pod in pods:  # what a Job does to pods that have ended: it takes its finalizer away, and removes them later
        kubernetes_api.update("pods", pod, lambda item: {**item, "metadata": {**item["metadata"], "finalizers": []}})
        kubernetes_api.update(
            "pods", pod, lambda item: {**item, "metadata": {**item["metadata"], "annotations": {"late": "1"}}}
        )
        kubernetes_api.delete("pods", pod)
    leave_results(Path(launched.job.directory), trained)
    for pod in again:
        operator.end(pod)
    operator.succeed(job)
    launched.result()
    assert launched.log.text.count("restart 1 of") == 1
    assert "restart 2 of" not in launched.log.text


@pytest.mark.slow_on_real_api
@BACKENDS
def test_program_that_is_not_in_the_image_is_not_tried_again(
    backend: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator, launched = TrainingOperator(kubernetes_api, backend), launch(backend)
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        launched.log.wait_for(f"pod {pods[1]}.: waiting to be scheduled")
        operator.end(pods[1], 128, "StartError", 'exec: "python": executable file not found in $PATH')
        reason = launched.failure()
    assert 'StartError (exit code 128): exec: "python": executable file not found in $PATH' in reason
    assert launched.log.text.count("created T") == 1


@pytest.mark.slow_on_real_api
@pytest.mark.parametrize("why", ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"])
def test_container_that_cannot_be_made_is_not_waited_for(
    why: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.job_progress.CANNOT_START_SECONDS", 0.5)
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    pod = operator.make_pod(job, 0)
    operator.make_pod(job, 1)
    operator.wait_in(pod, why, "it says what is wrong")
    assert launched.failure() == f"worker-0 (pod {pod}) cannot start: {why}: it says what is wrong"
    assert operator.jobs() == []


@BACKENDS
def test_job_that_is_deleted_starts_no_new_pods(
    backend: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer goes on making them while the TrainJob is there."""
    monkeypatch.setattr("kfp_image_classification.components.train.launchers.job_progress.CANNOT_START_SECONDS", 0.5)
    operator, launched = TrainingOperator(kubernetes_api, backend), launch(backend)
    with operator.at_work():
        job = operator.wait_for_job()
        pods = operator.wait_for_pods(job)
        for pod in pods:
            operator.keep(pod)
        operator.wait_in(pods[1], "InvalidImageName", "it says what is wrong")
        launched.log.wait_for("deleting T")
        kubernetes_api.wait_for(
            lambda: all("deletionTimestamp" in pod["metadata"] for pod in kubernetes_api.objects("pods"))
        )
        for pod in pods:
            operator.let_go(pod)
        launched.failure()
        assert operator.jobs() == []
        assert kubernetes_api.objects("pods") == []


@pytest.mark.slow_on_real_api
def test_error_names_the_worker_without_memory_and_not_its_peer(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch(max_restarts=0)
    job = operator.wait_for_job()
    pods = operator.start(job)
    kubernetes_api.write_log(pods[0], "epoch 1")
    launched.log.wait_for("worker-0 . epoch 1")
    operator.end(pods[0], 137, "OOMKilled")
    launched.log.wait_for("worker-0 .* OOMKilled")
    kubernetes_api.delete("pods", pods[0])
    operator.end(pods[1], 138)
    operator.make_pod(job, 0)
    reason = launched.failure()
    assert reason.startswith(
        f"TFJob {job['metadata']['name']} failed after max_restarts = 0 restarts; worker-0 (pod {pods[0]}): OOMKilled "
        "(exit code 137): it needed more memory than its limit; raise worker_memory"
    )


@pytest.mark.slow_on_real_api
@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (
            lambda operator, pod: operator.unschedulable(pod, "0/3 nodes are available: 3 Insufficient cpu."),
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            lambda operator, pod: operator.wait_in(pod, "ImagePullBackOff", 'Back-off pulling image "x"'),
            'ImagePullBackOff: Back-off pulling image "x"',
        ),
        (
            lambda operator, pod: (
                operator.wait_in(pod, "ContainerCreating"),
                operator.api.add_event("pods", pod, "FailedMount", 'persistentvolumeclaim "claim" not found'),
            ),
            'starting; last warning: FailedMount: persistentvolumeclaim "claim" not found',
        ),
    ],
    ids=["unschedulable", "image", "volume"],
)
def test_job_that_can_never_start(
    happens: Callable[[TrainingOperator, str], Any],
    expected: str,
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch(job={"start_seconds": 2})
    job = operator.wait_for_job()
    operator.run(operator.make_pod(job, 0))
    happens(operator, operator.make_pod(job, 1))
    launched.log.wait_for(re.escape(expected.rsplit("; last warning: ")[-1]))
    pod = f"{job['metadata']['name']}-worker-1"
    assert launched.failure() == f"worker-1 (pod {pod}) did not start within job.start_seconds = 2: {expected}"
    assert operator.jobs() == []


@pytest.mark.slow_on_real_api
def test_job_that_gets_no_pods(launch: Callable[..., Launch], kubernetes_api: KubernetesApi) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch(job={"start_seconds": 2})
    job = operator.wait_for_job()
    kubernetes_api.add_event("tfjobs", job["metadata"]["name"], "FailedCreatePod", "exceeded quota: cpu")
    assert "got no pod within job.start_seconds = 2; last warning: FailedCreatePod: exceeded quota: cpu" in (
        launched.failure()
    )


@pytest.mark.slow_on_real_api
def test_job_that_waits_in_a_queue_may_wait(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    operator, launched = TrainingOperator(kubernetes_api, "trainjob"), launch("trainjob", job={"start_seconds": 1})
    job = operator.wait_for_job()
    operator.suspend(job)
    launched.log.wait_for("suspended: waits in a queue")
    threading.Event().wait(2.0)
    leave_results(Path(launched.job.directory), trained)
    operator.succeed(job)
    launched.result()


def test_job_deleted_by_somebody(launch: Callable[..., Launch], kubernetes_api: KubernetesApi) -> None:
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    operator.start(job)
    launched.log.wait_for("running on")
    kubernetes_api.delete("tfjobs", job["metadata"]["name"])
    assert "was deleted while it ran" in launched.failure()


# Refused


@pytest.mark.parametrize(
    ("prepare", "error", "expected"),
    [
        (
            lambda api: api.admission.append(
                lambda resource, item: (
                    '"validator.tfjob.training-operator.kubeflow.org" denied the request: spec.tfReplicaSpecs[Worker]: '
                    "must be > 0"
                )
            ),
            InvalidInput,
            r'job: TFJob train-cnn-\S+ was refused: admission webhook "validator.tfjob.training-operator.kubeflow.org" '
            "denied the request: spec.tfRep",
        ),
        (
            lambda api: api.forbid("create", "tfjobs"),
            StageFailed,
            r"cannot create resource \"tfjobs\" .* the step's service account needs this permission",
        ),
        (
            lambda api: api.delete("customresourcedefinitions", "tfjobs.kubeflow.org"),
            StageFailed,
            r"does not know TFJob \(kubeflow.org/v1\): is the Training Operator installed\?",
        ),
    ],
    ids=["webhook", "permission", "no operator"],
)
def test_refusals_in_words(
    prepare: Callable[[KubernetesApi], Any],
    error: type[Exception],
    expected: str,
    launch: Callable[..., Launch],
    kubernetes_api: KubernetesApi,
) -> None:
    prepare(kubernetes_api)
    assert re.search(expected, launch().failure(error))


def test_missing_runtime_is_named_with_what_brings_it(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    refused = launch("trainjob", job={"runtime": "other"}).failure(InvalidInput)
    assert refused.startswith(
        "job.runtime = 'other': the cluster has no ClusterTrainingRuntime of that name; kubectl apply -k "
        "manifests/trainer brings this project's own (admission webhook"
    )
    assert kubernetes_api.objects("trainjobs") == []


def test_credentials_that_are_refused(launch: Callable[..., Launch], kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.write_kubeconfig(Path(os.environ["KUBECONFIG"]), token="another")
    assert "the cluster's API cannot be used: Unauthorized (HTTP 401)" in launch().failure()


def test_without_a_shared_volume_nothing_is_created(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    assert "pvc = '': the workers' pods do not share" in launch(pvc="").failure(InvalidInput)
    assert kubernetes_api.objects("tfjobs") == []


def test_claim_that_contradicts_the_mounted_one_is_refused(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, storage: Path
) -> None:
    task = TaskSettings(
        volumes=[{"name": "pvc-1", "persistentVolumeClaim": {"claimName": "mounted"}}],
        volume_mounts=[{"name": "pvc-1", "mountPath": str(storage)}],
    )
    assert f"pvc = 'claim': the step has the claim 'mounted' at {storage}" in launch(task=task).failure(InvalidInput)
    assert kubernetes_api.objects("tfjobs") == []


def test_workers_that_would_give_their_peers_up_before_these_may_start_are_refused(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    refused = launch(peer_seconds=300, job={"start_seconds": 1800}).failure(InvalidInput)
    assert refused == (
        "peer_seconds = 300: a worker would give its peers up before job.start_seconds = 1800, in which their pods may "
        "start; give at least 1860, or 0 for that"
    )
    assert kubernetes_api.objects("tfjobs") == []


def test_without_a_cluster(
    launch: Callable[..., Launch], monkeypatch: pytest.MonkeyPatch, kubernetes_api: KubernetesApi
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert "no cluster can be reached: this is not a pod, and the kubeconfig" in launch().failure(InvalidInput)


# The API's faults


@pytest.mark.fake_api
def test_a_token_that_runs_out_during_an_outage_is_read_anew(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    kubernetes_api.fail(verb="create", status=503, times=2)
    kubernetes_api.fail(verb="create", status=401)
    kubernetes_api.fail(verb="create", status=503)
    launch()
    assert TrainingOperator(kubernetes_api).wait_for_job()


@pytest.mark.fake_api
def test_job_is_followed_through_every_fault_of_the_api(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    kubernetes_api.fail(verb="create", status=500, times=2)
    kubernetes_api.fail(verb="list", status=429, headers={"Retry-After": "0.2"})
    kubernetes_api.fail(verb="watch", status=503, times=3)
    kubernetes_api.fail(verb="watch", path="pods", after_events=2)
    operator, launched = TrainingOperator(kubernetes_api), launch()
    job = operator.wait_for_job()
    pods = operator.start(job)
    kubernetes_api.fail(verb="log", status=0)
    launched.log.wait_for("worker-1 .* running")
    kubernetes_api.write_log(pods[0], "\n".join(f"line {index}" for index in range(5)))
    launched.log.wait_for("worker-0 . line 4")
    kubernetes_api.fail(verb="watch", status=401)
    kubernetes_api.fail(verb="watch", status=0, times=2)
    kubernetes_api.fail(verb="log", after_events=1)
    kubernetes_api.drop_streams()
    kubernetes_api.write_log(pods[0], "\n".join(f"line {index}" for index in range(5, 10)))
    launched.log.wait_for("worker-0 . line 9")
    kubernetes_api.store.forget_history()
    kubernetes_api.fail(verb="watch", gone=True, times=2)
    kubernetes_api.drop_streams()
    leave_results(Path(launched.job.directory), trained)
    for pod in pods:
        operator.end(pod)
    operator.succeed(job)
    launched.result()
    for index in range(10):
        assert launched.log.lines_with(f"worker-0 | line {index}") == 1, launched.log.text
    assert len([request for request in kubernetes_api.requests if request[0] == "create"]) == 3
    assert "trying again in" in launched.log.text


def test_permission_lost_on_the_way_fails_in_words(
    launch: Callable[..., Launch], kubernetes_api: KubernetesApi
) -> None:
    kubernetes_api.forbid("list", "pods")
    reason = launch().failure()
    assert re.search(r'TFJob \S+ cannot be followed: pods is forbidden: .* cannot list resource "pods"', reason)
    assert kubernetes_api.objects("tfjobs") == []


# The launcher itself goes


PROGRAM = """
import sys
from pathlib import Path
from kfp_image_classification.components.step.errors import reported
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.run_job import run_job
with reported("train"):
    job = TrainingJob.model_validate_json(sys.argv[1])
    run_job(job, Path(sys.argv[2]), stage_log("train"), JobOptions(pvc="claim"))
"""


def launcher_process(job: TrainingJob, model: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, job.model_dump_json(), str(model)], stdout=subprocess.PIPE, text=True
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError("".join(lines))


@pytest.fixture
def cluster_job(storage: Path, digits: Dataset, train_options: TrainOptions) -> TrainingJob:
    options = train_options.model_copy(update={"backend": "tfjob"})
    directory = job_directory(options, str(digits.directory), storage / "model", "")
    return TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory), run=RUN_ID)


def test_terminated_launcher_deletes_its_job(
    cluster_job: TrainingJob, kubernetes_api: KubernetesApi, tmp_path: Path
) -> None:
    operator, process = TrainingOperator(kubernetes_api), launcher_process(cluster_job, tmp_path / "model")
    operator.start(operator.wait_for_job())
    read_until(process, "running on")
    process.send_signal(signal.SIGTERM)
    read_until(process, r"told to end: deleting its job and pods; started again, the training goes on from")
    read_until(process, "deleting TFJob")
    assert process.wait(30) == 143
    assert operator.jobs() == []
    assert kubernetes_api.objects("pods") == []


def test_killed_launcher_leaves_a_job_that_goes_with_its_pod_or_is_adopted(
    cluster_job: TrainingJob, kubernetes_api: KubernetesApi, own_pod: str, tmp_path: Path, trained: SimpleNamespace
) -> None:
    operator, process = TrainingOperator(kubernetes_api), launcher_process(cluster_job, tmp_path / "model")
    job = operator.wait_for_job()
    operator.start(job)
    read_until(process, "running on")
    process.kill()
    process.wait()
    assert len(operator.jobs()) == 1
    again = launcher_process(cluster_job, tmp_path / "model")
    read_until(again, "adopted TFJob")
    again.kill()
    again.wait()
    kubernetes_api.delete("pods", "step")
    kubernetes_api.wait_for(lambda: operator.jobs() == [] and kubernetes_api.objects("pods") == [])


# Really trained


@pytest.mark.fake_api  # the training is what counts
@skip_unless(hasattr(os, "sched_setaffinity"), Need.SYSTEM, "this system cannot pin processes to cores")
# Workers are told the same by both.
@pytest.mark.parametrize("backend", ["tfjob", pytest.param("trainjob", marks=pytest.mark.slow)])
def test_real_workers_of_the_manifest(
    backend: str, launch: Callable[..., Launch], kubernetes_api: KubernetesApi, trained: SimpleNamespace
) -> None:
    """Starts the container of the manifest as a process, with the environment that the cluster would give it."""
    operator, launched = TrainingOperator(kubernetes_api, backend), launch(backend)
    job = operator.wait_for_job()
    pods = operator.start(job)
    container = container_of(job)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for index, pod in enumerate(pods):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {item["name"]: item["value"] for item in container["env"]}
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:], *container["args"]],
            env={**os.environ, **env, "TF_CONFIG": json.dumps(config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A core each, as the local backend does: how many cores add up a sum decides its last bits.
        os.sched_setaffinity(process.pid, [cores[index % len(cores)]])
        threading.Thread(target=pass_on, args=(process, kubernetes_api, pod), daemon=True).start()
        processes.append(process)
    for pod, process in zip(pods, processes, strict=True):
        operator.end(pod, process.wait(120))
    operator.succeed(job)
    result = launched.result()
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert "worker-0 | epoch  3/3" in launched.log.text
    assert weights(launched.job) == weights(trained.job), "as the same job on the local backend"


def weights(job: TrainingJob) -> str:
    return WorkerReport.model_validate_json(WorkerReport.path(job.directory, 0).read_text()).weights_sha256


def pass_on(process: subprocess.Popen[str], api: KubernetesApi, pod: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        api.write_log(pod, line.rstrip())
