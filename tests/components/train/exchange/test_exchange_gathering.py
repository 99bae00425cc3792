"""How workers come together: late, at odd addresses, through proxies, and among strangers."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from exchange_workers import TOKEN, Process
from network_proxy import Proxy
from skips import Need, skip
from slow_cases import most_slow

from kfp_image_classification.components.train.exchange import Exchange, ExchangeFailed, PeersMissing, Refused
from kfp_image_classification.components.train.exchange import gathering as gathering_module
from kfp_image_classification.components.train.exchange.handshake import Place, call
from kfp_image_classification.components.train.exchange.messages import GREETING_BYTES, Kind

Start = Callable[..., Process]
Addresses = Callable[[int], list[str]]
Proxied = Callable[..., Proxy]


def join(addresses: list[str], index: int, **change: Any) -> Exchange:
    options = {"token": TOKEN, "job": "job", "attempt": 1, "values": 8, "gather_seconds": 20, "stuck_seconds": 20}
    return Exchange.join(addresses, index, **{**options, **change})


class Joining(threading.Thread):
    """A worker that joins in a thread."""

    def __init__(self, addresses: list[str], index: int, **change: Any) -> None:
        super().__init__()
        self._arguments = (addresses, index)
        self._change = change
        self.exchange: Exchange | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.exchange = join(*self._arguments, **self._change)
        except BaseException as error:
            self.error = error

    def ended(self) -> "Joining":
        self.join(60)
        assert not self.is_alive()
        if self.exchange:
            self.exchange.close()
        return self


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def connected(address: str, seconds: float = 10) -> socket.socket:
    """A stranger's connection to a worker, as soon as it listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port(address)), timeout=5)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def both_join(own: list[str], first: Joining, **change: Any) -> None:
    """The second worker comes, and both can sum."""
    second = Joining(own, 1, **change).ended()
    assert (first.ended().error, second.error) == (None, None)


def test_nobody_listens_once_all_are_there(addresses: Addresses) -> None:
    own = addresses(2)
    joined = [Joining(own, index) for index in (0, 1)]
    for one in joined:
        one.join(30)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port(own[0])))
    for one in joined:
        one.ended()


def test_a_worker_that_comes_late(addresses: Addresses) -> None:
    own = addresses(3)
    joined = [Joining(own, index) for index in (1, 2)]
    time.sleep(1)
    joined.append(Joining(own, 0))
    assert [one.ended().error for one in joined] == [None] * 3


@pytest.mark.parametrize("workers", most_slow([2, 5], 5))
def test_those_that_did_not_come_are_named(addresses: Addresses, workers: int) -> None:
    own = addresses(workers)
    missing = workers - 1
    joined = [Joining(own, index, gather_seconds=2) for index in range(missing)]
    errors = [one.ended().error for one in joined]
    assert all(isinstance(error, ExchangeFailed) for error in errors)
    assert any(f"from worker {missing} at {own[missing]}" in str(error) for error in errors)
    assert all(str(missing) in str(error) for error in errors), errors


def test_a_name_that_does_not_resolve_is_named(addresses: Addresses) -> None:
    with pytest.raises(PeersMissing) as missed:
        join(["worker-0.invalid:2223", addresses(1)[0]], 1, gather_seconds=1)
    assert missed.value.peers == (0,)
    assert "worker 0 at worker-0.invalid:2223 (its name cannot be resolved: " in str(missed.value)


def test_a_name_that_resolves_late(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    own = addresses(2)
    named = [f"worker-0.job:{port(own[0])}", own[1]]
    asked: list[str] = []
    real = socket.getaddrinfo

    def late(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "worker-0.job":
            return real(host, *arguments, **options)
        asked.append(host)
        if len(asked) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        # A pod that was replaced: nobody is at the first address any more.
        gone = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", port(own[0])))
        return [gone, *real("127.0.0.1", *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", late)
    first = Joining(named, 0, listen=f"127.0.0.1:{port(own[0])}")
    both_join(named, first)
    assert len(asked) >= 4


def test_ipv6(addresses: Addresses) -> None:
    if not socket.has_dualstack_ipv6():
        skip(Need.SYSTEM, "no IPv6 here")
    own = [f"[::1]:{port(address)}" for address in addresses(3)]
    joined = [Joining(own, index) for index in range(3)]
    assert [one.ended().error for one in joined] == [None] * 3


def test_listens_where_it_is_told_to(addresses: Addresses) -> None:
    """The others find it at another port, as behind a port mapping; over IPv4 and IPv6, as all interfaces are meant."""
    own, mapped = addresses(2), addresses(1)[0]
    first = Joining(own, 0, listen=f":{port(mapped)}")
    both_join([f"localhost:{port(mapped)}", own[1]], first)


def test_a_port_that_is_taken(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp_image_classification.components.train.exchange import addresses as addresses_module

    monkeypatch.setattr(addresses_module, "BIND_SECONDS", 0.3)
    own = addresses(2)
    with (
        socket.create_server(("127.0.0.1", port(own[0]))),
        pytest.raises(ExchangeFailed, match=f"cannot listen at {own[0]}: Address already in use; is another process"),
    ):
        join(own, 0)


def test_a_sidecar_that_accepts_before_the_worker_is_there(addresses: Addresses, proxied: Proxied) -> None:
    own = addresses(2)
    proxy = proxied(port(own[0]))
    second = Joining([f"127.0.0.1:{proxy.port}", own[1]], 1)
    while proxy.accepted < 3:
        time.sleep(0.05)
    first = Joining(own, 0)
    assert (first.ended().error, second.ended().error) == (None, None)


def test_a_sidecar_that_accepts_and_says_nothing(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering_module, "HANDSHAKE_SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(PeersMissing, match=r"worker 0 at .* \(no answer for 0.5 s\)"),
    ):
        join([f"127.0.0.1:{silent.getsockname()[1]}", addresses(1)[0]], 1, gather_seconds=2)


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: worker-0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0" * GREETING_BYTES,
        b"\xff" * 5000,
        b"KFPX" + b"\0" * (GREETING_BYTES - 4),
        b"KFPX" + b"\xff" * 10_000,
        b"KFPD" + b"\0" * 500,
    ],
)
def test_a_stranger_gets_nothing_and_disturbs_nobody(addresses: Addresses, words: bytes) -> None:
    own = addresses(2)
    first = Joining(own, 0)
    with connected(own[0]) as stranger:
        stranger.sendall(words)
        if not words:
            stranger.close()
        else:
            with contextlib.suppress(ConnectionResetError):
                stranger.settimeout(5)
                heard = stranger.recv(1000)
                # Only who speaks the protocol is told, without a secret, why it is refused.
                assert heard == b"" or (words.startswith(b"KFPX") and len(heard) == GREETING_BYTES)
    both_join(own, first)


def test_tls(addresses: Addresses) -> None:
    own = addresses(2)
    first = Joining(own, 0)
    context = ssl.create_default_context()
    with connected(own[0]) as stranger, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(stranger, server_hostname="worker-0")
    both_join(own, first)


def test_slow_strangers_more_than_there_is_room_for(addresses: Addresses) -> None:
    own = addresses(2)
    first = Joining(own, 0)
    strangers = [connected(own[0]) for _ in range(gathering_module.MOST_GUESTS * 2)]
    for stranger in strangers:
        with contextlib.suppress(OSError):
            stranger.sendall(b"KF")
    begun = time.monotonic()
    both_join(own, first)
    assert time.monotonic() - begun < 5
    for stranger in strangers:
        stranger.close()


def test_a_stranger_that_takes_its_time_is_shown_out(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering_module, "HANDSHAKE_SECONDS", 1.0)
    own = addresses(2)
    first = Joining(own, 0)
    with connected(own[0]) as stranger:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"KFPX" + b"\0" * 90:
                stranger.sendall(bytes([byte]))
                time.sleep(0.05)
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(10) == b""
        assert time.monotonic() - begun < 4
    both_join(own, first)


def test_a_hello_that_is_played_again(addresses: Addresses) -> None:
    """Whoever recorded a worker's first message can say it, but has no answer to what comes back."""
    own = addresses(2)
    place = Place(job="job", attempt=1, index=1, addresses=tuple(own), values=8, token=TOKEN)
    recorded = next(call(place, 0))
    first = Joining(own, 0)
    with connected(own[0]) as stranger:
        stranger.sendall(recorded)
        assert len(stranger.recv(1000)) == GREETING_BYTES
        stranger.sendall(recorded)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1000) == b""
    both_join(own, first)


def test_no_random_bytes_are_used_twice(addresses: Addresses) -> None:
    place = Place(job="job", attempt=1, index=1, addresses=("a:1", "b:1"), values=8, token=TOKEN)
    assert len({place.greeting(Kind.HELLO, 0).nonce for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token": b"another secret of thirty-two byt"}, "it does not know the job's token"),
        ({"job": "another job"}, "it belongs to another job"),
        ({"attempt": 0}, "it belongs to attempt 0 of the job instead of attempt 1"),
    ],
)
def test_who_does_not_belong_is_refused_and_the_right_one_awaited(
    addresses: Addresses, caplog: pytest.LogCaptureFixture, change: dict[str, Any], sentence: str
) -> None:
    own = addresses(2)
    with caplog.at_level(logging.WARNING):
        first = Joining(own, 0)
        wrong = Joining(own, 1, gather_seconds=2, **change).ended()
        both_join(own, first)
    assert isinstance(wrong.error, (Refused, PeersMissing))
    assert sentence in str(wrong.error)
    assert any(f"worker 1 calls, but does not fit: {sentence}" in line for line in caplog.messages)
    told = [*caplog.messages, str(wrong.error), repr(wrong.error)]
    assert not [line for line in told if TOKEN.decode() in line or TOKEN.hex() in line or "another secret" in line]


def test_an_older_attempt_has_to_leave_at_once(addresses: Addresses) -> None:
    own = addresses(2)
    first = Joining(own, 0, attempt=2)
    begun = time.monotonic()
    older = Joining(own, 1, attempt=1).ended()
    assert time.monotonic() - begun < 5
    assert isinstance(older.error, Refused)
    assert str(older.error) == (
        "worker 0: it refuses this worker: it belongs to attempt 1 of the job instead of attempt 2"
    )
    both_join(own, first, attempt=2)


def test_a_worker_that_waits_learns_of_a_newer_attempt(addresses: Addresses) -> None:
    own = addresses(2)
    older = Joining(own, 0, attempt=1)
    newer = Joining(own, 1, attempt=2)
    assert isinstance(older.ended().error, Refused)
    assert str(older.error) == (
        "worker 1 calls, but does not fit: it belongs to attempt 2 of the job instead of attempt 1"
    )
    replaced = Joining(own, 0, attempt=2)
    assert (newer.ended().error, replaced.ended().error) == (None, None)


@pytest.mark.parametrize("change", [{"values": 9}, {"addresses": 3}])
def test_other_settings_end_both_at_once(addresses: Addresses, change: dict[str, Any]) -> None:
    own = addresses(3)
    first = Joining(own[:2], 0)
    second = Joining(own if "addresses" in change else own[:2], 1, values=change.get("values", 8))
    begun = time.monotonic()
    errors = [first.ended().error, second.ended().error]
    assert time.monotonic() - begun < 5
    assert all(isinstance(error, Refused) for error in errors), errors
    assert all("values among" in str(error) for error in errors)


def test_another_version_ends_both_at_once(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    own = addresses(2)
    first = Joining(own, 0)
    place = Place(job="job", attempt=1, index=1, addresses=tuple(own), values=8, token=TOKEN)
    with connected(own[0]) as newer:
        newer.sendall(replace(place.greeting(Kind.HELLO, 0), version=2).sealed(TOKEN, b""))
        assert len(newer.recv(1000)) == GREETING_BYTES
    assert isinstance(first.ended().error, Refused)
    assert "version 2 of the protocol instead of 1; all need the same image" in str(first.error)


def test_another_worker_at_the_address(addresses: Addresses) -> None:
    """A name that still leads to the address that another worker has got."""
    own = addresses(3)
    two = Joining(own, 2, gather_seconds=3)  # would be called by nobody
    lost = Joining([own[1], own[0], own[2]], 1, listen=addresses(1)[0], gather_seconds=2)
    one = Joining(own, 1, gather_seconds=3)
    assert "looks for worker 0, at the address of worker 1" in str(lost.ended().error)
    for other in (one, two):
        assert isinstance(other.ended().error, ExchangeFailed)


def test_a_worker_that_was_started_again_while_others_were_awaited(start: Start, addresses: Addresses) -> None:
    own = addresses(3)
    first, second = start(own, 0), start(own, 1)
    time.sleep(1.5)
    second.end()
    again, third = start(own, 1), start(own, 2)
    assert len({process.told("digest")["digest"] for process in (first, again, third)}) == 1
