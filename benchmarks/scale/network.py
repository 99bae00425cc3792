"""A network for workers on one machine: each in a network namespace, with a link of limited speed to one switch."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

LINKS: dict[str, float | None] = {"none": None, "1g": 1e9, "10g": 1e10}
# One way, on a link that is limited: what a switch and two network cards take.
DELAY_SECONDS = 25e-6
_PREFIX = "kfpscale"
# A bucket lets so much pass at full speed after a pause. A timer of the kernel is late by about so long, and what the
# bucket cannot hold meanwhile is lost; less than two packets would never pass.
_BUCKET_SECONDS = 200e-6
_PACKET_BYTES = 65536
_QUEUE_BYTES = 64 * 2**20


class NotPossible(Exception):
    """This machine, or this user, cannot have such a network."""


class Network:
    """Workers' namespaces, and the one with the switch to which all are linked.

    Attributes:
        addresses: Each worker's IPv4 address.
        has_delay: Whether the kernel can hold packets back (netem).
    """

    def __init__(self, workers: int) -> None:
        self.addresses = [f"10.99.0.{index + 1}" for index in range(workers)]
        self.has_delay = False
        self._switch = f"{_PREFIX}{os.getpid()}-switch"
        self._namespaces = [f"{_PREFIX}{os.getpid()}-{index}" for index in range(workers)]

    def build(self) -> None:
        """Makes the namespaces and links, without limits.

        Raises:
            NotPossible: When the kernel or the user's permissions do not allow it.
        """
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "switch", "up")
        for index, (namespace, address) in enumerate(zip(self._namespaces, self.addresses, strict=True)):
            _run("ip", "netns", "add", namespace)
            ends = ["eth0", "netns", namespace, "type", "veth", "peer", "name", f"port{index}", "netns", self._switch]
            _run("ip", "link", "add", *ends)
            _run("ip", "-n", namespace, "address", "add", f"{address}/16", "dev", "eth0")
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
            _run("ip", "-n", namespace, "link", "set", "eth0", "up")
            _run("ip", "-n", self._switch, "link", "set", f"port{index}", "master", "switch", "up")
        self.has_delay = self._can_delay()

    def shape(self, bits_per_second: float | None, slower: float) -> None:
        """Limits all links, in both directions.

        Args:
            bits_per_second: Of each link in each direction; None takes limits away.
            slower: By how much time is dilated.
        """
        for index, namespace in enumerate(self._namespaces):
            for where, device in ((namespace, "eth0"), (self._switch, f"port{index}")):
                _run("tc", "-n", where, "qdisc", "del", "dev", device, "root", check=False)
                if bits_per_second is not None:
                    self._limit(where, device, bits_per_second / slower, slower)

    def inside(self, index: int, command: list[str]) -> list[str]:
        """The command that runs another one within a worker's namespace."""
        return ["ip", "netns", "exec", self._namespaces[index], *command]

    def remove(self) -> None:
        """Removes everything that was made; links go with their namespaces."""
        for namespace in (*self._namespaces, self._switch):
            _run("ip", "netns", "delete", namespace, check=False)

    def _limit(self, where: str, device: str, rate: float, slower: float) -> None:
        parent = ["root"]
        if self.has_delay and where != self._switch:  # once a way
            delay = f"{DELAY_SECONDS * slower * 1e6:.0f}us"
            _run("tc", "-n", where, "qdisc", "add", "dev", device, *parent, "handle", "1:", "netem", "delay", delay)
            parent = ["parent", "1:1"]
        bucket = max(2.5 * _PACKET_BYTES, rate / 8 * _BUCKET_SECONDS)
        limits = ["rate", f"{rate:.0f}bit", "burst", f"{bucket:.0f}b", "limit", str(_QUEUE_BYTES)]
        _run("tc", "-n", where, "qdisc", "add", "dev", device, *parent, "handle", "2:", "tbf", *limits)

    def _can_delay(self) -> bool:
        device = ["-n", self._switch, "qdisc"]
        added = _run("tc", *device, "add", "dev", "port0", "root", "netem", "delay", "1ms", check=False)
        _run("tc", *device, "del", "dev", "port0", "root", check=False)
        return added


@contextlib.contextmanager
def network(workers: int) -> Iterator[Network]:
    """Makes a network that is gone afterwards, whatever happens.

    Raises:
        NotPossible: When this machine, or this user, cannot have one.
    """
    _require()
    _remove_leftovers()
    made = Network(workers)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def _require() -> None:
    if os.geteuid():
        raise NotPossible(
            "network namespaces and limited links are for root alone to make: run it as root, or in a container with "
            "the capabilities NET_ADMIN and SYS_ADMIN"
        )
    for tool in ("ip", "tc"):
        if not shutil.which(tool):
            raise NotPossible(f"{tool} is not there: install iproute2 (apt-get install iproute2)")


def _remove_leftovers() -> None:
    """Removes the networks of runs that were killed."""
    for namespace in Path("/run/netns").glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", namespace.name)
        if owner and not Path("/proc", owner[1]).exists():
            _run("ip", "netns", "delete", namespace.name, check=False)


def _run(*command: str, check: bool = True) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", process_group=0)
    if check and done.returncode:
        raise NotPossible(f"`{' '.join(command)}` failed: {done.stderr.strip()}; does the kernel have this?")
    return done.returncode == 0
