"""The cluster's side of a training job: what an operator, a scheduler and a kubelet do.

A test does it step by step, or lets the operator work by itself (`at_work`). What it does then was read in the sources
and seen: on 2026-11-26 the Training Operator 1.9.4, JobSet 0.12 and Trainer 2.3 ran against a real API server, with the
pods' status set as a kubelet would.
"""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from kubernetes_api import KubernetesApi
from kubernetes_api.store import ApiError
from repository import REPOSITORY

from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.tfjob import TFJOB
from kfp_image_classification.components.train.launchers.trainjob import TRAINJOB

KINDS = {"tfjob": TFJOB, "trainjob": TRAINJOB}
NODE = "node-a"
RUNTIME = REPOSITORY / "manifests" / "trainer" / "training-runtime.yaml"
# Keeps a pod that is told to go, as a kubelet does until its containers have ended.
KUBELET = "test/kubelet"
NO_EXIT_CODE = 0xBEEF


class TrainingOperator:
    """Plays the Training Operator, or Kubeflow Trainer with JobSet, on a test's API."""

    def __init__(self, api: KubernetesApi, backend: str = "tfjob") -> None:
        self.api = api
        self.kind: JobKind = KINDS[backend]
        self._made = itertools.count()
        if backend == "trainjob" and not api.objects("clustertrainingruntimes", ""):
            api.create(yaml.safe_load(RUNTIME.read_text()))

    def wait_for_job(self) -> dict[str, Any]:
        return self.api.wait_for(lambda: self.api.objects(self.kind.plural), 30)[0]

    def jobs(self) -> list[dict[str, Any]]:
        return self.api.objects(self.kind.plural)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Lets the operator work by itself: it makes pods, and acts on what becomes of them."""

        def reconcile(_: object) -> None:
            for job in self.jobs():
                with contextlib.suppress(ApiError):  # changed or gone meanwhile: the next change is on its way
                    self._reconcile(job)

        with self.api.controller(self.kind.plural, reconcile), self.api.controller("pods", reconcile):
            yield

    def wait_for_pods(self, job: dict[str, Any], workers: int = 2) -> list[str]:
        """Waits until a job has pods that nobody has started yet; returns their names."""

        def pending() -> list[str]:
            found = [pod["metadata"]["name"] for pod in self._pods_of(job) if pod["status"].get("phase") == "Pending"]
            return found if len(found) == workers else []

        return list(self.api.wait_for(pending, 30))

    def tell_to_go(self, pod: str, reason: str = "", message: str = "") -> None:
        """Deletes a pod that its kubelet keeps; a reason is that of an eviction, a preemption or a lost node."""

        def change(item: dict[str, Any]) -> dict[str, Any]:
            if reason:
                condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
                item["status"]["conditions"] = [*item["status"].get("conditions", []), condition]
            return item

        self.keep(pod)
        self.api.update("pods", pod, change)
        self.api.delete("pods", pod)

    def keep(self, pod: str) -> None:
        """Lets a pod that will be told to go be there until `let_go`, as a kubelet does."""

        def change(item: dict[str, Any]) -> dict[str, Any]:
            item["metadata"]["finalizers"] = [KUBELET]
            return item

        self.api.update("pods", pod, change)

    def let_go(self, pod: str) -> None:
        """The kubelet says that the containers have ended."""

        def change(item: dict[str, Any]) -> dict[str, Any]:
            item["metadata"].pop("finalizers", None)
            return item

        with contextlib.suppress(ApiError):
            self.api.update("pods", pod, change)

    def _pods_of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        uid = job["metadata"]["uid"]
        return [
            pod
            for pod in self.api.objects("pods")
            if uid in {o["uid"] for o in pod["metadata"].get("ownerReferences", [])}
        ]

    def _reconcile(self, job: dict[str, Any]) -> None:
        if self.kind is TFJOB:
            self._reconcile_tfjob(job)
        else:
            self._reconcile_trainjob(job)

    def _reconcile_tfjob(self, job: dict[str, Any]) -> None:
        """ReconcileJobs and ReconcilePods in pkg/controller.v1/common of the Training Operator, and UpdateJobStatus in
        pkg/controller.v1/tensorflow/tfjob_controller.go, whose Reconcile leaves a job alone that is told to go."""
        if "deletionTimestamp" in job["metadata"]:
            return
        pods, name = self._pods_of(job), job["metadata"]["name"]
        if _is_finished(job):  # DeletePodsAndServices, with cleanPodPolicy Running
            for pod in pods:
                if pod["status"].get("phase") in ("Running", "Pending"):
                    self._delete(pod)
            return
        workers = sum(spec["replicas"] for spec in job["spec"]["tfReplicaSpecs"].values())
        wanted = {self._pod(job, index)[0]: index for index in range(workers)}
        for missing in wanted.keys() - {pod["metadata"]["name"] for pod in pods}:
            self.make_pod(job, wanted[missing])
        failed, succeeded, is_restarting = 0, 0, False
        for pod in pods:
            phase = pod["status"].get("phase")
            failed += phase == "Failed" or (phase == "Running" and "deletionTimestamp" in pod["metadata"])
            succeeded += phase == "Succeeded"
            if phase == "Failed":
                if _exit_code(pod, self.kind.container, NO_EXIT_CODE) >= 128:
                    is_restarting = True
                    self._delete(pod)
                else:
                    self.fail(job, f'job "{name}" is failing because "Worker" replica(s) failed.')
                    return
        if succeeded == workers:
            self._condition(job, "Succeeded", f"TFJob kubeflow/{name} successfully completed.")
        elif failed and not is_restarting:
            self.fail(job, f"TFJob kubeflow/{name} has failed because {failed} Worker replica(s) failed.")

    def _reconcile_trainjob(self, job: dict[str, Any]) -> None:
        """Trainer, JobSet (executeFailurePolicy in pkg/controllers/failure_policy.go) and the Job controller, with the
        runtime in manifests/trainer: a worker that is lost costs the whole Job, which is made anew at once. Trainer
        makes the JobSet anew also of a TrainJob that is to go: Reconcile in pkg/controller/trainjob_controller.go."""
        pods, name = self._pods_of(job), job["metadata"]["name"]
        if "deletionTimestamp" in job["metadata"]:
            pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if _is_finished(job):
            return
        failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
        permanent = [pod for pod in failed if 0 < _exit_code(pod, self.kind.container, NO_EXIT_CODE) <= 128]
        if permanent:
            message = f"applying FailJobSet failure policy action (first failed job: {name}-node-0)"
            self._condition(job, "Failed", message)
        for pod in pods if failed else []:
            if not permanent or pod not in failed:
                self._delete(pod)
        if not pods:
            for index in range(job["spec"]["trainer"]["numNodes"]):
                self.make_pod(job, index)
        if pods and all(pod["status"].get("phase") == "Succeeded" for pod in pods):
            self._condition(job, "Complete", "jobset completed successfully")

    def _delete(self, pod: dict[str, Any]) -> None:
        with contextlib.suppress(ApiError):
            if "deletionTimestamp" not in pod["metadata"]:
                self.api.delete("pods", pod["metadata"]["name"])

    def make_pod(self, job: dict[str, Any], index: int, attempt: int = 0) -> str:
        """Makes a worker's pod, as the manifest wants it; returns its name."""
        name, labels, spec = self._pod(job, index)
        owner = {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        }
        self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
                "spec": spec,
                "status": {"phase": "Pending"},
            }
        )
        return name

    def start(self, job: dict[str, Any], workers: int = 2) -> list[str]:
        """Makes all pods and runs them."""
        pods = [self.make_pod(job, index) for index in range(workers)]
        for pod in pods:
            self.run(pod)
        return pods

    def unschedulable(self, pod: str, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self.api.set_status("pods", pod, {"phase": "Pending", "conditions": [condition]})

    def wait_in(self, pod: str, reason: str, message: str = "") -> None:
        self._container(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    def run(self, pod: str) -> None:
        self.api.bind(pod, NODE)
        self._container(pod, "Running", {"running": {}})

    def end(self, pod: str, code: int = 0, reason: str = "", message: str = "") -> None:
        reason = reason or ("Completed" if code == 0 else "Error")
        phase = "Failed" if code else "Succeeded"
        told = {"message": message} if message else {}
        self._container(pod, phase, {"terminated": {"exitCode": code, "reason": reason, **told}})

    def evict(self, pod: str, message: str) -> None:
        self.api.set_status("pods", pod, {"phase": "Failed", "reason": "Evicted", "message": message})

    def succeed(self, job: dict[str, Any]) -> None:
        self._condition(job, "Succeeded" if self.kind is TFJOB else "Complete", "the job is done")

    def fail(self, job: dict[str, Any], message: str = "1 Worker replica(s) failed") -> None:
        self._condition(job, "Failed", message)

    def suspend(self, job: dict[str, Any]) -> None:
        self._condition(job, "Suspended", "waits in a queue")

    def _condition(self, job: dict[str, Any], kind: str, message: str) -> None:
        condition = {
            "type": kind,
            "status": "True",
            "reason": f"Job{kind}",
            "message": message,
            "lastTransitionTime": "2026-11-24T12:00:00Z",
        }
        self.api.set_status(self.kind.plural, job["metadata"]["name"], {"conditions": [condition]})

    def _container(self, pod: str, phase: str, state: dict[str, Any]) -> None:
        statuses = [{"name": self.kind.container, "state": state}]
        scheduled = [{"type": "PodScheduled", "status": "True"}]
        self.api.set_status("pods", pod, {"phase": phase, "containerStatuses": statuses, "conditions": scheduled})

    def _pod(self, job: dict[str, Any], index: int) -> tuple[str, dict[str, str], dict[str, Any]]:
        name, spec = job["metadata"]["name"], job["spec"]
        if self.kind is TFJOB:
            has_chief = "Chief" in spec["tfReplicaSpecs"]
            role, index = ("Chief", 0) if has_chief and index == 0 else ("Worker", index - has_chief)
            template = spec["tfReplicaSpecs"][role]["template"]
            labels = {
                "training.kubeflow.org/job-name": name,
                "training.kubeflow.org/replica-type": role.lower(),
                "training.kubeflow.org/replica-index": str(index),
            }
            return f"{name}-{role.lower()}-{index}", {**template["metadata"]["labels"], **labels}, template["spec"]
        replicated = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
        template = replicated["template"]["spec"]["template"]
        labels = {
            "jobset.sigs.k8s.io/jobset-name": name,
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        container = {**template["spec"]["containers"][0], **spec["trainer"]}
        pod = f"{name}-node-0-{index}-{next(self._made):05d}"
        return pod, {**template["metadata"]["labels"], **labels}, {**template["spec"], "containers": [container]}


def _is_finished(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] in ("Succeeded", "Complete", "Failed") for condition in conditions)


def _exit_code(pod: dict[str, Any], container: str, default: int) -> int:
    for status in pod["status"].get("containerStatuses", []):
        if status["name"] == container and "terminated" in status["state"]:
            return int(status["state"]["terminated"]["exitCode"])
    return default


def leave_results(directory: Path, trained: SimpleNamespace) -> None:
    """Leaves in a job's folder what real workers have left in another's: reports, history, model."""
    source = Path(trained.job.directory)
    shutil.copytree(source / "reports", directory / "reports")
    shutil.copyfile(source / "history.jsonl", directory / "history.jsonl")
    shutil.copytree(trained.model, directory / "model")
