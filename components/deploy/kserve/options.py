"""The rarer settings of an InferenceService: what the parameter `service` of deploy, promote and rollback takes."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# KServe 0.16 renamed the modes; both names of each are understood here, and the one given is what is written.
STANDARD_MODES = ("Standard", "RawDeployment")
KNATIVE_MODES = ("Knative", "Serverless")
DeploymentMode = Literal["Standard", "RawDeployment", "Knative", "Serverless"]

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_QUALIFIED_NAME = re.compile(r"([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_HTTP_URL = r"^https?://[^\s/?#]+(/[^\s?#]*)?$"
_LOG_URL = r"^(https?|s3|gs)://[^\s/?#]+(/[^\s?#]*)?$"


def _quantity(value: Any) -> str:
    # KFP passes numbers inside structs as floats.
    text = f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text):
        raise ValueError("expected a Kubernetes quantity, such as 500m, 2 or 2Gi")
    return text


def _qualified_name(key: str) -> str:
    if not _QUALIFIED_NAME.fullmatch(key):
        raise ValueError("expected a name as Kubernetes allows for labels and annotations")
    return key


def _label_value(value: str) -> str:
    if not _LABEL_VALUE.fullmatch(value):
        raise ValueError("expected a label's value: at most 63 letters, digits, '-', '_' or '.'")
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else value


Quantity = Annotated[str, BeforeValidator(_quantity)]
Key = Annotated[str, AfterValidator(_qualified_name)]
LabelValue = Annotated[str, BeforeValidator(_text), AfterValidator(_label_value)]
Resources = dict[Literal["requests", "limits"], dict[Key, Quantity]]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LoggerStorage(_Settings):
    """How KServe's agent keeps in a bucket what it logs.

    The agent uploads one object after the other, and predictions wait when a hundred events do: so it is told to put
    several into each. What it has gathered when its pod ends is lost.

    Attributes:
        path: The folder's name, the last part of the path to the files.
        service_account: Service account that lists the Secret with the credentials; empty for KServe's default,
            `logger-sa`.
        format: Of the files: `json`, or `parquet`, which does not say when an event was.
        batch_size: Events in a file; KServe 0.16 makes a file of each.
        batch_seconds: How long an event waits for others, at most.
    """

    path: str = Field(default="log", pattern=r"^[^/\s][^\s]*$")
    service_account: str = Field(default="", pattern=f"^$|{_DNS_NAME}")
    format: Literal["json", "parquet"] = "json"
    batch_size: int = Field(default=20, ge=1, le=1000)
    batch_seconds: int = Field(default=10, ge=1)


class Logger(_Settings):
    """Sends each request or answer to a URL as a CloudEvent, or writes it to a bucket.

    Attributes:
        mode: What is sent.
        url: Where to, such as `http://collector.kubeflow.svc.cluster.local`, `s3://bucket/path` or `gs://bucket/path`.
        storage: Of a bucket; KServe 0.16 and newer.
    """

    mode: Literal["all", "request", "response"] = "all"
    url: str = Field(pattern=_LOG_URL)
    storage: LoggerStorage | None = None

    @model_validator(mode="after")
    def _bucket_has_storage(self) -> "Logger":
        if self.storage and self.url.startswith("http"):
            raise ValueError("storage is for a bucket; give url as s3://BUCKET/PATH or gs://BUCKET/PATH, or leave it")
        return self

    def manifest(self) -> dict[str, Any]:
        """What KServe calls it."""
        if self.url.startswith("http"):
            return {"mode": self.mode, "url": self.url}
        storage = self.storage or LoggerStorage()
        account = {"serviceAccountName": storage.service_account} if storage.service_account else {}
        return {
            "mode": self.mode,
            "url": self.url,
            # Without a path, KServe's agent writes nothing (cmd/agent/main.go). Without a key, its webhook takes no
            # storage (validateLogger in pkg/apis/serving/v1beta1/component.go); nobody reads it: this is the default.
            "storage": {
                "path": storage.path,
                "parameters": {"format": storage.format},
                "key": "credentials",
                **account,
            },
            "batchSize": storage.batch_size,
            "batchInterval": f"{storage.batch_seconds}s",
        }


class Batcher(_Settings):
    """Gathers requests in front of the model; KServe's agent does it, apart from any batching of the server itself.

    Attributes:
        max_batch_size: Images in a batch, at most.
        max_latency: Milliseconds that a request waits for others, at most.
        timeout: Seconds after which a batch's prediction is given up.
    """

    max_batch_size: int = Field(default=32, ge=1)
    max_latency: int = Field(default=50, ge=1)
    timeout: int = Field(default=60, ge=1)


class Toleration(_Settings):
    """Lets pods onto nodes with a taint; see Kubernetes' own description of the fields."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: Annotated[str, BeforeValidator(_text)] = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ServiceOptions(_Settings):
    """What can be said of an InferenceService beyond the parameters that everybody needs.

    Attributes:
        storage_uri: Where the cluster finds the model, such as `pvc://claim/path`; empty for the Model artifact's URI.
        deployment_mode: `Standard` (Deployments; no Knative needed) or `Knative`. KServe before 0.16 knows the same two
            as `RawDeployment` and `Serverless`. It cannot change while a service exists.
        model_format: The format that the runtime must support.
        runtime_version: Tag of the runtime's image; empty for the runtime's own, which for KServe's TensorFlow Serving
            is 2.6.2.
        service_account: Service account of the pods, with the credentials of the model's store; empty for none. By
            default `model-reader` for a model in S3, else none.
        resources: `{"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}}`.
        scale_metric: What the number of replicas follows: `cpu` or `memory` (Standard), `concurrency` or `rps`
            (Knative).
        scale_target: Its value for each replica: percent of the request, or requests.
        container_concurrency: Requests that a replica works on at once, at most; Knative only; 0 for no limit.
        autoscaling_target: The annotation `autoscaling.knative.dev/target`; Knative only.
        logger: Where requests and answers are logged.
        batcher: Batching in front of the model.
        node_selector: Labels that a node must have.
        tolerations: Taints that a node may have.
        image_pull_secrets: Names of secrets for the image's registry.
        labels: More labels of the service and its pods.
        annotations: More annotations of the service and its pods.
        ingress_url: Address of the ingress, through which the smoke prediction goes with the service's host name as the
            Host header; empty for the service's own address.
        adopt: Take over a service of this name that this component did not make.
        keep_failed: Leave a first deployment that failed in place, to be looked at, where it would be removed.
        wait_seconds: How long a version may take to become ready.
        poll_seconds: Time between two looks at the service.
        settle_seconds: How long a failure must stand in the service's status to count: KServe takes a moment to notice
            a new version, and repeats some errors that pass.
        unschedulable_seconds: How long a pod may find no node; raise it where a cluster autoscaler has to add one.
        smoke_seconds: How long the address of a ready service may take to answer.
        route_seconds: How long the ingress may take to follow when a canary's share of the requests changes.
    """

    storage_uri: str = ""
    deployment_mode: DeploymentMode = "Standard"
    model_format: str = Field(default="tensorflow", pattern=DNS_LABEL)
    runtime_version: str = Field(default="", pattern=r"^$|^[A-Za-z0-9_][-.A-Za-z0-9_]{0,127}$")
    service_account: str | None = Field(default=None, pattern=f"^$|{_DNS_NAME}")
    resources: Resources = {}
    scale_metric: Literal["", "cpu", "memory", "concurrency", "rps"] = ""
    scale_target: int = Field(default=0, ge=0)
    container_concurrency: int = Field(default=0, ge=0)
    autoscaling_target: int = Field(default=0, ge=0)
    logger: Logger | None = None
    batcher: Batcher | None = None
    node_selector: dict[Key, LabelValue] = {}
    tolerations: list[Toleration] = []
    image_pull_secrets: list[Annotated[str, Field(pattern=_DNS_NAME)]] = []
    labels: dict[Key, LabelValue] = {}
    annotations: dict[Key, Annotated[str, BeforeValidator(_text)]] = {}
    ingress_url: str = Field(default="", pattern=f"^$|{_HTTP_URL}")
    adopt: bool = False
    keep_failed: bool = False
    wait_seconds: float = Field(default=600.0, gt=0)
    poll_seconds: float = Field(default=2.0, gt=0)
    settle_seconds: float = Field(default=20.0, ge=0)
    unschedulable_seconds: float = Field(default=120.0, ge=0)
    smoke_seconds: float = Field(default=60.0, ge=0)
    route_seconds: float = Field(default=10.0, ge=0)

    @property
    def is_knative(self) -> bool:
        return self.deployment_mode in KNATIVE_MODES


# A label's value; and what KServe and Knative make of a service's name and put into one.
_LONGEST_LABEL = 63
_KNATIVE_NAME = "{}-predictor-00001"
_STANDARD_NAME = "isvc.{}-predictor"
_CANARY_NAME = "isvc.{}-v12345678-predictor"


def name_problems(service: ServiceOptions, name: str, canary_percent: int) -> list[str]:
    """What is too long in a service's name; KServe takes it, and then makes nothing of it without a word."""
    made = _KNATIVE_NAME if service.is_knative else _CANARY_NAME if canary_percent else _STANDARD_NAME
    longest = _LONGEST_LABEL - len(made.format(""))
    if len(name) <= longest:
        return []
    why = "with a canary" if made == _CANARY_NAME else f"in deployment mode {service.deployment_mode}"
    return [f"service_name = {name!r}: has {len(name)} characters; {why} it has {longest} at most"]


def mode_problems(service: ServiceOptions, min_replicas: int, canary_percent: int) -> list[str]:
    """What the service's deployment mode cannot do, and KServe would refuse late or ignore without a word."""
    mode = f"in deployment mode {service.deployment_mode}"
    if service.is_knative:
        if service.scale_metric in ("cpu", "memory"):
            return [f"service.scale_metric = {service.scale_metric!r}: {mode} it is concurrency or rps"]
        return []
    problems = []
    if service.scale_metric in ("concurrency", "rps"):
        problems.append(f"service.scale_metric = {service.scale_metric!r}: {mode} it is cpu or memory")
    for name in ("container_concurrency", "autoscaling_target"):
        if getattr(service, name):
            problems.append(f"service.{name} = {getattr(service, name)!r}: has no effect {mode}, only in Knative")
    if min_replicas == 0:
        problems.append(f"min_replicas = 0: {mode} a service cannot be scaled to zero; give 1, or use Knative")
    if canary_percent and not service.ingress_url:
        problems.append(
            f"canary_percent = {canary_percent}: {mode} requests are split at the ingress, and only a prediction "
            "through it can prove the canary; give service.ingress_url"
        )
    return problems
