"""The cluster's side of a training job, done by a test step by step: what an operator, a scheduler and a kubelet do."""

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kubernetes_api import KubernetesApi

from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.tfjob import TFJOB
from kfp_image_classification.components.train.launchers.trainjob import TRAINJOB

KINDS = {"tfjob": TFJOB, "trainjob": TRAINJOB}
NODE = "node-a"


class TrainingOperator:
    """Plays the Training Operator, or Kubeflow Trainer with JobSet, on a test's API."""

    def __init__(self, api: KubernetesApi, backend: str = "tfjob") -> None:
        self.api = api
        self.kind: JobKind = KINDS[backend]
        self._made = itertools.count()

    def wait_for_job(self) -> dict[str, Any]:
        return self.api.wait_for(lambda: self.api.objects(self.kind.plural), 30)[0]

    def jobs(self) -> list[dict[str, Any]]:
        return self.api.objects(self.kind.plural)

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
        self.api.update("pods", pod, lambda item: {**item, "spec": {**item["spec"], "nodeName": NODE}})
        self._container(pod, "Running", {"running": {}})

    def end(self, pod: str, code: int = 0, reason: str = "") -> None:
        reason = reason or ("Completed" if code == 0 else "Error")
        phase = "Failed" if code else "Succeeded"
        self._container(pod, phase, {"terminated": {"exitCode": code, "reason": reason}})

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


def leave_results(directory: Path, trained: SimpleNamespace) -> None:
    """Leaves in a job's folder what real workers have left in another's: reports, history, model."""
    source = Path(trained.job.directory)
    shutil.copytree(source / "reports", directory / "reports")
    shutil.copyfile(source / "history.jsonl", directory / "history.jsonl")
    shutil.copytree(trained.model, directory / "model")
