"""KServe's side of the API for tests: what its webhooks, its controller, the kubelet and the ingress make of a service.

Each version does what the test says of its storage URI. As with the real one, the status goes on being true of the
version before while the new one comes along, and its `observedGeneration` counts something else.

Standard mode goes by pkg/controller/v1beta1/inferenceservice of kserve/kserve at aaac4e29: names by
constants.PredictorServiceName; canaries, then what is not called for any more, then the stable version by
components/predictor.go, Reconcile and reconcileCanaryDeployments (which leaves autoscalers behind); shares by
applyCanaryWeights in reconcilers/ingress/httproute_reconciler.go, the address by createAddress in
kube_ingress_reconciler.go there.
"""

import contextlib
import copy
import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kserve_admission
from kubernetes_api import Change, KubernetesApi, Resource
from kubernetes_api.store import ApiError

Object = dict[str, Any]
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
READY = {"type": "Ready", "status": "True"}
IMAGE_PULL = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "tensorflow/serving:9.9"'}
CRASH = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
NO_NODE = {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
QUOTA = {"reason": "FailedCreate", "message": 'pods "x" is forbidden: exceeded quota: compute'}
NO_RUNTIME = {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime to become available"}
POD = {"containers": [{"name": "kserve-container", "image": "tensorflow/serving"}]}
APP = {"app": "model"}
DEPLOYMENT = {"selector": {"matchLabels": APP}, "template": {"metadata": {"labels": APP}, "spec": POD}}
NOT_LOADED = {"reason": "ModelLoadFailed", "message": "Op type not registered", "exitCode": 1}


class KServe:
    """A controller, and the address behind which its services answer.

    Attributes:
        fate: By storage URI, what becomes of a version: `serves` (also for those not named), `wrong` (ready, answers
            with other numbers), `silent` (ready, answers 503), `coming` (never ready), `image`, `crash`,
            `unschedulable`, `quota`, `invalid` or `not-loaded`. With a Deployment's name and a space before the URI, of
            that version there.
        answers: By storage URI, the probabilities that a version answers.
        splits: Whether the ingress splits requests during a canary.
        scales_to_zero: Whether pods go when they are ready, as with Knative and no requests.
        route_delay: Seconds after which the ingress does what a changed route says.
        asked: Host headers of the requests so far.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.fate: dict[str, str] = {}
        self.answers: dict[str, list[list[float]]] = {}
        self.splits = True
        self.scales_to_zero = False
        self.route_delay = 0.0
        self.asked: list[str] = []
        self._seen: dict[str, str] = {}
        self._revisions: dict[str, list[tuple[str, str, str]]] = {}
        self._routes: dict[str, list[tuple[float, list[tuple[str, int]]]]] = {}
        # By the name of a Service, or of a Knative revision: the storage URI of the version behind it.
        self._serving: dict[str, str] = {}
        self._count = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.kserve = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["KServe"]:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.api.admission.append(self._admit)
        self.api.create(
            {
                "apiVersion": "serving.kserve.io/v1alpha1",
                "kind": "ClusterServingRuntime",
                "metadata": {"name": "kserve-tensorflow-serving"},
                "spec": {"containers": [{"name": "kserve-container", "image": "tensorflow/serving"}]},
            }
        )
        with self.api.controller("inferenceservices", self._act):
            yield self
        self._server.shutdown()
        self._server.server_close()

    def pods(self, name: str) -> list[Object]:
        return self.api.objects("pods", labels=f"{SERVICE_LABEL}={name}")

    def answer(self, name: str, kubernetes_service: str = "") -> Any:
        """The probabilities that a request gets, or None for 503: through the ingress, or by a Service's own name."""
        self._count += 1
        if kubernetes_service:
            backend = kubernetes_service
        else:
            routes = self._route(name)
            share, backend = self._count % 100, routes[-1][0] if routes else ""
            for candidate, percent in routes:
                if share < percent:
                    backend = candidate
                    break
                share -= percent
        served = self._serving.get(backend, "")
        fate = self.fate.get(served, "serves")
        if not served or fate == "silent":
            return None
        answers = copy.deepcopy(self.answers[served])
        return [row[::-1] for row in answers] if fate == "wrong" else answers

    def shares(self, name: str) -> list[tuple[str, int]]:
        """Storage URIs of what is behind the ingress, and their shares of the requests."""
        return [(self._serving[backend], percent) for backend, percent in self._route(name)]

    def _route(self, name: str) -> list[tuple[str, int]]:
        """Backends and their shares, as the ingress has them by now."""
        followed = [backends for written, backends in self._routes.get(name, []) if written <= time.monotonic()]
        return followed[-1] if followed else []

    def _admit(self, resource: Resource, item: Object) -> str | None:
        if resource.plural != "inferenceservices":
            return None
        name = item["metadata"]["name"]
        old = next((one for one in self.api.objects(resource.plural) if one["metadata"]["name"] == name), None)
        return kserve_admission.refusal(item, old) or None

    def _act(self, change: Change) -> None:
        service, name = change.item, change.item["metadata"]["name"]
        if change.type == "DELETED":
            self._clean_up(name, set())
            for item in self.api.objects("horizontalpodautoscalers", labels=f"{SERVICE_LABEL}={name}"):
                self.api.delete("horizontalpodautoscalers", item["metadata"]["name"])
            self._routes.pop(name, None)
            self._seen.pop(name, None)
            return
        made_of = {key: service["metadata"].get(key) for key in ("annotations", "labels")}
        content = json.dumps([service["spec"], made_of], sort_keys=True)
        if self._seen.get(name) == content:
            return
        self._seen[name] = content
        mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        try:
            if mode in ("Standard", "RawDeployment"):
                self._standard(service)
            else:
                self._knative(service)
        except ApiError as error:
            if error.code != 404:  # deleted meanwhile, of which the next change tells
                raise

    def _standard(self, service: Object) -> None:
        name, spec = service["metadata"]["name"], service["spec"]
        stable, canaries, status = spec["predictor"], spec.get("canary") or [], self._status(service)
        least = stable.get("minReplicas", 1)
        status["canaryStatuses"] = []
        for canary in canaries:
            replicas = canary["predictor"].get("minReplicas", math.ceil(least * canary["trafficPercent"] / 100))
            ready = self._predictor(service, _merged(stable, canary["predictor"]), replicas)
            given = {"name": canary["predictor"]["name"], "ready": ready, "trafficPercent": canary["trafficPercent"]}
            status["canaryStatuses"].append(given)
            least -= replicas if ready else 0
        self._clean_up(name, {_predictor_name(name, one) for one in [stable, *(one["predictor"] for one in canaries)]})
        own = _predictor_name(name, stable)
        self._predictor(service, stable, max(least, 1))
        if own in self._serving:
            status["conditions"] = [READY]
        else:
            status["conditions"] = [{"type": "Ready", "status": "False", "reason": "MinimumReplicasUnavailable"}]
        shares = [
            (_predictor_name(name, canary["predictor"]), canary["trafficPercent"])
            for canary, given in zip(canaries, status["canaryStatuses"], strict=True)
            if given["ready"] and self.splits
        ]
        route = [*shares, (own, 100 - sum(percent for _, percent in shares))]
        routes = self._routes.setdefault(name, [])
        routes.append((time.monotonic() + (self.route_delay if routes else 0), route))
        self._publish(service, status, own)

    def _predictor(self, service: Object, version: Object, replicas: int) -> bool:
        """Makes a version's Service, Deployment and autoscaler; says whether its pods are ready."""
        name = service["metadata"]["name"]
        own = _predictor_name(name, version)
        self._make("v1", "Service", own, service, {"clusterIP": "None"})
        self._make("apps/v1", "Deployment", own, service, DEPLOYMENT)
        annotations = {**service["metadata"]["annotations"], **version.get("annotations", {})}
        if annotations.get("serving.kserve.io/autoscalerClass", "hpa") == "hpa":
            target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": own}
            scaling = {"scaleTargetRef": target, "maxReplicas": 3}
            self._make("autoscaling/v2", "HorizontalPodAutoscaler", own, service, scaling)
        app = f"isvc.{own}"
        ready = self._make_pods(service, version, {"app": app}, replicas)
        if ready:
            self._remove_pods(name, lambda pod: _app(pod) == app and _digest(pod) != _digest_of(version))
            self._serving[own] = version["model"]["storageUri"]
        return ready

    def _make(self, api_version: str, kind: str, own: str, service: Object, spec: Object) -> None:
        if any(one["metadata"]["name"] == own for one in self.api.objects(f"{kind.lower()}s")):
            return
        labels = {SERVICE_LABEL: service["metadata"]["name"], "component": "predictor"}
        metadata = {"name": own, "labels": labels}
        self.api.create({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})

    def _clean_up(self, name: str, called_for: set[str]) -> None:
        labels = f"{SERVICE_LABEL}={name},component=predictor"
        for plural in ("deployments", "services"):
            for item in self.api.objects(plural, labels=labels):
                if item["metadata"]["name"] not in called_for:
                    self._serving.pop(item["metadata"]["name"], None)
                    self.api.delete(plural, item["metadata"]["name"])
        self._remove_pods(name, lambda pod: (_app(pod) or "").removeprefix("isvc.") not in called_for)

    def _knative(self, service: Object) -> None:
        name, version = service["metadata"]["name"], service["spec"]["predictor"]
        uri, status = version["model"]["storageUri"], self._status(service)
        revisions = self._revisions.setdefault(name, [])
        template = _digest_of({key: value for key, value in version.items() if key != "canaryTrafficPercent"})
        if not revisions or revisions[-1][1] != template:
            revisions.append((f"{name}-predictor-{len(revisions) + 1:05d}", template, uri))
        revision = revisions[-1][0]
        ready = self._make_pods(
            service, version, {"serving.knative.dev/revision": revision}, version.get("minReplicas") or 1
        )
        predictor = status.setdefault("components", {}).setdefault("predictor", {})
        predictor["latestCreatedRevision"] = revision
        if ready:
            percent = version.get("canaryTrafficPercent", 100)
            predictor["latestReadyRevision"] = revision
            self._serving[revision] = uri
            stable = next((one for one in reversed(self._route(name)) if self._serving[one[0]] != uri), (revision, 100))
            self._routes[name] = [(0.0, [(revision, percent), (stable[0], 100)])]
            predictor["traffic"] = [{"revisionName": revision, "latestRevision": True, "percent": percent}]
        served = bool(self._routes.get(name))
        status["conditions"] = [READY if served else {"type": "Ready", "status": "Unknown", "reason": "Deploying"}]
        self._publish(service, status, f"{name}-predictor")
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

    def _publish(self, service: Object, status: Object, entry: str) -> None:
        name = service["metadata"]["name"]
        status["url"] = f"http://{name}.example.com"
        # A path stands for the host name that a Service has in a cluster.
        status["address"] = {"url": f"{self.url}/{entry}.kubeflow.svc.cluster.local"}
        self.api.set_status("inferenceservices", name, status)

    def _make_pods(self, service: Object, version: Object, labels: Object, replicas: int) -> bool:
        """Makes a version's pods, if it has any to make; says whether they are ready."""
        fate, name = self._fate(version, labels.get("app", "").removeprefix("isvc.")), service["metadata"]["name"]
        serves = fate in ("serves", "wrong", "silent")
        if fate == "quota":
            deployment = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "generateName": f"{name}-predictor-",
                    "labels": {SERVICE_LABEL: name},
                },
                "spec": DEPLOYMENT,
                "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", **QUOTA}]},
            }
            self.api.create(deployment)
        if fate in ("quota", "invalid"):
            return False
        own = [one for one in self.pods(name) if _digest(one) == _digest_of(version) and _same(one, labels)]
        for _ in range(len(own), replicas):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": f"{name}-predictor-",
                    "labels": {
                        **service["metadata"].get("labels", {}),
                        **version.get("labels", {}),
                        SERVICE_LABEL: name,
                        **labels,
                    },
                    "annotations": {
                        **service["metadata"]["annotations"],
                        **version.get("annotations", {}),
                        "test/digest": _digest_of(version),
                    },
                },
                "spec": POD if fate == "unschedulable" else {**POD, "nodeName": "node-a"},
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

    def _fate(self, version: Object, own: str = "") -> str:
        uri = version["model"]["storageUri"]
        return self.fate.get(f"{own} {uri}", self.fate.get(uri, "serves"))


def _predictor_name(service: str, version: Object) -> str:
    return f"{service}-{version['name']}-predictor" if version.get("name") else f"{service}-predictor"


def _merged(stable: Object, canary: Object) -> Object:
    """A canary is the stable version with its own fields over it: buildCanaryPredictor in components/predictor.go."""
    merged = {**stable, **canary}
    for field, value in canary.items():
        if isinstance(value, dict) and isinstance(stable.get(field), dict):
            merged[field] = {**stable[field], **value}
    return merged


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
    return any(READY.items() <= condition.items() for condition in pod["status"].get("conditions", []))


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
        entry, _, path = self.path.partition("/v1/models/")
        kubernetes_service = entry.removeprefix("/").removesuffix(".kubeflow.svc.cluster.local")
        rows = self.server.kserve.answer(path.removesuffix(":predict"), kubernetes_service)
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
