"""Changes an InferenceService, and puts it back as it was when the change does not end well."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kfp_image_classification.components.deploy.kserve import manifest
from kfp_image_classification.components.deploy.kserve.client import Conflict, InferenceServices
from kfp_image_classification.components.deploy.kserve.options import ServiceOptions
from kfp_image_classification.components.deploy.kserve.status import (
    Target,
    Verdict,
    is_ready,
    newest_knative_revision,
    verdict,
)
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.termination import Terminated, terminated_as_exception

Object = dict[str, Any]
# What a service becomes, from what it is; None stands for one that is not there yet.
Change = Callable[[Object | None], Object]

CONFLICTS = 10


class Superseded(StageFailed):
    """Somebody else changed the service while its rollout was being watched; it is theirs now, and is left alone."""


class Rollout:
    """One change of one service, from the update until it serves."""

    def __init__(self, services: InferenceServices, name: str, options: ServiceOptions, log: logging.Logger) -> None:
        self._services = services
        self._name = name
        self._options = options
        self._log = log
        self._before: Object | None = None
        self._wanted: Object | None = None
        self._updated: Object | None = None

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Guards a change: whatever ends this block early, SIGTERM included, puts the service back as it was.

        Raises:
            StageFailed: With the failure and what became of the service.
            InvalidInput: As it was raised, when nothing had been changed.
        """
        with terminated_as_exception():
            try:
                yield
            except Superseded:
                raise
            except (Exception, Terminated, KeyboardInterrupt) as error:
                is_told_to_end = not isinstance(error, Exception)
                if self._is_changed():
                    raise StageFailed(f"{_words(error)}\n{self._undo(wait=not is_told_to_end)}") from error
                if is_told_to_end:
                    raise StageFailed(f"{_words(error)}; nothing is changed") from None
                raise

    def apply(self, change: Change) -> bool:
        """Makes the change: reads, writes, and begins again when somebody else wrote in between.

        Returns:
            Whether it changed anything.

        Raises:
            InvalidInput: When the change cannot be made to what is there.
            StageFailed: When the cluster refuses it.
        """
        for _ in range(CONFLICTS):
            live = self._services.get(self._name)
            if self._wanted and live and _identity(live) == _identity(self._wanted):
                # It was this step's own write that came first: its answer was lost, and it was sent again.
                self._updated = live
                return self._is_changed()
            self._before = live
            self._wanted = change(live)
            try:
                write = self._services.replace if live else self._services.create
                self._updated = write(self._wanted)
            except Conflict:
                self._log.info("%s was changed at the same moment; looking again", self._name)
            else:
                return self._is_changed()
        raise StageFailed(f"{self._name} was changed by others {CONFLICTS} times in a row; try again later")

    def wait_until_ready(self) -> Object:
        """Waits until the version that `apply` wrote serves its share of the requests.

        Returns:
            The service as it is then.

        Raises:
            StageFailed: In the status' own words, when it cannot become ready, or did not in time.
        """
        assert self._updated is not None
        return self._wait(self._updated, self._target(self._updated, self._before))

    def _target(self, service: Object, before: Object | None) -> Target:
        version, share = manifest.newest_version(service), manifest.canary_percent(service)
        revision = manifest.revision_of(version)
        is_new = before is not None and manifest.revision_of(manifest.newest_version(before)) != revision
        return Target(
            revision=revision,
            traffic_percent=share,
            knative=manifest.is_knative(service),
            min_replicas=1 if share < 100 else int(version.get("minReplicas", 1)),
            knative_revision_before=newest_knative_revision(before) if before and is_new else "",
        )

    def _wait(self, service: Object, target: Target) -> Object:
        watch = _Watch(self._name, self._options, self._log)
        while True:
            live = self._services.get(self._name)
            if live is None:
                raise Superseded(f"{self._name} was removed during its rollout")
            if _identity(live) != _identity(service):
                raise Superseded(f"{self._name} was changed by somebody else during its rollout, and is left to them")
            pods = self._services.pods(self._name)
            deployments = [] if target.knative else self._services.deployments(self._name)
            now = verdict(live, pods, deployments, target)
            if now.state == "ready":
                return live
            if problem := watch.problem(now):
                lines = self._services.last_log_lines(now.pod, now.container) if now.container else ""
                raise StageFailed(f"{problem}\nthe end of its log:\n{lines}" if lines else problem)
            time.sleep(self._options.poll_seconds)

    def _is_changed(self) -> bool:
        """Whether an update was sent that may have reached the cluster, as it may have when the answer did not come."""
        if self._updated is not None:
            return self._before is None or self._generation(self._before) != self._generation(self._updated)
        if self._wanted is None:
            return False
        try:
            live = self._services.get(self._name)
        except StageFailed:
            return True
        if live is None or _identity(live) != _identity(self._wanted):
            return False
        return self._before is None or self._generation(live) != self._generation(self._before)

    def _undo(self, wait: bool) -> str:
        """Puts the service back; says how that went."""
        wanted = self._updated or self._wanted
        assert wanted is not None
        self._log.warning("it failed; putting %s back as it was", self._name)
        try:
            for _ in range(CONFLICTS):
                live = self._services.get(self._name)
                if live is None or _identity(live) != _identity(wanted):
                    return f"{self._name} was changed by somebody else since, and is left to them."
                if self._before is None:
                    if self._options.keep_failed:
                        return f"{self._name} is left in place as it is (service.keep_failed)."
                    self._services.delete(live)
                    return f"{self._name} was its first deployment: the service is removed again."
                try:
                    put_back = self._services.replace(manifest.restored(live, self._before))
                except Conflict:
                    continue
                return self._prove_restored(live, put_back) if wait else self._restored("not waited for")
            return f"{self._name} could NOT be put back: others changed it {CONFLICTS} times in a row."
        except (StageFailed, InvalidInput) as error:
            return f"{self._name} could NOT be put back: {error}"

    def _prove_restored(self, failed: Object, put_back: Object) -> str:
        assert self._before is not None
        if not is_ready(self._before):
            return self._restored("it was not ready before either")
        try:
            self._wait(put_back, self._target(put_back, failed))
        except StageFailed as error:
            return f"{self._name}: the version before is put back, but is NOT ready: {error}"
        return self._restored("it is ready")

    def _restored(self, state: str) -> str:
        return f"{self._name}: the version before is put back; {state}."

    @staticmethod
    def _generation(service: Object) -> int:
        return int(service["metadata"].get("generation", 0))


class _Watch:
    """Tells people what is waited for, and says when the waiting is over."""

    def __init__(self, name: str, options: ServiceOptions, log: logging.Logger) -> None:
        self._name = name
        self._options = options
        self._log = log
        self._patience = {
            "pod": 0.0,
            "unschedulable": options.unschedulable_seconds,
            "status": options.settle_seconds,
        }
        self._started = time.monotonic()
        self._failing_since = 0.0
        self._evidence = ""
        self._told = ""

    def problem(self, now: Verdict) -> str:
        """Takes note of a verdict; empty while there is hope."""
        elapsed = time.monotonic() - self._started
        if now.evidence != self._evidence:
            self._evidence, self._failing_since = now.evidence, elapsed
        if now.state == "failing" and elapsed - self._failing_since >= self._patience[now.evidence]:
            return f"{self._name} cannot become ready: {now.reason}"
        if elapsed > self._options.wait_seconds:
            seconds = f"{self._options.wait_seconds:.0f} s (service.wait_seconds)"
            return f"{self._name} is not ready after {seconds}: {now.reason}"
        if now.reason != self._told:
            self._log.info("waiting (%.0f s): %s", elapsed, now.reason)
            self._told = now.reason
        return ""


def _identity(service: Object) -> tuple[Any, ...]:
    """What must not be changed by others during a rollout: which versions there are, and how requests are split."""
    return (
        manifest.revision_of(service["spec"]["predictor"]),
        manifest.revision_of(manifest.newest_version(service)),
        manifest.canary_percent(service),
        service["spec"]["predictor"].get("model", {}).get("storageUri"),
    )


def _words(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "told to end (SIGTERM or Ctrl-C) in the middle of the rollout"
    return str(error) if isinstance(error, StageFailed | InvalidInput) else f"{type(error).__name__}: {error}"
