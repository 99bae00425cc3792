"""How a training job is run on a cluster: what the user can set of its pods and of its life."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kfp_image_classification.components.cluster.images import TENSORFLOW_GPU_IMAGE, TENSORFLOW_IMAGE
from kfp_image_classification.components.step.errors import InvalidInput

START_SECONDS = 600
# A worker that has started waits for the pods of the others, and for them to find each other.
MEETING_SECONDS = 60
_QUANTITY = re.compile(r"^(?=.*[1-9])\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$")
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
_DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")


def _quantity(text: str) -> str:
    if text and not _QUANTITY.match(text):
        raise ValueError("must be a Kubernetes quantity above zero, such as 500m, 2 or 4Gi")
    return text


def _dns_name(text: str) -> str:
    if text and not _DNS_LABEL.match(text):
        raise ValueError("must be a name as Kubernetes takes it: lower-case letters, digits, '-' and '.'")
    return text


def _no_evaluator(wanted: bool) -> bool:
    if wanted:
        raise ValueError("an evaluator replica would have nothing to do: the workers validate after every epoch")
    return wanted


def _env(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _ENV_NAME.match(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name == "TF_CONFIG":
            raise ValueError("TF_CONFIG is set by the operator")
    return variables


def _named(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for item in items:
        if not isinstance(item.get("name"), str):
            raise ValueError(f"each needs a name: {item!r}")
    return items


def _whole_numbers(value: Any) -> Any:
    """KFP turns the integers inside a struct parameter into floats; Kubernetes takes only integers."""
    if isinstance(value, dict):
        return {name: _whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: item if isinstance(item, str) else str(_whole_numbers(item)) for name, item in value.items()}
    return value


Quantity = Annotated[str, AfterValidator(_quantity)]
Name = Annotated[str, AfterValidator(_dns_name)]
Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
Fragment = Annotated[dict[str, Any], BeforeValidator(_whole_numbers)]
Fragments = Annotated[list[dict[str, Any]], BeforeValidator(_whole_numbers)]


class JobSettings(BaseModel):
    """The rarer settings, given as one struct parameter, `job`. Fragments are written as in a pod's manifest.

    Attributes:
        chief: Whether the first worker is a replica of its own, Chief (TFJob only).
        evaluator: Refused: validation is part of the training.
        namespace: Where the job runs; empty for the step's own.
        image_pull_policy: As in a container's manifest (TFJob only).
        image_pull_secrets: Names of secrets.
        gpu_resource: What `worker_gpus` counts.
        env: Environment variables of the workers.
        volumes: Further volumes.
        volume_mounts: Where they are mounted.
        node_selector: Labels that a node must have.
        tolerations: Taints that a node may have.
        affinity: As in a pod's manifest.
        priority_class: Name of a PriorityClass (TFJob only).
        service_account: Of the workers, which never call the cluster's API.
        labels: Of the job and its pods.
        annotations: Of the job and its pods.
        run_as_user: User and group id of the workers.
        runtime: Name of the ClusterTrainingRuntime (TrainJob only).
        scheduling_policy: For gang scheduling, as in a TFJob's runPolicy (TFJob only).
        clean_pod_policy: Which pods go when the job has ended (TFJob only).
        ttl_seconds: How long an ended job is kept (TFJob only).
        backoff_limit: Failures of pods until the operator gives up (TFJob only); by default it follows `max_restarts`.
        deadline_seconds: The job's longest duration.
        start_seconds: How long a pod may take to start before the job counts as failed; a worker has to wait as long
            for its peers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chief: bool = False
    evaluator: Annotated[bool, AfterValidator(_no_evaluator)] = False
    namespace: Name = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[Name] = Field(default_factory=list)
    gpu_resource: str = "nvidia.com/gpu"
    env: Annotated[Texts, AfterValidator(_env)] = Field(default_factory=dict)
    volumes: Annotated[Fragments, AfterValidator(_named)] = Field(default_factory=list)
    volume_mounts: Annotated[Fragments, AfterValidator(_named)] = Field(default_factory=list)
    node_selector: Texts = Field(default_factory=dict)
    tolerations: Fragments = Field(default_factory=list)
    affinity: Fragment = Field(default_factory=dict)
    priority_class: Name = ""
    service_account: Name = ""
    labels: Texts = Field(default_factory=dict)
    annotations: Texts = Field(default_factory=dict)
    run_as_user: int = Field(default=1000, ge=1)
    runtime: Name = "tensorflow-distributed"
    scheduling_policy: Fragment = Field(default_factory=dict)
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    ttl_seconds: int = Field(default=86_400, ge=0)
    backoff_limit: int | None = Field(default=None, ge=0)
    deadline_seconds: int = Field(default=86_400, ge=1)
    start_seconds: int = Field(default=START_SECONDS, ge=1)


class JobOptions(BaseModel):
    """What train takes for a cluster.

    Attributes:
        worker_image: On a cluster, the workers' image; empty for the one of this version, with NVIDIA's libraries where
            they have GPUs.
        worker_cpu: On a cluster, CPUs of each worker; empty for those set on the task, else 1.
        worker_memory: On a cluster, memory of each worker; empty for that set on the task, else 2Gi,
            or 4Gi for a backbone of Keras.
        worker_gpus: On a cluster, GPUs of each worker.
        pvc: On a cluster, the claim of the volume that the workers share with this step.
        job: On a cluster, rarer settings of the training job as JSON; see components/train/README.md.
    """

    model_config = ConfigDict(frozen=True)

    worker_image: str = ""
    worker_cpu: Quantity = ""
    worker_memory: Quantity = ""
    worker_gpus: int = Field(default=0, ge=0)
    pvc: Name = ""
    job: JobSettings = Field(default_factory=JobSettings)

    @property
    def peer_seconds(self) -> int:
        """How long a worker has to wait for its peers where the user does not say: until the last pod may start."""
        return self.job.start_seconds + MEETING_SECONDS

    def image(self, gpus: int) -> str:
        """The image of workers that have so many GPUs each."""
        return self.worker_image or (TENSORFLOW_GPU_IMAGE if gpus else TENSORFLOW_IMAGE)


_TFJOB_ONLY = {
    "chief": "JobSet's pods have no roles",
    "image_pull_policy": "set it in the ClusterTrainingRuntime",
    "priority_class": "set it in the ClusterTrainingRuntime",
    "scheduling_policy": "set podGroupPolicy in the ClusterTrainingRuntime",
    "clean_pod_policy": "JobSet keeps the pods of an ended job",
    "ttl_seconds": "set it in the ClusterTrainingRuntime",
    "backoff_limit": "set failurePolicy in the ClusterTrainingRuntime",
}


def check_waiting(peer_seconds: int, options: JobOptions) -> None:
    """Checks that workers wait for each other at least as long as their pods may take to start.

    Raises:
        InvalidInput: When they do not: each image that is pulled slowly would cost a restart.
    """
    start_seconds = options.job.start_seconds
    if peer_seconds < start_seconds:
        raise InvalidInput(
            f"peer_seconds = {peer_seconds}: a worker would give its peers up before job.start_seconds = "
            f"{start_seconds}, in which their pods may start; give at least {options.peer_seconds}, or 0 for that"
        )


def check_backend(options: JobOptions, backend: str) -> None:
    """Checks that a backend can do what is asked of it.

    Raises:
        InvalidInput: With every setting that it cannot.
    """
    given = options.job.model_fields_set
    wrong = {"tfjob": {"runtime": "a TFJob has no runtime"}, "trainjob": _TFJOB_ONLY}.get(backend, {})
    problems = [
        f"job.{name} = {getattr(options.job, name)!r}: not for backend {backend}: {why}"
        for name, why in wrong.items()
        if name in given
    ]
    if problems:
        raise InvalidInput(problems)
