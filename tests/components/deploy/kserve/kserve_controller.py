"""KServe's side of the API for tests: what its controller, the kubelet and the ingress make of an InferenceService.

Each version does what the test says of its storage URI. As with the real one, the status goes on being true of the
version before while the new one comes along, and its `observedGeneration` counts something else.
"""

import contextlib
import copy
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes_api import Change, KubernetesApi

Object = dict[str, Any]
READY = {"type": "Ready", "status": "True"}
IMAGE_PULL = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "tensorflow/serving:9.9"'}
CRASH = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
NO_NODE = {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
QUOTA = {"reason": "FailedCreate", "message": 'pods "x" is forbidden: exceeded quota: compute'}
NO_RUNTIME = {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime to become available"}
NOT_LOADED = {"reason": "ModelLoadFailed", "message": "Op type not registered", "exitCode": 1}


class KServe:
    """A controller, and the address behind which its services answer.

    Attributes:
        fate: By storage URI, what becomes of a version: `serves` (also for those not named), `wrong` (ready, answers
            with other numbers), `silent` (ready, answers 503), `coming` (never ready), `image`, `crash`,
            `unschedulable`, `quota`, `invalid` or `not-loaded`.
        answers: By storage URI, the probabilities that a version answers.
        splits: Whether the ingress splits requests during a canary.
        scales_to_zero: Whether pods go when they are ready, as with Knative and no requests.
        asked: Host headers of the requests so far.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.fate: dict[str, str] = {}
        self.answers: dict[str, list[list[float]]] = {}
        self.splits = True
        self.scales_to_zero = False
        self.asked: list[str] = []
        self._seen: dict[str, str] = {}
        self._revisions: dict[str, list[tuple[str, str, str]]] = {}
        self._routes: dict[str, list[tuple[str, int]]] = {}
        self._count = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.kserve = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["KServe"]:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        with self.api.controller("inferenceservices", self._act):
            yield self
        self._server.shutdown()
        self._server.server_close()

    def pods(self, name: str) -> list[Object]:
        return self.api.objects("pods", labels=f"serving.kserve.io/inferenceservice={name}")

    def answer(self, name: str) -> Any:
        """The probabilities that the next request gets, or None for 503."""
        self._count += 1
        routes = self._routes.get(name, [])
        served = routes[-1][0] if routes else ""
        for uri, percent in routes:
            if self._count % 100 < percent:
                served = uri
                break
        fate = self.fate.get(served, "serves")
        if not routes or fate == "silent":
            return None
        answers = copy.deepcopy(self.answers[served])
        return [row[::-1] for row in answers] if fate == "wrong" else answers

    def _act(self, change: Change) -> None:
        service, name = change.item, change.item["metadata"]["name"]
        if change.type == "DELETED":
            self._remove_pods(name, lambda pod: True)
            self._routes.pop(name, None)
            self._seen.pop(name, None)
            return
        made_of = {key: service["metadata"].get(key) for key in ("annotations", "labels")}
        content = json.dumps([service["spec"], made_of], sort_keys=True)
        if self._seen.get(name) == content:
            return
        self._seen[name] = content
        mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        if mode in ("Standard", "RawDeployment"):
            self._standard(service)
        else:
            self._knative(service)

    def _standard(self, service: Object) -> None:
        name, spec = service["metadata"]["name"], service["spec"]
        canaries = spec.get("canary") or []
        status = self._status(service)
        stable = spec["predictor"]
        versions = [stable, *(canary["predictor"] for canary in canaries)]
        deployments = [self._deployment(name, version) for version in versions]
        self._remove_pods(name, lambda pod: pod["metadata"]["labels"]["app"] not in deployments)
        for version, deployment in zip(versions, deployments, strict=True):
            if self._make_pods(service, version, {"app": deployment}):
                self._remove_pods(
                    name, lambda pod, v=version, d=deployment: _app(pod) == d and _digest(pod) != _digest_of(v)
                )
        serving = {_app(pod) for pod in self.pods(name) if _is_ready(pod)}
        if deployments[0] in serving:
            newest = self._fate(stable) in ("serves", "wrong", "silent")
            if newest or name not in self._routes:
                self._routes[name] = [(stable["model"]["storageUri"], 100)]
            status["conditions"] = [READY]
        else:
            status["conditions"] = [{"type": "Ready", "status": "False", "reason": "MinimumReplicasUnavailable"}]
        status["canaryStatuses"] = []
        self._routes[name] = self._routes.get(name, [])[-1:]
        for canary, deployment in zip(canaries, deployments[1:], strict=True):
            ready, percent = deployment in serving, canary["trafficPercent"]
            status["canaryStatuses"].append({"name": deployment, "ready": ready, "trafficPercent": percent})
            if ready and self.splits:
                self._routes[name].insert(0, (canary["predictor"]["model"]["storageUri"], percent))
        self._publish(service, status)

    def _knative(self, service: Object) -> None:
        name, version = service["metadata"]["name"], service["spec"]["predictor"]
        uri, status = version["model"]["storageUri"], self._status(service)
        revisions = self._revisions.setdefault(name, [])
        template = _digest_of({key: value for key, value in version.items() if key != "canaryTrafficPercent"})
        if not revisions or revisions[-1][1] != template:
            revisions.append((f"{name}-predictor-{len(revisions) + 1:05d}", template, uri))
        revision = revisions[-1][0]
        ready = self._make_pods(service, version, {"serving.knative.dev/revision": revision})
        predictor = status.setdefault("components", {}).setdefault("predictor", {})
        predictor["latestCreatedRevision"] = revision
        if ready:
            percent = version.get("canaryTrafficPercent", 100)
            predictor["latestReadyRevision"] = revision
            stable = next((one for one in reversed(self._routes.get(name, [])) if one[0] != uri), (uri, 100))
            self._routes[name] = [(uri, percent), (stable[0], 100)]
            predictor["traffic"] = [{"revisionName": revision, "latestRevision": True, "percent": percent}]
        served = bool(self._routes.get(name))
        status["conditions"] = [READY if served else {"type": "Ready", "status": "Unknown", "reason": "Deploying"}]
        self._publish(service, status)
        if self.scales_to_zero:
            self._remove_pods(name, lambda pod: True)

    def _status(self, service: Object) -> Object:
        status: Object = copy.deepcopy(service.get("status") or {})
        status["observedGeneration"] = 77
        status["deploymentMode"] = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        status.pop("modelStatus", None)
        fates = {"invalid": ("InvalidSpec", NO_RUNTIME), "not-loaded": ("BlockedByFailedLoad", NOT_LOADED)}
        fate = self._fate(service["spec"]["predictor"])
        if fate in fates:
            transition, info = fates[fate]
            states = {"activeModelState": "", "targetModelState": "FailedToLoad"}
            status["modelStatus"] = {"transitionStatus": transition, "states": states, "lastFailureInfo": info}
        return status

    def _publish(self, service: Object, status: Object) -> None:
        name = service["metadata"]["name"]
        status["url"] = f"http://{name}.example.com"
        status["address"] = {"url": self.url}
        self.api.set_status("inferenceservices", name, status)

    def _make_pods(self, service: Object, version: Object, labels: Object) -> bool:
        """Makes a version's pods, if it has any to make; says whether they are ready."""
        fate, name = self._fate(version), service["metadata"]["name"]
        serves = fate in ("serves", "wrong", "silent")
        if fate == "quota":
            deployment = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "generateName": f"{name}-predictor-",
                    "labels": {"serving.kserve.io/inferenceservice": name},
                },
                "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", **QUOTA}]},
            }
            self.api.create(deployment)
        if fate in ("quota", "invalid"):
            return False
        own = [one for one in self.pods(name) if _digest(one) == _digest_of(version) and _same(one, labels)]
        for _ in range(len(own), version.get("minReplicas") or 1):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": f"{name}-predictor-",
                    "labels": {
                        **service["metadata"]["labels"],
                        **version.get("labels", {}),
                        "serving.kserve.io/inferenceservice": name,
                        **labels,
                    },
                    "annotations": {
                        **service["metadata"]["annotations"],
                        **version.get("annotations", {}),
                        "test/digest": _digest_of(version),
                    },
                },
                "spec": {"containers": [{"name": "kserve-container"}]},
                "status": _pod_status(fate, serves),
            }
            made = self.api.create(pod)
            if fate == "crash":
                self.api.write_log(made["metadata"]["name"], "loading\nOp type not registered 'DisableCopyOnRead'\n")
        return serves

    def _remove_pods(self, name: str, chosen: Any) -> None:
        for pod in self.pods(name):
            if chosen(pod):
                self.api.delete("pods", pod["metadata"]["name"])

    def _fate(self, version: Object) -> str:
        return self.fate.get(version["model"]["storageUri"], "serves")

    def _deployment(self, name: str, version: Object) -> str:
        return f"{name}-predictor-{version['name']}" if "name" in version else f"{name}-predictor"


def _pod_status(fate: str, serves: bool) -> Object:
    status: Object = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if serves else "False"}]}
    container: Object = {"name": "kserve-container", "state": {"running": {}}}
    if fate == "image":
        container["state"] = {"waiting": IMAGE_PULL}
    if fate == "crash":
        container["state"] = {"waiting": CRASH}
        container["lastState"] = {"terminated": {"exitCode": 134, "reason": "Error"}}
    if fate == "unschedulable":
        status["phase"] = "Pending"
        status["conditions"] = [{"type": "PodScheduled", "status": "False", **NO_NODE}]
    return {**status, "containerStatuses": [container]}


def _digest_of(version: Object) -> str:
    # What a pod is made of; numbers of replicas are the Deployment's own.
    template = {key: value for key, value in version.items() if not key.endswith("Replicas")}
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:12]


def _digest(pod: Object) -> str:
    digest: str = pod["metadata"]["annotations"]["test/digest"]
    return digest


def _app(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("app"))


def _same(pod: Object, labels: Object) -> bool:
    return labels.items() <= pod["metadata"]["labels"].items()


def _is_ready(pod: Object) -> bool:
    return {"type": "Ready", "status": "True"} in pod["status"]["conditions"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    kserve: KServe


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._send(200, {"name": self.path})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.kserve.asked.append(self.headers["Host"])
        rows = self.server.kserve.answer(self.path.removeprefix("/v1/models/").removesuffix(":predict"))
        if rows is None:
            self._send(503, {"error": "no replica"})
        else:
            self._send(
                200, {"predictions": [{"label": str(row.index(max(row))), "probabilities": row} for row in rows]}
            )

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, code: int, answer: Object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
