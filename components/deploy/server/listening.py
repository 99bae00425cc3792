"""Where a server listens; the model server's address, and the collector's."""

import errno
import socket

from kfp_image_classification.components.step.errors import StageFailed

# Where the port is at fault, what to do; anything else is the host's.
_PORT_REMEDIES = {
    errno.EADDRINUSE: "stop the program that has it, or choose another port",
    errno.EACCES: "choose a port from 1024: those below are not for every user",
}


def bound(host: str, port: int, parameter: str) -> socket.socket:
    """A socket at an address that nobody else has; it does not listen yet.

    Args:
        host: Name or address; `::` is all of IPv6 and IPv4.
        port: A number.
        parameter: What the port was given as, for the message.

    Raises:
        StageFailed: When the address is taken, is not for this user, or is none of this machine.
    """
    place = address(host, port)
    try:
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:  # as gRPC does: all addresses of IPv6 are those of IPv4 as well, whatever the system's default
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((host, port))
        # Until it listens, another socket that may reuse the address could be bound to it as well.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OverflowError:
        raise StageFailed(f"{parameter} = {port}: cannot listen on {place}; give a port from 0 to 65535") from None
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        reason = getattr(error, "strerror", None) or error
        if remedy := _PORT_REMEDIES.get(getattr(error, "errno", None) or 0):
            raise StageFailed(f"{parameter} = {port}: cannot listen on {place} ({reason}); {remedy}") from None
        raise StageFailed(
            f"host = {host!r}: cannot listen on {place} ({reason}); give a name or address of this machine, 0.0.0.0 "
            "for all of IPv4, or :: for all of IPv6 and IPv4"
        ) from None
    return found


def leaves_address_free(listening: socket.socket) -> None:
    """To be called before it listens: the address can then be used again at once when its server has ended.

    Connections inherit this, and the system keeps them for a minute after their end.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def address(host: str, port: int) -> str:
    """Host and port in one, as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bare_host(text: str) -> str:
    """An address of IPv6 may come in the brackets that it has in URLs."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text
