"""Processes and proxies of a test, which end with it."""

from collections.abc import Callable, Iterator

import pytest
from exchange_workers import Process
from network_proxy import Proxy

from kfp_image_classification.components.train.launchers.machine import free_ports


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts a worker as a process."""
    processes: list[Process] = []

    def started(addresses: list[str], index: int, **options: object) -> Process:
        processes.append(Process(addresses, index, **options))
        return processes[-1]

    yield started
    for process in processes:
        process.end()


@pytest.fixture
def proxied() -> Iterator[Callable[..., Proxy]]:
    """Puts a proxy before a port."""
    proxies: list[Proxy] = []

    def put(*arguments: object, **options: object) -> Proxy:
        proxies.append(Proxy(*arguments, **options))  # type: ignore[arg-type]
        return proxies[-1]

    yield put
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def addresses() -> Callable[[int], list[str]]:
    """Addresses at which nobody listens yet."""
    return lambda workers: [f"127.0.0.1:{port}" for port in free_ports(workers)]
