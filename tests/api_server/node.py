"""A node, with what a kubelet does there for tests: it serves the logs of pods, and lets those go that are deleted.

The API server fetches logs from the kubelet, https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/,
whose address the node's status tells.
"""

import contextlib
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes_api.pod_log import PodLog
from kubernetes_api.store import Object, Resource

from api_server.admin_client import AdminClient

PODS = Resource("", "v1", "pods", "Pod", has_status=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, has_status=True)


class Node:
    """A kubelet for all nodes that tests name."""

    def __init__(self, admin: AdminClient, certificate: Path, key: Path) -> None:
        self._admin = admin
        self._logs: dict[str, PodLog] = {}
        self._pods: dict[tuple[str, str], Object] = {}
        self._over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.node = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    @contextlib.contextmanager
    def running(self) -> Iterator["Node"]:
        for work in (self._follow_pods, lambda: self._server.serve_forever(0.05)):
            threading.Thread(target=work, daemon=True).start()
        try:
            yield self
        finally:
            self._over.set()
            self._server.shutdown()
            self._server.server_close()

    def register(self, name: str) -> None:
        """Makes a node known, where it is not."""
        if name in {item["metadata"]["name"] for item in self._admin.items(NODES)}:
            return
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        made = self._admin.ask("POST", "/api/v1/nodes", node)
        made["status"] = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_address[1]}},
        }
        self._admin.ask("PUT", f"/api/v1/nodes/{name}/status", made)

    def log(self, uid: str) -> PodLog:
        """What a pod has printed; a pod of the same name that comes later has printed nothing."""
        return self._logs.setdefault(uid, PodLog())

    def pod(self, namespace: str, name: str) -> Object | None:
        return self._pods.get((namespace, name))

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def _follow_pods(self) -> None:
        for change in self._admin.watch(PODS, self._over.is_set):
            metadata = change.item["metadata"]
            key = (metadata["namespace"], metadata["name"])
            if change.type == "DELETED":
                self._pods.pop(key, None)
                continue
            self._pods[key] = change.item
            if "deletionTimestamp" in metadata and change.item["spec"].get("nodeName"):
                self._admin.delete(PODS, change.item, seconds=0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    node: Node

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that is gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        split = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(split.query))
        start, *names = split.path.strip("/").split("/")
        if start != "containerLogs" or len(names) != 3:
            self._refuse(404, "404 page not found")
            return
        namespace, name, container = names
        pod = self.server.node.pod(namespace, name)
        statuses = (pod or {}).get("status", {}).get("containerStatuses", [])
        status = next((status for status in statuses if status["name"] == container), {})
        if why := _without_log(status, query.get("previous") == "true"):
            self._refuse(400, why.format(container=container, pod=name))
            return
        if pod is None:
            self._refuse(404, f"pod {name} not found")
            return
        self._send_log(pod, query)

    def _send_log(self, pod: Object, query: dict[str, str]) -> None:
        node, metadata = self.server.node, pod["metadata"]
        log = node.log(metadata["uid"])
        start = log.first_since(float(query["sinceSeconds"])) if "sinceSeconds" in query else 0
        if "tailLines" in query:
            start = max(start, len(log.lines) - int(query["tailLines"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            now = node.pod(metadata["namespace"], metadata["name"])
            runs = now is not None and now["metadata"]["uid"] == metadata["uid"] and _runs(now)
            over = query.get("follow") != "true" or not runs or node.is_over
            for line in log.read(start, query.get("timestamps") == "true"):
                data = f"{line}\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                start += 1
            self.wfile.flush()
            if over:
                break
            with log.grown:
                log.grown.wait(0.05)
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _refuse(self, code: int, message: str) -> None:
        data = message.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _without_log(status: Object, previous: bool) -> str:
    """Why a container has no log; pkg/kubelet/kubelet_pods.go of Kubernetes, validateContainerLogStatus."""
    state, has_ended_before = status.get("state", {}), "terminated" in status.get("lastState", {})
    if previous:
        return "" if has_ended_before else 'previous terminated container "{container}" in pod "{pod}" not found'
    if {*state} & {"running", "terminated"} or has_ended_before:
        return ""
    reasons = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
    reason = state.get("waiting", {}).get("reason", "ContainerCreating")
    return 'container "{container}" in pod "{pod}" is waiting to start: ' + reasons.get(reason, reason)


def _runs(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") == "Running"
