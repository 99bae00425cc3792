"""etcd and kube-apiserver as processes on loopback, with certificates, tokens and a state of their own."""

import contextlib
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from api_server.certificates import write_server_certificate, write_token_key
from kfp_image_classification.components.train.launchers.machine import free_ports

START_SECONDS = 90.0
LOG_LINES = 30
PROGRAMS = ("etcd", "kube-apiserver")
# What the requests of others than the administrator were, and whose rights they asked about: who asked for what.
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    resources: [{group: authorization.k8s.io, resources: [subjectaccessreviews]}]
  - level: None
    users: [admin, system:apiserver, system:anonymous]
  - level: Metadata
"""


class NotStarted(Exception):
    """A program ended, or was not ready in time; the message ends with its log."""


@dataclass(frozen=True)
class ControlPlane:
    """A running one.

    Attributes:
        url: Of its API.
        certificate: The file that clients trust.
        key: Of the certificate.
        admin_token: Of a user who may do everything.
        audit_log: A JSON object a line for each request of others.
    """

    url: str
    certificate: Path
    key: Path
    admin_token: str
    audit_log: Path


@contextlib.contextmanager
def control_plane(assets: Path, directory: Path) -> Iterator[ControlPlane]:
    """Runs etcd and kube-apiserver while the block runs.

    Args:
        assets: The folder of both programs.
        directory: An empty one for state, keys and logs.

    Raises:
        NotStarted: When one of them does not start.
    """
    etcd_port, peer_port, port = free_ports(3)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    certificate, key, token_key = directory / "server.crt", directory / "server.key", directory / "tokens.key"
    write_server_certificate(certificate, key)
    write_token_key(token_key)
    admin_token = secrets.token_hex(16)
    (directory / "tokens.csv").write_text(f"{admin_token},admin,admin,system:masters\n")
    (directory / "audit.yaml").write_text(AUDIT_POLICY)
    etcd = {
        "data-dir": directory / "etcd",
        "listen-client-urls": etcd_url,
        "advertise-client-urls": etcd_url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"default={peer_url}",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    api_server = {
        "etcd-servers": etcd_url,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "endpoint-reconciler-type": "none",
        "service-cluster-ip-range": "10.0.0.0/24",
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
        "token-auth-file": directory / "tokens.csv",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": token_key,
        "service-account-signing-key-file": token_key,
        "authorization-mode": "RBAC",
        "audit-policy-file": directory / "audit.yaml",
        "audit-log-path": directory / "audit.log",
        "kubelet-preferred-address-types": "InternalIP",
    }
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(_process(assets / "etcd", etcd, directory))
        _wait_until_ready(started, f"{etcd_url}/health")
        started = stack.enter_context(_process(assets / "kube-apiserver", api_server, directory))
        url = f"https://127.0.0.1:{port}"
        _wait_until_ready(started, f"{url}/readyz", admin_token)
        yield ControlPlane(url, certificate, key, admin_token, directory / "audit.log")


@dataclass(frozen=True)
class _Process:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def not_started(self, why: str) -> NotStarted:
        last = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return NotStarted(f"{self.name} {why}; the end of its log:\n{last}")


@contextlib.contextmanager
def _process(program: Path, flags: dict[str, object], directory: Path) -> Iterator[_Process]:
    log = directory / f"{program.name}.log"
    command = [program, *(f"--{name}={value}" for name, value in flags.items())]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield _Process(program.name, process, log)
    finally:
        process.kill()  # its state goes with it, and a polite end waits for every open watch
        process.wait()


def _wait_until_ready(started: _Process, url: str, token: str = "") -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(verify=False, headers=headers) as client:  # only asked whether it is up
        _wait_until(started, lambda: client.get(url).status_code == httpx.codes.OK)


def _wait_until(started: _Process, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if started.process.poll() is not None:
            raise started.not_started(f"ended with code {started.process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if is_ready():
                return
        time.sleep(0.1)
    raise started.not_started(f"is not ready after {START_SECONDS:.0f} s")
