"""Where the model server listens."""

import socket

from kfp_image_classification.components.step.errors import StageFailed


def bound(host: str, port: int, parameter: str) -> socket.socket:
    """A socket at an address that nobody else has; it does not listen yet.

    Args:
        host: Name or address; `::` is all of IPv6 and IPv4.
        port: A number.
        parameter: What the port was given as, for the message.

    Raises:
        StageFailed: When the address is taken, or is none of this machine.
    """
    try:
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:  # as gRPC does: all addresses of IPv6 are those of IPv4 as well, whatever the system's default
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StageFailed(f"{parameter} = {port}: cannot listen on {address(host, port)} ({reason})") from None
    return found


def address(host: str, port: int) -> str:
    """Host and port in one, as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
