"""Watches a job, its pods and the warnings about them, each in a thread, and hands the changes to one thread."""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from kubernetes.client import ApiException

from kfp_image_classification.components.cluster.kubernetes_client import explained
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.launchers.job_api import JobApi
from kfp_image_classification.components.train.launchers.job_progress import JobProgress
from kfp_image_classification.components.train.launchers.watch import Item, ObjectWatch

OnList = Callable[[list[Item]], None]
OnChange = Callable[[str, Item], None]


class JobWatches:
    """Feeds a JobProgress while the `with` block runs."""

    def __init__(self, api: JobApi, progress: JobProgress, tell: Callable[[str], None]) -> None:
        self._api, self._progress, self._tell = api, progress, tell
        self._changes: queue.Queue[Callable[[], None]] = queue.Queue()
        self._over = threading.Event()

    def __enter__(self) -> "JobWatches":
        self._start(self._api.list_job, self._jobs_listed, self._job_changed, self._is_lost)
        self._start(self._api.list_pods, self._pods_listed, self._pod_changed, self._is_lost)
        self._start(self._api.list_warnings, self._warnings_listed, self._warning_changed, self._does_without)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()

    def take_changes(self, seconds: float) -> None:
        """Waits for a change and takes in all that are there.

        Raises:
            StageFailed: When the job cannot be followed any more.
        """
        try:
            self._changes.get(timeout=seconds)()
            while True:
                self._changes.get_nowait()()
        except queue.Empty:
            pass

    def _start(
        self,
        list_objects: Callable[..., Any],
        on_list: OnList,
        on_change: OnChange,
        on_refusal: Callable[[Exception], None],
    ) -> None:
        def run() -> None:
            try:
                ObjectWatch(
                    self._api.client,
                    list_objects,
                    lambda items: self._changes.put(partial(on_list, items)),
                    lambda kind, item: self._changes.put(partial(on_change, kind, item)),
                    self._tell,
                    self._over.is_set,
                ).run()
            except (ApiException, StageFailed) as error:
                self._changes.put(partial(on_refusal, error))
            except Exception as error:  # a thread's own would be lost
                self._changes.put(partial(_raise, error))

        threading.Thread(target=run, daemon=True).start()

    def _is_lost(self, error: Exception) -> None:
        raise StageFailed(f"{self._api.kind.kind} {self._api.name} cannot be followed: {explained(error)}")

    def _does_without(self, error: Exception) -> None:
        self._tell(f"warnings of the cluster are not told: {explained(error)}")

    def _jobs_listed(self, jobs: list[Item]) -> None:
        for job in jobs:
            self._progress.job_changed(job)
        if not jobs:
            self._progress.job_deleted()

    def _job_changed(self, kind: str, job: Item) -> None:
        self._progress.job_changed(job)
        if kind == "DELETED":
            self._progress.job_deleted()

    def _pods_listed(self, pods: list[Item]) -> None:
        for pod in pods:
            self._progress.pod_changed(pod, time.monotonic())
        listed = {pod["metadata"]["uid"] for pod in pods}
        for state in self._progress.pods:
            if state.uid not in listed:
                self._progress.pod_deleted(state.uid)

    def _pod_changed(self, kind: str, pod: Item) -> None:
        self._progress.pod_changed(pod, time.monotonic())
        if kind == "DELETED":
            self._progress.pod_deleted(pod["metadata"]["uid"])

    def _warnings_listed(self, events: list[Item]) -> None:
        for event in events:
            self._warning_changed("ADDED", event)

    def _warning_changed(self, kind: str, event: Item) -> None:
        about = event["involvedObject"].get("name", "")
        if kind != "DELETED" and (about == self._api.name or about.startswith(f"{self._api.name}-")):
            self._progress.warned(event)


def _raise(error: Exception) -> None:
    raise error
