"""Where workers listen, and how they are reached."""

import errno
import functools
import ipaddress
import socket
import time
from typing import Any

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.exchange.failures import ExchangeFailed

# For messages of megabytes, so that a whole one is on its way while this worker computes.
BUFFER_BYTES = 4 * 2**20
# The kernel asks an idle peer's kernel whether it is there: a node that lost its power is noticed in this time.
KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}
BIND_SECONDS = 10.0

SocketAddress = tuple[Any, ...]


def split_address(address: str) -> tuple[str, int]:
    """Takes host:port apart; an IPv6 address has brackets around it.

    Raises:
        InvalidInput: When it is something else.
    """
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in bare and bare == host):
        raise InvalidInput(f"address = {address!r}: expected host:port, or [address]:port with IPv6")
    return bare, int(port)


def resolve(address: str) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Asks for a name's addresses, IPv6 and IPv4; anew each time, as a pod's name gets its address late, or a new one.

    Raises:
        OSError: When it has none.
    """
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found if family in (socket.AF_INET, socket.AF_INET6)]


def open_door(address: str, backlog: int) -> socket.socket:
    """Listens at an address; without a host, at all of this machine's, IPv6 and IPv4.

    Waits a moment for a port that is taken, as the process that had this place before may be about to go.

    Raises:
        ExchangeFailed: When that is not possible.
    """
    host, port = split_address(address)
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            door = _listen(host, port)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise ExchangeFailed(
                    f"this worker cannot listen at {address}: {error.strerror}; is another process using the port?"
                ) from None
            time.sleep(0.1)
    ready_for_sums(door)
    door.listen(backlog)
    return door


def _listen(host: str, port: int) -> socket.socket:
    if host:
        family, sockaddr = resolve(f"[{host}]:{port}")[0]
        return _bound(family, sockaddr)
    if socket.has_dualstack_ipv6():
        return _bound(socket.AF_INET6, ("::", port))
    return _bound(socket.AF_INET, ("0.0.0.0", port))


def _bound(family: socket.AddressFamily, sockaddr: SocketAddress) -> socket.socket:
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setblocking(False)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        door.bind(sockaddr)
    except OSError:
        door.close()
        raise
    return door


def ready_for_sums(connection: socket.socket) -> None:
    """Sets what a connection needs before it is made; those that a door accepts have it from the door."""
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    for buffer in _buffers_granted():
        connection.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)


@functools.cache
def _buffers_granted() -> tuple[int, ...]:
    """The buffers that the kernel makes as large as they are wanted (net.core.wmem_max and rmem_max).

    Where it does not, a buffer is better left alone: the kernel then makes it larger by itself as it fills, up to
    net.ipv4.tcp_wmem and tcp_rmem, which it no longer does for one that was set.
    """
    granted = []
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
            if trial.getsockopt(socket.SOL_SOCKET, buffer) >= 2 * BUFFER_BYTES:  # Linux counts its own part, too
                granted.append(buffer)
    return tuple(granted)


def own_door(address: str) -> str:
    """Where a worker listens that others find at `address`: on the machine itself if they look there, else everywhere.

    In a pod its own name may resolve to a service's address, at which it cannot listen.
    """
    host, port = split_address(address)
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        return f":{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
