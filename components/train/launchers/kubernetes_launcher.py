"""Runs a training job on a cluster: creates or adopts it, follows it to its end, and leaves none behind."""

import contextlib
import hashlib
import json
import logging
import time
from pathlib import Path

from kubernetes.client import ApiClient, ApiException

from kfp_image_classification.components.cluster.kubernetes_client import (
    CONFLICT,
    FORBIDDEN,
    NOT_FOUND,
    UNAUTHORIZED,
    explained,
    own_namespace,
)
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.train.attempts import note_end
from kfp_image_classification.components.train.job_files import MODEL_DIRECTORY
from kfp_image_classification.components.train.launchers.base import Launcher, Verdict
from kfp_image_classification.components.train.launchers.job_api import JobApi
from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.job_progress import JobProgress, Limits
from kfp_image_classification.components.train.launchers.job_status import job_verdict
from kfp_image_classification.components.train.launchers.job_watches import JobWatches
from kfp_image_classification.components.train.launchers.naming import TRAINING_LABEL, names_in_turn
from kfp_image_classification.components.train.launchers.owner import owner_reference
from kfp_image_classification.components.train.launchers.pod_logs import PodLog
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate
from kfp_image_classification.components.train.launchers.watch import Item

SPEC_ANNOTATION = "kfp-image-classification/spec-sha256"
# ValidateObjects in Trainer's pkg/runtime/core/clustertrainingruntime.go
NO_RUNTIME = "specified clusterTrainingRuntime must be created"
POLL_SECONDS = 0.5
LOG_SECONDS = 20.0
# How long after a job's failure its pods may take to tell why.
TOLD_SECONDS = 3.0
# Within the half minute that a pod that is told to go has by default.
CANCEL_SECONDS = 20.0
# Longer than that half minute: only pods of a node that is lost, or that somebody keeps, are there after it.
GONE_SECONDS = 35.0
CREATE_ATTEMPTS = 5


class KubernetesLauncher(Launcher):
    """Runs a job as a custom resource, whose operator makes a pod a worker."""

    def __init__(self, client: ApiClient, kind: JobKind, name: str, pods: PodTemplate, log: logging.Logger) -> None:
        """Prepares a launch; creates nothing yet.

        Args:
            client: Of the cluster's API.
            kind: TFJob or TrainJob.
            name: The training's, and the job's as long as that is free; whoever launches the same training of the same
                run must give the same.
            pods: What the pods are to be like.
            log: Told what happens.
        """
        self._kind, self._log, self._training = kind, log, name
        self._api = JobApi(client, kind, pods.options.job.namespace or own_namespace(), name, log.info)
        self._manifest = kind.manifest(name, pods)
        self._manifest["metadata"]["annotations"][SPEC_ANNOTATION] = _digest(self._manifest)
        self._manifest["metadata"]["labels"] = {**self._manifest["metadata"]["labels"], TRAINING_LABEL: name}
        self._limits = Limits(
            workers=pods.job.options.workers,
            max_restarts=pods.job.options.max_restarts,
            start_seconds=pods.options.job.start_seconds,
            deadline_seconds=pods.options.job.deadline_seconds,
        )
        self._result = Path(pods.job.directory, MODEL_DIRECTORY)
        self._owner: Item | None = None
        self._deleted: set[str] = set()
        self._awaited: set[str] = set()
        self._may_run = False
        self._logs: dict[str, PodLog] = {}

    def submit(self) -> str:
        """Creates the job, or adopts it where it is there already; one that failed, or left no model, is made anew.

        Raises:
            InvalidInput: When a different job has the name, or the cluster refuses this one's manifest.
            StageFailed: When the cluster's API cannot be used.
        """
        self._owner = owner_reference(self._api.client, self._api.namespace, self._log.info)
        self._manifest["metadata"]["ownerReferences"] = [self._owner] if self._owner else []
        try:
            self._create_or_adopt()
        except ApiException as error:
            raise self._refusal(error) from None
        return self._api.name

    def wait(self) -> Verdict:
        """Follows the job, and tells what its pods do and print.

        A job that its operator gave up for a pod that had to go (a node is drained, say) is made anew, which counts as
        one restart.

        Raises:
            StageFailed: When the job cannot be followed any more, or not be made anew.
        """
        restarts = 0
        while True:
            progress = JobProgress(
                self._kind.kind, self._kind.operator, self._kind.container, self._limits, self._log.info, restarts
            )
            verdict = self._follow(progress)
            restarts = progress.restarts + 1
            if not verdict.retryable or restarts > self._limits.max_restarts:
                return verdict if verdict.state == "succeeded" else self._explained(verdict, progress)
            self._log.info(
                "%s; restart %d of %d from the last checkpoint: the job is made anew",
                verdict.reason,
                restarts,
                self._limits.max_restarts,
            )
            self._note_end(progress)
            self._make_anew(progress.job_uid)

    def _follow(self, progress: JobProgress) -> Verdict:
        with JobWatches(self._api, progress, self._log.info) as watches:
            verdict = progress.verdict(time.monotonic())
            restarts = progress.restarts
            while verdict.state == "running":
                watches.take_changes(POLL_SECONDS)
                if progress.restarts > restarts:
                    restarts = progress.restarts
                    self._note_end(progress)
                self._follow_logs(progress)
                verdict = progress.verdict(time.monotonic())
            has_ended = self._has_ended()
            self._may_run = not has_ended
            # The job's end can be told before that of its pods.
            told_by = time.monotonic() + TOLD_SECONDS
            watches.take_changes(POLL_SECONDS)
            while verdict.state == "failed" and not progress.knows_why and time.monotonic() < told_by:
                watches.take_changes(POLL_SECONDS)
        for pod in self._api.pods(CANCEL_SECONDS):
            progress.pod_changed(pod, time.monotonic())
        self._follow_logs(progress)
        self._finish_logs(LOG_SECONDS if has_ended and not verdict.retryable else POLL_SECONDS)
        known_better = progress.verdict(time.monotonic())
        return known_better if known_better.state == verdict.state else verdict

    def _make_anew(self, uid: str) -> None:
        try:
            self._delete(self._api.name, uid)
            self._create_or_adopt()
        except ApiException as error:
            raise self._refusal(error) from None

    def cancel(self) -> None:
        """Deletes the job, unless it has ended by itself: then it is kept for a while, to be looked at."""
        if not self._may_run:
            return
        self._log.info("deleting %s", self._named)
        try:
            self._api.delete(CANCEL_SECONDS)
            self._wait_until_gone(self._api, CANCEL_SECONDS)
        except (ApiException, StageFailed) as error:
            self._log.info("%s could not be deleted: %s", self._named, explained(error))
        self._may_run = False

    def _create_or_adopt(self) -> None:
        for _ in range(CREATE_ATTEMPTS):
            found = self._jobs()
            standing = [job for job in found if not self._is_to_go(job)]
            if standing:
                self._adopt(standing[-1])
                return
            for job in found:
                self._delete(job["metadata"]["name"], job["metadata"]["uid"])
            if self._create(found):
                return
        raise StageFailed(f"{self._named} cannot be created: another one of that name comes and goes")

    def _jobs(self) -> list[Item]:
        """All jobs that were made for this training, and whatever else has its name; the newest last."""
        jobs = self._api.labelled(f"{TRAINING_LABEL}={self._training}")
        known = {job["metadata"]["name"] for job in jobs}
        other = None if self._training in known else self._api.named(self._training).get()
        return sorted([*jobs, *([other] if other else [])], key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def _delete(self, name: str, uid: str) -> None:
        if uid not in self._deleted:
            self._deleted.add(uid)
            api = self._api.named(name)
            api.delete(CANCEL_SECONDS, uid)
            self._wait_until_gone(api, GONE_SECONDS)

    def _create(self, known: list[Item]) -> bool:
        """Creates the job under the first free name; returns whether it did: not when another launcher was faster.

        Args:
            known: The training's jobs as they were when it was decided to create one; they had to go.
        """
        names = {job["metadata"]["name"] for job in known}
        for api in map(self._api.named, names_in_turn(self._training)):
            if api.get() is None:
                if api.name not in self._awaited:  # the pods of a job that is gone may still be about to go
                    self._wait_until_gone(api, GONE_SECONDS)
                if not api.pods(CANCEL_SECONDS):
                    break
            elif api.name not in names:
                return False
        self._api = api
        self._manifest["metadata"]["name"] = self._api.name
        # Before the request: whatever ends this process from now on has to delete the job.
        self._may_run = True
        try:
            self._api.create(self._manifest)
        except ApiException as error:
            self._may_run = False
            if error.status == CONFLICT:
                return False
            raise
        self._log.info("created %s in namespace %s", self._named, self._api.namespace)
        return True

    def _is_to_go(self, found: Item) -> bool:
        """Whether a job of this name has to make room: it is going already, or it came to nothing."""
        if "deletionTimestamp" in found["metadata"]:
            return True
        if _digest_of(found) != _digest_of(self._manifest):
            return False
        before = job_verdict(found).state
        if before == "failed":
            self._log.info("%s failed before: it is started anew from its last checkpoint", self._kind.named(found))
            return True
        if before == "succeeded" and not self._result.is_dir():
            self._log.info("%s was done before, but its model is gone: it is started anew", self._kind.named(found))
            return True
        return False

    def _adopt(self, found: Item) -> None:
        self._api = self._api.named(found["metadata"]["name"])
        if _digest_of(found) != _digest_of(self._manifest):
            raise InvalidInput(
                f"{self._named} in namespace {self._api.namespace} is there already with a different spec: delete it "
                f"(kubectl delete {self._kind.plural}.{self._kind.group} {self._api.name} -n {self._api.namespace}), "
                "or wait for its end"
            )
        self._may_run = True
        self._log.info("adopted %s in namespace %s, which is there already", self._named, self._api.namespace)
        owner, owners = self._owner, found["metadata"].get("ownerReferences", [])
        if owner and owner["uid"] not in {known["uid"] for known in owners}:
            try:
                self._api.patch({"metadata": {"ownerReferences": [*owners, owner]}})
            except ApiException as error:
                self._log.info("deleting the run may not remove the job: %s", explained(error))

    def _refusal(self, error: ApiException) -> Exception:
        message = f"{self._named} was refused: {explained(error)}"
        if error.status == NOT_FOUND:
            return StageFailed(
                f"the cluster does not know {self._kind.kind} ({self._kind.group}/{self._kind.version}): is the "
                f"{self._kind.operator} installed? {explained(error)}"
            )
        if NO_RUNTIME in message:
            runtime = self._manifest["spec"]["runtimeRef"]["name"]
            return InvalidInput(
                f"job.runtime = {runtime!r}: the cluster has no ClusterTrainingRuntime of that name; "
                f"kubectl apply -k manifests/trainer brings this project's own ({explained(error)})"
            )
        if error.status in (FORBIDDEN, UNAUTHORIZED) and "admission webhook" not in message:
            return StageFailed(f"{message}; the step's service account needs this permission")
        return InvalidInput(f"job: {message}")

    def _follow_logs(self, progress: JobProgress) -> None:
        for state in progress.pods:
            if state.has_started and state.uid not in self._logs:
                self._logs[state.uid] = PodLog(
                    self._api.client, self._api.namespace, state, self._kind.container, self._log.info
                )
            if state.has_ended and state.uid in self._logs:
                self._logs[state.uid].pod_ended()

    def _finish_logs(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for log in self._logs.values():
            log.join(max(0.0, deadline - time.monotonic()))

    def _note_end(self, progress: JobProgress) -> None:
        """Writes down, where this step sees the job's folder, why its workers started again."""
        pod = progress.culprit()
        with contextlib.suppress(OSError):
            note_end(self._result.parent, f"{pod.replica} (pod {pod.name}): {pod.words}" if pod else "")

    def _explained(self, verdict: Verdict, progress: JobProgress) -> Verdict:
        """Adds to a failure what the pod to blame did and printed last."""
        pod = progress.culprit()
        if pod is None:
            return verdict
        reason = f"{verdict.reason}; {pod.replica} (pod {pod.name}): {pod.words}"
        log = self._logs.get(pod.uid)
        if log and log.last_lines:
            reason += "; its last lines:\n" + "\n".join(f"  {line}" for line in log.last_lines)
        return Verdict("failed", reason, verdict.retryable)

    def _has_ended(self) -> bool:
        try:
            found = self._api.get()
        except (ApiException, StageFailed):
            return False
        return found is None or job_verdict(found).state != "running"

    def _wait_until_gone(self, api: JobApi, seconds: float) -> None:
        self._awaited.add(api.name)
        deadline = time.monotonic() + seconds
        while api.get() is not None or api.pods(seconds):
            if time.monotonic() > deadline:
                self._log.info("%s %s is being deleted; its pods take their time", self._kind.kind, api.name)
                return
            time.sleep(POLL_SECONDS)

    @property
    def _named(self) -> str:
        return f"{self._kind.kind} {self._api.name}"


def _digest(manifest: Item) -> str:
    return hashlib.sha256(json.dumps(manifest["spec"], sort_keys=True).encode()).hexdigest()[:16]


def _digest_of(job: Item) -> str:
    annotations = job["metadata"].get("annotations") or {}
    return str(annotations.get(SPEC_ANNOTATION, ""))
