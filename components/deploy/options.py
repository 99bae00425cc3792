"""What deploy takes, and what it accepts."""

import errno
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.deploy.kserve.options import DNS_LABEL, ServiceOptions, mode_problems

DeployBackend = Literal["auto", "local", "kserve"]
LOOPBACK = "127.0.0.1"

Namespace = Annotated[str, Field(max_length=63, pattern=f"^$|{DNS_LABEL}")]
ServiceName = Annotated[str, Field(max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]


def _free_port(port: int) -> int:
    if port:
        with socket.socket() as probe:
            # As a server does: a port that only lingers from an earlier connection is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                why = "is taken by another process" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
                raise ValueError(f"the port {why}; choose another, or 0 for any free one") from None
    return port


class DeployOptions(BaseModel):
    """Parameters of deploy.

    Attributes:
        backend: What serves the model: `local`, a model server process on this machine; `kserve`, an InferenceService;
            `auto`, the latter when this is a pod.
        service_name: Name of the service, and of the model in its URLs; a DNS label.
        service_port: Port of a local server; 0 for any free one.
        namespace: Where the InferenceService is; empty for the namespace of the step.
        runtime: On a cluster, what serves the model: `tensorflow` for KServe's TensorFlow Serving, or the name of
            another ServingRuntime or ClusterServingRuntime.
        min_replicas: On a cluster, replicas of the service, at least; 0 with Knative alone.
        max_replicas: On a cluster, replicas of the service, at most.
        canary_percent: On a cluster, share of the requests that the new version gets beside the old one; 0 for all.
        service: On a cluster, rarer settings of the service as JSON; see docs/deploying.md.
    """

    model_config = ConfigDict(frozen=True)

    backend: DeployBackend = "auto"
    service_name: ServiceName
    service_port: Annotated[int, Field(ge=0, le=65535), AfterValidator(_free_port)] = 0
    namespace: Namespace = ""
    runtime: str = Field(default="tensorflow", pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=3, ge=1)
    canary_percent: int = Field(default=0, ge=0, le=99)
    service: ServiceOptions = ServiceOptions()

    @model_validator(mode="after")
    def _fits_together(self) -> "DeployOptions":
        problems = mode_problems(self.service, self.min_replicas, self.canary_percent)
        if self.min_replicas > self.max_replicas:
            problems.append(f"min_replicas = {self.min_replicas}: more than max_replicas = {self.max_replicas}")
        if self.service.scale_target and not self.service.scale_metric:
            problems.append(f"service.scale_target = {self.service.scale_target}: of what? Give service.scale_metric")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def to_cluster(self) -> bool:
        return self.backend == "kserve" or (self.backend == "auto" and in_cluster())


class ServiceChange(BaseModel):
    """Parameters of promote and rollback.

    Attributes:
        service_name: Name of the InferenceService.
        namespace: Where it is; empty for the namespace of the step.
        service: Its ingress, and how long to wait, as JSON; see docs/deploying.md.
    """

    model_config = ConfigDict(frozen=True)

    service_name: ServiceName
    namespace: Namespace = ""
    service: ServiceOptions = ServiceOptions()
