"""The operators' admission webhooks, whose rules a test plays: https, called by the API server before it stores.

See https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/.
"""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes_api.store import Object, Resource

Refusal = Callable[[Resource, Object], str | None]
# By the kind that it judges: a webhook's name, as its operator registers it.
NAMES = {
    "tfjobs": "validator.tfjob.training-operator.kubeflow.org",
    "trainjobs": "validator.trainjob.trainer.kubeflow.org",
    "inferenceservices": "inferenceservice.kserve-webhook-server.validator",
}


class Webhook:
    """Judges new and changed objects of the operators' kinds.

    Attributes:
        refusals: Each says why an object is refused, `"WEBHOOK" denied the request: WHY`, or nothing.
    """

    def __init__(self, resource: Callable[[str], Resource], certificate: Path, key: Path) -> None:
        self.refusals: list[Refusal] = []
        self._resource, self._certificate = resource, certificate
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.webhook = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    @contextlib.contextmanager
    def running(self) -> Iterator["Webhook"]:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def configuration(self) -> Object:
        """What makes it known to the API server."""
        url = f"https://127.0.0.1:{self._server.server_address[1]}/"
        client = {"url": url, "caBundle": base64.b64encode(self._certificate.read_bytes()).decode()}
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "operators"},
            "webhooks": [
                {
                    "name": name,
                    "clientConfig": client,
                    "rules": [_rule(self._resource(plural))],
                    "failurePolicy": "Fail",
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                }
                for plural, name in NAMES.items()
            ],
        }

    def answer(self, request: Object) -> Object:
        plural = request["resource"]["resource"]
        for refusal in self.refusals:
            if why := refusal(self._resource(plural), request["object"]):
                message = why.removeprefix(f'"{NAMES[plural]}" denied the request: ')
                return {"uid": request["uid"], "allowed": False, "status": {"code": 403, "message": message}}
        return {"uid": request["uid"], "allowed": True}


def _rule(resource: Resource) -> Object:
    return {
        "apiGroups": [resource.group],
        "apiVersions": [resource.version],
        "resources": [resource.plural],
        "operations": ["CREATE", "UPDATE"],
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    webhook: Webhook

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the API server that is gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = json.dumps({**review, "response": self.server.webhook.answer(review["request"])}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
