"""Runs a training job on a cluster: creates or adopts it, follows it to its end, and leaves none behind."""

import hashlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi

from components.errors import InvalidInput, StageFailed
from components.kubernetes_client import (
    CONFLICT,
    FORBIDDEN,
    NOT_FOUND,
    REQUEST_TIMEOUT,
    UNAUTHORIZED,
    explained,
    own_namespace,
    patiently,
)
from components.train.job_files import MODEL_DIRECTORY
from components.train.launchers.base import Launcher, Verdict
from components.train.launchers.job_kind import JobKind
from components.train.launchers.job_progress import JobProgress, Limits
from components.train.launchers.job_status import job_verdict
from components.train.launchers.owner import owner_reference
from components.train.launchers.pod_logs import PodLog
from components.train.launchers.pod_template import PodTemplate
from components.train.launchers.watch import ObjectWatch, list_raw

SPEC_ANNOTATION = "kfp-image-classification/spec-sha256"
POLL_SECONDS = 0.5
LOG_SECONDS = 20.0
# Within the half minute that a pod that is told to go has by default.
CANCEL_SECONDS = 20.0
CREATE_ATTEMPTS = 5
Item = dict[str, Any]


class KubernetesLauncher(Launcher):
    """Runs a job as a custom resource, whose operator makes a pod a worker."""

    def __init__(self, client: ApiClient, kind: JobKind, name: str, pods: PodTemplate, log: logging.Logger) -> None:
        """Prepares a launch; calls nobody yet.

        Args:
            client: Of the cluster's API.
            kind: TFJob or TrainJob.
            name: The job's; whoever launches the same job of the same run must give the same.
            pods: What the pods are to be like.
            log: Told what happens.
        """
        self._client, self._kind, self._name, self._log = client, kind, name, log
        self._namespace = pods.options.job.namespace or own_namespace()
        self._manifest = kind.manifest(name, pods)
        self._manifest["metadata"]["annotations"][SPEC_ANNOTATION] = _digest(self._manifest)
        self._jobs, self._core = CustomObjectsApi(client), CoreV1Api(client)
        self._limits = Limits(
            workers=pods.job.options.workers,
            max_restarts=pods.job.options.max_restarts,
            start_seconds=pods.options.job.start_seconds,
            deadline_seconds=pods.options.job.deadline_seconds,
        )
        self._result = Path(pods.job.directory, MODEL_DIRECTORY)
        self._may_run = False
        self._logs: dict[str, PodLog] = {}

    def submit(self) -> str:
        """Creates the job, or adopts it where it is there already; one that failed, or left no model, is made anew.

        Raises:
            InvalidInput: When a different job has the name, or the cluster refuses this one's manifest.
            StageFailed: When the cluster's API cannot be used.
        """
        owner = owner_reference(self._client, self._namespace, self._log.info)
        self._manifest["metadata"]["ownerReferences"] = [owner] if owner else []
        for _ in range(CREATE_ATTEMPTS):
            found = self._get()
            if found is None:
                if self._create():
                    return self._name
            elif self._is_to_go(found):
                self._delete(found["metadata"]["uid"])
                self._wait_until_gone(CANCEL_SECONDS)
            else:
                self._adopt(found, owner)
                return self._name
        raise StageFailed(f"{self._named} cannot be created: another one of that name comes and goes")

    def wait(self) -> Verdict:
        """Follows the job, and tells what its pods do and print."""
        progress = JobProgress(self._kind.kind, self._kind.operator, self._kind.container, self._limits, self._log.info)
        over = threading.Event()
        changes: queue.Queue[Callable[[], None]] = queue.Queue()
        for watch in self._watches(progress, changes, over):
            threading.Thread(target=watch, daemon=True).start()
        try:
            verdict = progress.verdict(time.monotonic())
            while verdict.state == "running":
                try:
                    changes.get(timeout=POLL_SECONDS)()
                    while True:
                        changes.get_nowait()()
                except queue.Empty:
                    pass
                self._follow_logs(progress)
                verdict = progress.verdict(time.monotonic())
        finally:
            over.set()
        if job_ended := self._has_ended():
            self._may_run = False
        for pod in self._list_pods():
            progress.pod_changed(pod, time.monotonic())
        self._follow_logs(progress)
        deadline = time.monotonic() + (LOG_SECONDS if job_ended else POLL_SECONDS)
        for log in self._logs.values():
            log.join(max(0.0, deadline - time.monotonic()))
        return verdict if verdict.state == "succeeded" else self._explained(verdict, progress)

    def cancel(self) -> None:
        """Deletes the job, unless it has ended by itself: then it is kept for a while, to be looked at."""
        if not self._may_run:
            return
        self._log.info("deleting %s", self._named)
        try:
            self._delete()
            self._wait_until_gone(CANCEL_SECONDS)
        except (ApiException, StageFailed) as error:
            self._log.info("%s could not be deleted: %s", self._named, explained(error))
        self._may_run = False

    # Creating

    def _create(self) -> bool:
        """Creates the job; returns whether it did: not when another launcher was faster."""
        self._may_run = True
        try:
            self._call(
                self._jobs.create_namespaced_custom_object, *self._path, self._manifest, field_validation="Strict"
            )
        except ApiException as error:
            if error.status == CONFLICT:
                return False
            self._may_run = False
            raise self._refusal(error) from None
        self._log.info("created %s in namespace %s", self._named, self._namespace)
        return True

    def _refusal(self, error: ApiException) -> Exception:
        message = f"{self._named} was refused: {explained(error)}"
        if error.status == NOT_FOUND:
            return StageFailed(
                f"the cluster does not know {self._kind.kind} ({self._kind.group}/{self._kind.version}): is the "
                f"{self._kind.operator} installed? {explained(error)}"
            )
        if error.status in (FORBIDDEN, UNAUTHORIZED) and "admission webhook" not in message:
            return StageFailed(f"{message}; the step's service account needs this permission")
        if (error.status or 0) >= 500:
            return StageFailed(message)
        return InvalidInput(f"job: {message}")

    def _is_to_go(self, found: Item) -> bool:
        if "deletionTimestamp" in found["metadata"]:
            return True
        if self._digest_of(found) != self._digest_of(self._manifest):
            return False
        before = job_verdict(found).state
        if before == "failed":
            self._log.info("%s failed before: it is started anew from its last checkpoint", self._named)
        if before == "succeeded" and not self._result.is_dir():
            self._log.info("%s was done before, but its model is gone: it is started anew", self._named)
            return True
        return before == "failed"

    def _adopt(self, found: Item, owner: Item | None) -> None:
        if self._digest_of(found) != self._digest_of(self._manifest):
            raise InvalidInput(
                f"{self._named} in namespace {self._namespace} is there already with a different spec: delete it "
                f"(kubectl delete {self._kind.plural}.{self._kind.group} {self._name} -n {self._namespace}), or wait "
                "for its end"
            )
        self._may_run = True
        self._log.info("adopted %s in namespace %s, which is there already", self._named, self._namespace)
        owners = found["metadata"].get("ownerReferences", [])
        if owner and owner["uid"] not in {known["uid"] for known in owners}:
            patch = {"metadata": {"ownerReferences": [*owners, owner]}}
            try:
                self._call(self._jobs.patch_namespaced_custom_object, *self._path, self._name, patch)
            except ApiException as error:
                self._log.info("deleting the run may not remove the job: %s", explained(error))

    # Watching

    def _watches(
        self, progress: JobProgress, changes: "queue.Queue[Callable[[], None]]", over: threading.Event
    ) -> list[Callable[[], None]]:
        def watch(list_objects: Callable[..., Any], on_list: Any, on_change: Any, is_needed: bool) -> None:
            def listed(items: list[Item]) -> None:
                changes.put(partial(on_list, items))

            def changed(kind: str, item: Item) -> None:
                changes.put(partial(on_change, kind, item))

            try:
                ObjectWatch(self._client, list_objects, listed, changed, self._log.info, over.is_set).run()
            except (ApiException, StageFailed) as error:
                if is_needed:
                    changes.put(partial(_raise, StageFailed(f"{self._named} cannot be followed: {explained(error)}")))
                else:
                    self._log.info("warnings of the cluster are not told: %s", explained(error))
            except Exception as error:  # a thread's own would be lost
                changes.put(partial(_raise, error))

        def jobs_listed(jobs: list[Item]) -> None:
            for job in jobs:
                progress.job_changed(job)
            if not jobs:
                progress.job_deleted()

        def job_changed(kind: str, job: Item) -> None:
            progress.job_changed(job)
            if kind == "DELETED":
                progress.job_deleted()

        def pods_listed(pods: list[Item]) -> None:
            listed = {pod["metadata"]["uid"] for pod in pods}
            for pod in pods:
                progress.pod_changed(pod, time.monotonic())
            for state in progress.pods:
                if state.uid not in listed:
                    progress.pod_deleted(state.uid)

        def pod_changed(kind: str, pod: Item) -> None:
            progress.pod_changed(pod, time.monotonic())
            if kind == "DELETED":
                progress.pod_deleted(pod["metadata"]["uid"])

        def event_changed(kind: str, event: Item) -> None:
            name = event["involvedObject"].get("name", "")
            if kind != "DELETED" and (name == self._name or name.startswith(f"{self._name}-")):
                progress.warned(event)

        def events_listed(events: list[Item]) -> None:
            for event in events:
                event_changed("ADDED", event)

        group, version, namespace, plural = self._path
        jobs = partial(
            self._jobs.list_namespaced_custom_object,
            group,
            version,
            namespace,
            plural,
            field_selector=f"metadata.name={self._name}",
        )
        events = partial(self._core.list_namespaced_event, namespace, field_selector="type=Warning")
        return [
            partial(watch, jobs, jobs_listed, job_changed, True),
            partial(watch, self._pod_lister, pods_listed, pod_changed, True),
            partial(watch, events, events_listed, event_changed, False),
        ]

    @property
    def _pod_lister(self) -> Callable[..., Any]:
        selector = self._kind.pod_selector(self._name)
        return partial(self._core.list_namespaced_pod, self._namespace, label_selector=selector)

    def _list_pods(self) -> list[Item]:
        try:
            return list(list_raw(self._client, self._pod_lister, self._log.info, CANCEL_SECONDS)["items"])
        except (ApiException, StageFailed):
            return []

    def _follow_logs(self, progress: JobProgress) -> None:
        for state in progress.pods:
            if state.has_started and state.uid not in self._logs:
                self._logs[state.uid] = PodLog(
                    self._client, self._namespace, state, self._kind.container, self._log.info
                )
            if state.has_ended and state.uid in self._logs:
                self._logs[state.uid].pod_ended()

    def _explained(self, verdict: Verdict, progress: JobProgress) -> Verdict:
        """Adds to a failure what the pod to blame did and printed last."""
        pod = progress.culprit()
        if pod is None:
            return verdict
        reason = f"{verdict.reason}; {pod.replica} (pod {pod.name}): {pod.words}"
        log = self._logs.get(pod.uid)
        if log and log.last_lines:
            reason += "; its last lines:\n" + "\n".join(f"  {line}" for line in log.last_lines)
        return Verdict("failed", reason, retryable=not pod.is_permanent)

    # Ending

    def _has_ended(self) -> bool:
        try:
            found = self._get()
        except (ApiException, StageFailed):
            return False
        return found is None or job_verdict(found).state != "running"

    def _delete(self, uid: str = "") -> None:
        body: Item = {"propagationPolicy": "Foreground"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._call(
                self._jobs.delete_namespaced_custom_object, *self._path, self._name, body=body, seconds=CANCEL_SECONDS
            )
        except ApiException as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def _wait_until_gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._get() is not None or self._list_pods():
            if time.monotonic() > deadline:
                self._log.info("%s is being deleted; its pods take their time", self._named)
                return
            time.sleep(POLL_SECONDS)

    # The API

    def _get(self) -> Item | None:
        try:
            found: Item = self._call(self._jobs.get_namespaced_custom_object, *self._path, self._name)
            return found
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise self._refusal(error) from None
            return None

    def _call(self, function: Callable[..., Any], *arguments: Any, seconds: float = 0.0, **named: Any) -> Any:
        patience = {"seconds": seconds} if seconds else {}
        return patiently(
            self._client,
            lambda: function(*arguments, **named, _request_timeout=REQUEST_TIMEOUT),
            self._log.info,
            **patience,
        )

    @property
    def _path(self) -> tuple[str, str, str, str]:
        return self._kind.group, self._kind.version, self._namespace, self._kind.plural

    @property
    def _named(self) -> str:
        return f"{self._kind.kind} {self._name}"

    @staticmethod
    def _digest_of(job: Item) -> str:
        annotations = job["metadata"].get("annotations") or {}
        return str(annotations.get(SPEC_ANNOTATION, ""))


def _digest(manifest: Item) -> str:
    return hashlib.sha256(json.dumps(manifest["spec"], sort_keys=True).encode()).hexdigest()[:16]


def _raise(error: Exception) -> None:
    raise error
