"""What deploy takes, and what it accepts."""

import errno
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DeployBackend = Literal["local"]
LOOPBACK = "127.0.0.1"


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
        backend: What serves the model: `local`, a model server process on this machine.
        service_name: The model's name in URLs; a DNS label, as a Kubernetes service must be.
        service_port: Port of the local server; 0 for any free one.
    """

    model_config = ConfigDict(frozen=True)

    backend: DeployBackend = "local"
    service_name: str = Field(max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    service_port: Annotated[int, Field(ge=0, le=65535), AfterValidator(_free_port)] = 0
