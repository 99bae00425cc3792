"""Where an InferenceService answers. Pure."""

import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from kfp_image_classification.components.step.errors import StageFailed


@dataclass(frozen=True)
class Address:
    """Base URL of a service, and the headers that a request to it needs."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def model_url(self, name: str) -> str:
        return f"{self.url}/v1/models/{name}"


def service_address(service: dict[str, Any], in_cluster: bool, ingress_url: str = "") -> Address:
    """Picks the address for a client: through the ingress when one is given, else the cluster's own or the public one.

    Args:
        service: An InferenceService that is ready.
        in_cluster: Whether the client runs in the cluster.
        ingress_url: Address of the ingress, which finds the service by the Host header.

    Raises:
        StageFailed: When the status has no address.
    """
    status = service.get("status") or {}
    public = str(status.get("url") or "").rstrip("/")
    internal = str((status.get("address") or {}).get("url") or "").rstrip("/")
    if ingress_url:
        if not public:
            raise StageFailed(
                f"{service['metadata']['name']} has no public address (status.url) to ask the ingress for"
            )
        split = urllib.parse.urlsplit(public)
        return Address(ingress_url.rstrip("/") + split.path, {"Host": split.netloc})
    url = (internal or public) if in_cluster else (public or internal)
    if not url:
        raise StageFailed(f"{service['metadata']['name']} is ready but has no address in its status")
    return Address(url)
