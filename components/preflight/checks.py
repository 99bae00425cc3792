"""What a cluster must have for the pipeline: kinds of objects, permissions, a volume, a training runtime."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.kubernetes_client import FORBIDDEN, NOT_FOUND, explained, patiently
from kfp_image_classification.components.cluster.local_backend import deploy_backend_problem, train_backend_problem
from kfp_image_classification.components.cluster.permissions import TRAINING_RUNTIME, denied, needed
from kfp_image_classification.components.cluster.storage import claim_command
from kfp_image_classification.components.preflight.operators import KINDS, Kind, apply_manifests
from kfp_image_classification.components.preflight.options import PreflightOptions

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


class State(StrEnum):
    """What a check found; `unknown` is told, but does not fail the preflight."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        state: Whether it is there.
        what: What was looked for, and what is the matter with it.
        remedy: The command that mends it.
    """

    state: State
    what: str
    remedy: str = ""


def check_cluster(client: "ApiClient", options: PreflightOptions, tell: Callable[[str], None]) -> list[Finding]:
    """Looks for everything; changes nothing.

    Args:
        client: To the cluster.
        options: What to look for.
        tell: Told about errors of the API that pass.

    Raises:
        StageFailed: When the API cannot be reached, or refuses the credentials.
    """
    checks = _Checks(client, options, tell)
    kinds = [KINDS[backend] for backend in options.backends if backend in KINDS]
    return [
        *_local_backends(options),
        *(checks.kind(kind) for kind in kinds),
        *checks.permissions(),
        *([checks.volume()] if options.pvc else []),
        *([checks.training_runtime()] if "trainjob" in options.backends else []),
    ]


def _local_backends(options: PreflightOptions) -> list[Finding]:
    problems = [
        train_backend_problem("train_backend", options.train_backend),
        deploy_backend_problem("deploy_backend", options.deploy_backend),
    ]
    return [Finding(State.MISSING, problem) for problem in problems if problem and options.in_pods]


class _Checks:
    def __init__(self, client: "ApiClient", options: PreflightOptions, tell: Callable[[str], None]) -> None:
        from kubernetes.client import ApisApi, CoreV1Api, CustomObjectsApi

        self._client, self._options, self._tell = client, options, tell
        self._core, self._custom, self._groups = CoreV1Api(client), CustomObjectsApi(client), ApisApi(client)

    def kind(self, kind: Kind) -> Finding:
        """Looks in what the API says it serves, which every account may ask."""
        from kubernetes.client import ApiException

        name = f"{kind.kind} ({kind.group}/{kind.version})"
        try:
            versions = self._served_versions(kind)
        except ApiException as error:
            return Finding(State.UNKNOWN, f"{name}: {explained(error)}")
        if kind.version in versions:
            return Finding(State.OK, name)
        if versions:
            return Finding(
                State.MISSING,
                f"{name}: the cluster has {', '.join(versions)} instead; install a version that serves {kind.version}",
                kind.install,
            )
        return Finding(State.MISSING, f"{name}: the cluster does not know it", kind.install)

    def _served_versions(self, kind: Kind) -> list[str]:
        groups = self._ask(self._groups.get_api_versions).groups
        versions = [version.version for group in groups if group.name == kind.group for version in group.versions]
        return [version for version in versions if kind.plural in self._plurals(kind.group, version)]

    def _plurals(self, group: str, version: str) -> set[str]:
        return {
            resource.name for resource in self._ask(lambda: self._custom.get_api_resources(group, version)).resources
        }

    def permissions(self) -> list[Finding]:
        from kubernetes.client import ApiException

        whose = self._options.service_account or "this step's service account"
        findings = []
        for permission in needed(self._options.backends):
            if permission.is_optional:
                continue
            try:
                verbs = denied(
                    self._client, self._options.namespace, permission, self._tell, self._options.service_account
                )
            except ApiException as error:
                return [Finding(State.UNKNOWN, f"permissions of {whose}: {explained(error)}")]
            if verbs:
                findings.append(
                    Finding(
                        State.MISSING,
                        f"permission: {whose} may not {', '.join(verbs)} {permission.full_name}",
                        self._apply_trainer() if permission.cluster_wide else apply_manifests(self._options.namespace),
                    )
                )
        return findings or [Finding(State.OK, f"permissions of {whose}")]

    def volume(self) -> Finding:
        from kubernetes.client import ApiException

        name, namespace = self._options.pvc, self._options.namespace
        try:
            claim = self._ask(lambda: self._core.read_namespaced_persistent_volume_claim(name, namespace))
        except ApiException as error:
            return self._not_read(f"volume claim {name}", error, claim_command(name, namespace))
        modes = ", ".join(claim.spec.access_modes or [])
        phase = (claim.status and claim.status.phase) or "Pending"
        if phase == "Bound":
            return Finding(State.OK, f"volume claim {name} is bound ({modes})")
        reason, message = self._last_event(name)
        if reason == "WaitForFirstConsumer":
            return Finding(State.OK, f"volume claim {name} will be bound when the first step mounts it ({modes})")
        return Finding(
            State.MISSING,
            f"volume claim {name} is not bound but {phase}" + (f": {message}" if message else ""),
            f"kubectl -n {namespace} describe pvc {name}",
        )

    def training_runtime(self) -> Finding:
        from kubernetes.client import ApiException

        kind = KINDS["trainjob"]
        name = f"ClusterTrainingRuntime {TRAINING_RUNTIME}"
        try:
            self._ask(
                lambda: self._custom.get_cluster_custom_object(
                    kind.group, kind.version, "clustertrainingruntimes", TRAINING_RUNTIME
                )
            )
        except ApiException as error:
            return self._not_read(name, error, self._apply_trainer())
        return Finding(State.OK, name)

    def _last_event(self, claim: str) -> tuple[str, str]:
        """Reason and message of the newest event; a volume that waits for its first pod says so there alone."""
        from kubernetes.client import ApiException

        about = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}"
        try:
            events = self._ask(
                lambda: self._core.list_namespaced_event(self._options.namespace, field_selector=about)
            ).items
        except ApiException as error:
            return "", f"its events cannot be read: {explained(error)}"
        if not events:
            return "", ""
        newest = max(events, key=lambda event: str(event.last_timestamp or event.event_time or ""))
        return newest.reason or "", newest.message or ""

    def _apply_trainer(self) -> str:
        return apply_manifests(self._options.namespace, "local-trainer")

    def _ask(self, call: Callable[[], Any]) -> Any:
        return patiently(self._client, call, self._tell)

    def _not_read(self, what: str, error: Any, remedy: str) -> Finding:
        if error.status == NOT_FOUND:
            return Finding(State.MISSING, f"{what}: there is none", remedy)
        # The step must be allowed to read it; whoever asks about the step need not.
        lacks_right = error.status == FORBIDDEN and not self._options.service_account
        return Finding(State.MISSING if lacks_right else State.UNKNOWN, f"{what}: {explained(error)}", remedy)
