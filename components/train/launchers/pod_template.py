"""What the pods of a job have in common, whichever operator makes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_image_classification.components.cluster.kubernetes_client import MANAGED_BY, RUN_LABEL
from kfp_image_classification.components.cluster.storage import MOUNT_PATH, RUN_ID_VARIABLE, STORAGE_VARIABLE
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.variants import BACKBONES
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

DEFAULT_CPU, DEFAULT_MEMORY = "1", "2Gi"
# At its export, a worker has taken 3.5 GB for 110 MB of weights.
BACKBONE_MEMORY = "4Gi"
STORAGE_VOLUME = "run-storage"
_LABEL_VALUE = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
Fragment = dict[str, Any]


@dataclass(frozen=True)
class TaskSettings:
    """What the user has set on the KFP task (`.set_cpu_limit()` and the like), as dsl.TaskConfig hands it on."""

    resources: Fragment = field(default_factory=dict)
    env: list[Fragment] = field(default_factory=list)
    volumes: list[Fragment] = field(default_factory=list)
    volume_mounts: list[Fragment] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Fragment] = field(default_factory=list)
    affinity: Fragment = field(default_factory=dict)

    @classmethod
    def of(cls, task_config: object) -> "TaskSettings":
        """Reads a dsl.TaskConfig; outside a cluster all its fields are None."""
        given = {name: getattr(task_config, name, None) for name in cls.__dataclass_fields__}
        return cls(**{name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class PodTemplate:
    """The parts of the pods' manifest, merged from the job's options and the task's settings; the options win."""

    job: TrainingJob
    options: JobOptions
    task: TaskSettings
    run_id: str = ""
    mount_path: str = MOUNT_PATH

    @property
    def command(self) -> list[str]:
        return ["python", "-m", "kfp_image_classification.components.train.worker"]

    @property
    def arguments(self) -> list[str]:
        # The kubelet would replace $(NAME) in arguments; $$ stands for $.
        return ["--job", self.job.model_dump_json().replace("$(", "$$(")]

    @property
    def labels(self) -> dict[str, str]:
        run = {RUN_LABEL: self.run_id} if _LABEL_VALUE.match(self.run_id) else {}
        return {**self.options.job.labels, **MANAGED_BY, **run}

    @property
    def annotations(self) -> dict[str, str]:
        # Istio's sidecar outlives the worker, so that the pod would never end.
        return {"sidecar.istio.io/inject": "false", **self.options.job.annotations}

    @property
    def env(self) -> list[Fragment]:
        of_the_step = (RUN_ID_VARIABLE, STORAGE_VARIABLE)
        task = {item["name"]: item for item in self.task.env if item["name"] not in of_the_step}
        return list({**_variables(WORKER_ENVIRONMENT), **task, **_variables(self.options.job.env)}.values())

    @property
    def resources(self) -> Fragment:
        """Limits and requests: each from the options, else from the task, else the default."""
        limits = dict(self.task.resources.get("limits") or {})
        requests = dict(self.task.resources.get("requests") or {})
        for name, given, default in (
            ("cpu", self.options.worker_cpu, DEFAULT_CPU),
            ("memory", self.options.worker_memory, self._usual_memory),
        ):
            if given or not (limits.get(name) or requests.get(name)):
                limits[name] = requests[name] = given or default
        if self.options.worker_gpus:
            name = self.options.job.gpu_resource
            limits[name] = requests[name] = str(self.options.worker_gpus)
        return {"requests": requests or limits, "limits": limits}

    @property
    def _usual_memory(self) -> str:
        return BACKBONE_MEMORY if self.job.options.architecture in BACKBONES else DEFAULT_MEMORY

    @property
    def gpus(self) -> int:
        """How many GPUs each pod has, from the options or from the task."""
        given = str(self.resources["limits"].get(self.options.job.gpu_resource) or "0")
        return int(given) if given.isdecimal() else 0

    @property
    def volumes(self) -> list[Fragment]:
        claim = {"persistentVolumeClaim": {"claimName": self.options.pvc}}
        storage = [{"name": STORAGE_VOLUME, **claim}] if self._adds_storage else []
        return [*self.task.volumes, *self.options.job.volumes, *storage]

    @property
    def volume_mounts(self) -> list[Fragment]:
        storage = [{"name": STORAGE_VOLUME, "mountPath": self.mount_path}] if self._adds_storage else []
        return [*self.task.volume_mounts, *self.options.job.volume_mounts, *storage]

    @property
    def mounted_claim(self) -> str:
        """The claim that task or options mount where the storage belongs; empty for none."""
        mounts = [*self.task.volume_mounts, *self.options.job.volume_mounts]
        names = {mount.get("name") for mount in mounts if mount.get("mountPath") == self.mount_path}
        claims = [
            volume["persistentVolumeClaim"].get("claimName", "")
            for volume in (*self.task.volumes, *self.options.job.volumes)
            if volume.get("name") in names and volume.get("persistentVolumeClaim")
        ]
        return str(claims[0]) if claims else ""

    @property
    def node_selector(self) -> dict[str, str]:
        return {**self.task.node_selector, **self.options.job.node_selector}

    @property
    def tolerations(self) -> list[Fragment]:
        return [*self.task.tolerations, *self.options.job.tolerations]

    @property
    def affinity(self) -> Fragment:
        return {**self.task.affinity, **self.options.job.affinity}

    @property
    def pod_security(self) -> Fragment:
        user = self.options.job.run_as_user
        return {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    @property
    def container_security(self) -> Fragment:
        return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

    def pod_spec(self) -> Fragment:
        """The settings of the whole pod, those left empty left out."""
        settings = self.options.job
        return without_empty(
            {
                "volumes": self.volumes,
                "nodeSelector": self.node_selector,
                "tolerations": self.tolerations,
                "affinity": self.affinity,
                "serviceAccountName": settings.service_account,
                "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
                "securityContext": self.pod_security,
            }
        )

    @property
    def _adds_storage(self) -> bool:
        mounted = [*self.task.volume_mounts, *self.options.job.volume_mounts]
        return bool(self.options.pvc) and not any(mount.get("mountPath") == self.mount_path for mount in mounted)


def _variables(values: Mapping[str, str]) -> dict[str, Fragment]:
    return {name: {"name": name, "value": value} for name, value in values.items()}


def without_empty(fragment: Mapping[str, Any]) -> Fragment:
    return {name: value for name, value in fragment.items() if value not in ("", [], {}, None)}
