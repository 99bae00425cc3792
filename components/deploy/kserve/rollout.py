"""Changes an InferenceService, and puts it back as it was when the change does not end well."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kfp_image_classification.components.deploy.kserve import manifest
from kfp_image_classification.components.deploy.kserve.client import Conflict, InferenceServices
from kfp_image_classification.components.deploy.kserve.options import ServiceOptions
from kfp_image_classification.components.deploy.kserve.patience import Patience
from kfp_image_classification.components.deploy.kserve.status import (
    Target,
    gets_no_requests,
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
    """One change of one service, in one step or several, from the first update until it serves."""

    def __init__(self, services: InferenceServices, name: str, options: ServiceOptions, log: logging.Logger) -> None:
        self._services = services
        self._name = name
        self._options = options
        self._log = log
        self._before: Object | None = None
        # Of the step that is under way: what it found, wants to write, and wrote.
        self._found: Object | None = None
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

        A canary that is not there any more afterwards gets no requests before it goes.

        Returns:
            Whether it changed anything.

        Raises:
            InvalidInput: When the change cannot be made to what is there.
            StageFailed: When the cluster refuses it.
        """
        step_before, self._wanted = self._updated, None
        for _ in range(CONFLICTS):
            live = self._services.get(self._name)
            if self._wanted and live and _identity(live) == _identity(self._wanted):
                # It was this step's own write that came first: its answer was lost, and it was sent again.
                self._updated = live
                return self._is_changed()
            if step_before is None:
                self._before = live
            elif live is None or _identity(live) != _identity(step_before):
                raise Superseded(f"{self._name} was changed by somebody else during its rollout, and is left to them")
            self._found, wanted = live, change(live)
            silenced = manifest.without_requests(live, wanted) if live else None
            self._wanted = silenced or wanted
            try:
                write = self._services.replace if live else self._services.create
                self._updated = write(self._wanted)
            except Conflict:
                self._log.info("%s was changed at the same moment; looking again", self._name)
                continue
            if not silenced:
                return self._is_changed()
            self._wait_for_split(self._updated)
            step_before, self._wanted = self._updated, None
        raise StageFailed(f"{self._name} was changed by others {CONFLICTS} times in a row; try again later")

    def wait_until_ready(self) -> Object:
        """Waits until all versions that `apply` wrote serve, each its share of the requests.

        Returns:
            The service as it is then.

        Raises:
            StageFailed: In the status' own words, when it cannot become ready, or did not in time.
        """
        assert self._updated is not None
        return self._wait(self._updated, self._targets(self._updated, self._found))

    def _targets(self, service: Object, before: Object | None, words: str = "the new version") -> list[Target]:
        newest = manifest.newest_version(service)
        if manifest.is_knative(service):
            revision = manifest.revision_of(newest)
            is_new = before is not None and manifest.revision_of(manifest.newest_version(before)) != revision
            return [
                Target(
                    revision=revision,
                    traffic_percent=manifest.canary_percent(service),
                    knative=True,
                    min_replicas=manifest.replicas(service, newest),
                    knative_revision_before=newest_knative_revision(before) if before and is_new else "",
                    words=words,
                )
            ]
        versions = manifest.versions(service)
        # Older releases of KServe, which know no canaries, may call the Deployment otherwise.
        several = len(versions) > 1 or (before is not None and len(manifest.versions(before)) > 1)
        return [
            Target(
                revision=manifest.revision_of(version),
                app=manifest.app_label(service, version) if several else "",
                is_alone=len(versions) == 1,
                canary=version["name"] if version is not versions[0] else "",
                min_replicas=manifest.replicas(service, version),
                words=words if version is newest else "the stable version",
            )
            for version in versions
        ]

    def _wait(self, service: Object, targets: list[Target]) -> Object:
        watch = Patience(self._name, self._options, self._log)
        while True:
            live = self._services.get(self._name)
            if live is None:
                raise Superseded(f"{self._name} was removed during its rollout")
            if _identity(live) != _identity(service):
                raise Superseded(f"{self._name} was changed by somebody else during its rollout, and is left to them")
            pods = self._services.pods(self._name)
            deployments = [] if manifest.is_knative(service) else self._services.deployments(self._name)
            verdicts = [verdict(live, pods, deployments, target) for target in targets]
            # A failure of one counts before the other's waiting.
            now = min(verdicts, key=lambda one: ("failing", "waiting", "ready").index(one.state))
            if now.state == "ready":
                return live
            if problem := watch.problem(now):
                lines = self._services.last_log_lines(now.pod, now.container) if now.container else ""
                raise StageFailed(f"{problem}\nthe end of its log:\n{lines}" if lines else problem)
            time.sleep(self._options.poll_seconds)

    def _wait_for_split(self, service: Object) -> None:
        """Waits until the ingress sends no requests to a canary any more; it goes in any case, so not for ever."""
        self._log.info("%s: its canary gets no requests any more, then it goes", self._name)
        deadline = time.monotonic() + self._options.smoke_seconds
        while True:
            live = self._services.get(self._name)
            if live is None or _identity(live) != _identity(service):
                return
            if gets_no_requests(live):
                break
            if time.monotonic() > deadline:
                self._log.warning("%s: KServe does not say that it told the ingress; going on", self._name)
                return
            time.sleep(self._options.poll_seconds)
        time.sleep(self._options.route_seconds)

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
        assert self._updated is not None or self._wanted is not None
        written = [self._updated, self._wanted]
        self._log.warning("it failed; putting %s back as it was", self._name)
        try:
            for _ in range(CONFLICTS):
                live = self._services.get(self._name)
                if live is None or _identity(live) not in [_identity(one) for one in written if one]:
                    return f"{self._name} was changed by somebody else since, and is left to them."
                if self._before is None:
                    if self._options.keep_failed:
                        return f"{self._name} is left in place as it is (service.keep_failed)."
                    self._services.delete(live)
                    return f"{self._name} was its first deployment: the service is removed again."
                wanted = manifest.restored(live, self._before)
                silenced = manifest.without_requests(live, wanted) if wait else None
                try:
                    put_back = self._services.replace(silenced or wanted)
                except Conflict:
                    continue
                if silenced:
                    self._wait_for_split(put_back)
                    written = [put_back]
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
            self._wait(put_back, self._targets(put_back, failed, "the version before"))
        except StageFailed as error:
            return f"{self._name}: the version before is put back, but is NOT ready: {error}"
        return self._restored("it is ready")

    def _restored(self, state: str) -> str:
        return f"{self._name}: the version before is put back; {state}."

    @staticmethod
    def _generation(service: Object) -> int:
        return int(service["metadata"].get("generation", 0))


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
