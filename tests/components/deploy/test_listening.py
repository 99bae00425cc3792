"""Where the model server and the collector listen: one address, one set of messages."""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import tenacity
from skips import Need, skip

from kfp_image_classification.components.deploy.server.listening import bound
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.launchers.machine import free_ports

SERVER = ["server", "--model_name=digits", "--model_dir=none", "--workers=2"]
COLLECTOR = ["collector", "--output=none"]
# Each program with its option for a port.
PROGRAMS = [
    pytest.param([*SERVER, "--enable_grpc=false"], "http_port", id="server"),
    pytest.param([*SERVER, "--http_port=0"], "grpc_port", id="gRPC"),
    pytest.param(COLLECTOR, "port", id="collector"),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ended(program: list[str], *options: str, before: tuple[str, ...] = ()) -> str:
    """The one line that a program, which cannot listen, leaves."""
    command = [*before, sys.executable, "-m", f"kfp_image_classification.components.deploy.{program[0]}"]
    answer = subprocess.run([*command, *program[1:], *options], capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 1
    assert list(Path().iterdir()) == [], "nothing is made before it is known that all will do"
    (line,) = (answer.stdout + answer.stderr).splitlines()
    return line


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
@pytest.mark.parametrize(("program", "parameter"), PROGRAMS)
def test_port_that_is_taken(program: list[str], parameter: str, family: int, host: str) -> None:
    """On `::`, which is all of IPv6 and IPv4, by one address of it."""
    with socket.create_server(("::1" if host == "::" else host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        place = f"[{host}]:{port}" if host == "::" else f"{host}:{port}"
        assert ended(program, f"--host={host}", f"--{parameter}={port}") == (
            f"error: {parameter} = {port}: cannot listen on {place} (Address already in use); "
            "stop the program that has it, or choose another port"
        )


@pytest.mark.parametrize(("program", "parameter"), PROGRAMS)
def test_port_that_is_none(program: list[str], parameter: str) -> None:
    line = ended(program, "--host=127.0.0.1", f"--{parameter}=99999")
    assert line == f"error: {parameter} = 99999: cannot listen on 127.0.0.1:99999; give a port from 0 to 65535"


@pytest.mark.parametrize(("program", "parameter"), PROGRAMS)
def test_port_that_is_not_for_this_user(program: list[str], parameter: str) -> None:
    port = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) - 1
    setpriv = shutil.which("setpriv")
    if port < 1 or not setpriv:
        skip(Need.SYSTEM, "needs ports that are for root alone, and setpriv")
    without = (setpriv, "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service")
    line = ended(program, "--host=127.0.0.1", f"--{parameter}={port}", before=without)
    assert line == (
        f"error: {parameter} = {port}: cannot listen on 127.0.0.1:{port} (Permission denied); "
        "choose a port from 1024: those below are not for every user"
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "two..dots", "2001:db8::1", "fe80::1:2:3"])
@pytest.mark.parametrize("program", [SERVER, COLLECTOR], ids=["server", "collector"])
def test_host_that_is_not_this_machine(program: list[str], host: str) -> None:
    line = ended(program, f"--host={host}")
    assert line.startswith(f"error: host = {host!r}: cannot listen on ")
    assert line.endswith(
        "; give a name or address of this machine, 0.0.0.0 for all of IPv4, or :: for all of IPv6 and IPv4"
    )


def test_http_and_grpc_need_two_ports() -> None:
    """Two sockets can be bound to one address, and only one of them can listen."""
    command = [sys.executable, "-m", "kfp_image_classification.components.deploy.server", *SERVER[1:]]
    answer = subprocess.run(
        [*command, "--http_port=9000", "--grpc_port=9000"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr.endswith("error: argument --grpc_port: 9000 is --http_port, too; give another one\n")


def test_an_address_is_taken_before_its_socket_listens() -> None:
    """A server loads its model first; one that starts in the same moment must not believe that it has the port."""
    with bound("127.0.0.1", 0, "port") as first:
        port = first.getsockname()[1]
        with pytest.raises(StageFailed, match=rf"^port = {port}: cannot listen on .* \(Address already in use\)"):
            bound("127.0.0.1", port, "port")


@contextlib.contextmanager
def collector(output: Path, host: str, port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "kfp_image_classification.components.deploy.collector", f"--output={output}"]
    with subprocess.Popen([*command, f"--host={host}", f"--port={port}"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


alive = tenacity.retry(
    retry=tenacity.retry_if_exception_type(httpx.TransportError),
    wait=tenacity.wait_fixed(0.1),
    stop=tenacity.stop_after_delay(60),
)(lambda client, url: client.get(f"{url}/healthz").json() == {"status": "alive"})


def test_an_address_is_free_as_soon_as_its_server_has_ended(tmp_path: Path) -> None:
    """Also where it has closed connections itself, which the system keeps for a minute."""
    port = free_ports(1)[0]
    for _ in range(2):
        with httpx.Client() as client, collector(tmp_path, "127.0.0.1", port) as process:
            assert alive(client, f"http://127.0.0.1:{port}")
            process.terminate()
            assert process.wait(30) == 0
    kept = [one for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port]
    assert "TIME_WAIT" in {one.status for one in kept}, "it proves nothing"


def test_collector_at_all_of_ipv6_and_ipv4(tmp_path: Path) -> None:
    """As the model server, in `server/test_server_operation.py`."""
    port = free_ports(1)[0]
    with httpx.Client() as client, collector(tmp_path, "[::]", port) as process:
        for address in ("127.0.0.1", "[::1]"):
            assert alive(client, f"http://{address}:{port}")
        process.terminate()
        assert f"listening on [::]:{port}, keeping events in {tmp_path}" in process.communicate()[0]
