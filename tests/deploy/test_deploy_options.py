import socket

import pytest

from components.deploy.options import DeployOptions
from components.errors import InvalidInput, checked


@pytest.mark.parametrize("name", ["", "Digits", "a_b", "-a", "a-", "1a", "a" * 64, "a.b", "a/b"])
def test_service_names_that_are_no_dns_label(name: str) -> None:
    with pytest.raises(InvalidInput, match="^service_name = "):
        checked(DeployOptions, service_name=name)


def test_taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"^service_port = {port}: the port is taken by another process"):
            checked(DeployOptions, service_name="digits", service_port=port)
    assert checked(DeployOptions, service_name="digits", service_port=port).service_port == port


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_such_port(port: int) -> None:
    with pytest.raises(InvalidInput, match="^service_port = "):
        checked(DeployOptions, service_name="digits", service_port=port)
