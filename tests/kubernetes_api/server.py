"""The API over HTTP, and what a test does on the cluster's side of it."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes_api.cluster import NAMESPACE, Cluster
from kubernetes_api.crds import definitions, schema_errors, unknown_fields
from kubernetes_api.faults import Fault, Faults
from kubernetes_api.pod_log import PodLog
from kubernetes_api.store import ApiError, Change, Object, Resource, Store
from kubernetes_api.training_webhooks import refusal

USER = "system:serviceaccount:kubeflow:pipeline-runner"
TOKEN = "token-of-the-test"
BOOKMARK_SECONDS = 0.5
_DEFINITION = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
_BUILT_IN = [
    Resource("", "v1", "pods", "Pod", has_status=True),
    Resource("", "v1", "events", "Event"),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "services", "Service", has_status=True),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", has_status=True),
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, has_status=True),
    Resource("", "v1", "nodes", "Node", namespaced=False, has_status=True),
    Resource("apps", "v1", "deployments", "Deployment", has_status=True),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", has_status=True),
    Resource("batch", "v1", "jobs", "Job", has_status=True),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", has_status=True),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    _DEFINITION,
]
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
Admission = Callable[[Resource, Object], str | None]


def resources_of(definitions: Iterable[Object]) -> list[Resource]:
    """All that an API with some definitions serves: what is built in, and what they define."""
    custom = [
        Resource(
            group=crd["spec"]["group"],
            version=version["name"],
            plural=crd["spec"]["names"]["plural"],
            kind=crd["spec"]["names"]["kind"],
            namespaced=crd["spec"]["scope"] == "Namespaced",
            has_status="status" in version.get("subresources", {}),
            is_custom=True,
        )
        for crd in definitions
        for version in crd["spec"]["versions"]
        if version.get("served")
    ]
    return _BUILT_IN + custom


@dataclass(frozen=True)
class Rule:
    """What the client may not do; empty fields stand for anything."""

    verb: str = ""
    plural: str = ""
    sub: str = ""

    def forbids(self, verb: str, plural: str, sub: str) -> bool:
        return self.verb in ("", verb) and self.plural in ("", plural) and (not self.sub or self.sub == sub)


class KubernetesApi(Cluster):
    """An API server with a store, and a test's hands on the cluster behind it.

    Objects that a test puts in as an operator or a kubelet would (`create`, `set_status`, `write_log`, `add_event`) do
    not pass the checks of the API; those of the client do: schemas, conflicts, permissions, admission webhooks, faults.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.requests: list[tuple[str, str]] = []
        self.admission: list[Admission] = [self._training_webhooks]
        self.token = self.admin_token = TOKEN
        self._faults = Faults()
        self._rules: list[Rule] = []
        self._rights: dict[str, list[str]] | None = None
        self._logs: dict[tuple[str, str], PodLog] = {}
        self._streams: set[Any] = set()
        self._stopped = threading.Event()
        for namespace in ("default", NAMESPACE):
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for definition in definitions():
            self.create(definition)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def rights_used(self) -> set[tuple[str, str, str]]:
        """What the client asked for, as RBAC sees it: API group, resource, verb; without what everybody may ask."""
        used = set()
        for verb, path in self.requests:
            found = _PATH.match(path)
            if found and found["group"] != "authorization.k8s.io":
                resource = found["plural"] + (f"/{found['sub']}" if found["sub"] else "")
                used.add((found["group"] or "", resource, "get" if verb == "log" else verb))
        return used

    def stop(self) -> None:
        self._stopped.set()
        self.drop_streams()
        self._server.shutdown()
        self._server.server_close()

    # The cluster's side

    def resources(self) -> list[Resource]:
        return resources_of(self.store.view(_DEFINITION))

    def resource(self, plural: str) -> Resource:
        return next(resource for resource in self.resources() if resource.plural == plural)

    def create(self, item: Object, namespace: str = NAMESPACE) -> Object:
        resources = _BUILT_IN if item["kind"] in {resource.kind for resource in _BUILT_IN} else self.resources()
        resource = next(
            resource
            for resource in resources
            if (resource.kind, resource.api_version) == (item["kind"], item["apiVersion"])
        )
        return self.store.create(resource, item["metadata"].get("namespace", namespace), item)

    def get(self, plural: str, name: str, namespace: str = NAMESPACE) -> Object:
        return self.store.get(self.resource(plural), namespace, name)

    def objects(self, plural: str, namespace: str = NAMESPACE, labels: str = "") -> list[Object]:
        return self.store.items(self.resource(plural), namespace, labels)

    def update(
        self, plural: str, name: str, change: Callable[[Object], Object], namespace: str = NAMESPACE, part: str = "all"
    ) -> Object:
        return self.store.change(self.resource(plural), namespace, name, change, part)

    def delete(self, plural: str, name: str, namespace: str = NAMESPACE) -> None:
        self.store.delete(self.resource(plural), namespace, name)

    def bind(self, pod: str, node: str, namespace: str = NAMESPACE) -> None:
        self.update("pods", pod, lambda item: {**item, "spec": {**item["spec"], "nodeName": node}}, namespace)

    def log(self, pod: str, namespace: str = NAMESPACE) -> PodLog:
        return self._logs.setdefault((namespace, pod), PodLog())

    def write_log(self, pod: str, text: str, namespace: str = NAMESPACE) -> None:
        self.log(pod, namespace).write(text)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Waits until a condition holds; returns its value.

        Raises:
            TimeoutError: When it does not in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ApiError):
                if value := condition():
                    return value
            with self.store.changed:
                self.store.changed.wait(0.05)
        raise TimeoutError(f"not within {seconds} s: {condition}")

    def changes(self, plural: str, is_over: Callable[[], bool]) -> Iterator[Change]:
        watched = self.store.watch(self.resource(plural), is_over=lambda: is_over() or self._stopped.is_set())
        return (change for change in watched if change)

    # Faults

    def fail(self, **fault: Any) -> None:
        """Lets the next requests fail; see `Fault`."""
        self._faults.add(Fault(**fault))

    def forbid(self, verb: str = "", plural: str = "", sub: str = "") -> None:
        """Takes a permission away."""
        self._rules.append(Rule(verb, plural, sub))

    def token_of_user(self, rights: dict[str, list[str]]) -> str:
        """There is one token here: who has it has these rights alone from now on."""
        self._rights = rights
        return self.token

    def drop_streams(self) -> None:
        """Breaks all open watches and followed logs, as a restart of the API server does."""
        for connection in list(self._streams):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # The client's side

    def answer(self, request: "_Request") -> Object:
        """Answers anything that is not a stream.

        Raises:
            ApiError: When the request is refused.
        """
        resource, namespace, name = request.resource, request.namespace, request.name
        match request.verb:
            case "list":
                items = self.store.items(resource, namespace, request.query("labelSelector"), request.field_selector)
                return {
                    "apiVersion": resource.api_version,
                    "kind": f"{resource.kind}List",
                    "metadata": {"resourceVersion": self.store.version},
                    "items": items,
                }
            case "get":
                return self.store.get(resource, namespace, name)
            case "create":
                return self._create(request)
            case "update" | "patch":
                return self._change(request)
            case "delete":
                options = request.body or {}
                policy = options.get("propagationPolicy") or request.query("propagationPolicy") or "Background"
                uid = (options.get("preconditions") or {}).get("uid")
                item = self.store.delete(resource, namespace, name, policy, uid)
                if "deletionTimestamp" in item["metadata"]:
                    return item
                details = {
                    "name": name,
                    "group": resource.group,
                    "kind": resource.plural,
                    "uid": item["metadata"]["uid"],
                }
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            case "deletecollection":
                for item in self.store.items(
                    resource, namespace, request.query("labelSelector"), request.field_selector
                ):
                    self.store.delete(resource, namespace, item["metadata"]["name"])
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def access_review(self, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        allowed = not self._forbidden(asked.get("verb", ""), asked.get("resource", ""), asked.get("subresource", ""))
        return {**body, "status": {"allowed": allowed}}

    def check_allowed(self, request: "_Request") -> None:
        verb = "get" if request.verb == "log" else request.verb
        elsewhere = request.resource.namespaced and request.namespace != NAMESPACE
        what = request.resource.plural + (f"/{request.sub}" if request.sub else "")
        lacks = self._rights is not None and verb not in self._rights.get(what, [])
        if elsewhere or lacks or self._forbidden(verb, request.resource.plural, request.sub):
            where = f' in the namespace "{request.namespace}"' if request.namespace else " at the cluster scope"
            raise ApiError(
                403,
                "Forbidden",
                f'{request.resource.full_name} is forbidden: User "{USER}" cannot {verb} resource "{what}" '
                f'in API group "{request.resource.group}"{where}',
            )

    def take_fault(self, verb: str, path: str) -> Fault | None:
        return self._faults.take(verb, path)

    @contextlib.contextmanager
    def stream(self, connection: Any) -> Iterator[None]:
        self._streams.add(connection)
        try:
            yield
        finally:
            self._streams.discard(connection)

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def _forbidden(self, verb: str, plural: str, sub: str) -> bool:
        return any(rule.forbids(verb, plural, sub) for rule in self._rules)

    def _create(self, request: "_Request") -> Object:
        resource, item = request.resource, request.body
        if resource.namespaced:
            self.store.get(next(known for known in _BUILT_IN if known.kind == "Namespace"), "", request.namespace)
        if resource.has_status:
            item.pop("status", None)
        item = self._admitted(request, item)
        if request.query("dryRun"):
            return item
        return self.store.create(resource, request.namespace, item)

    def _change(self, request: "_Request") -> Object:
        resource, body, sub = request.resource, request.body, request.sub
        if request.verb == "patch":
            allowed = {"application/merge-patch+json"}
            if not resource.is_custom:
                allowed.add("application/strategic-merge-patch+json")
            if request.content_type not in allowed:
                raise ApiError(
                    415,
                    "UnsupportedMediaType",
                    "the body of the request was in an unknown format - accepted media types include: "
                    f"{', '.join(sorted(allowed))}",
                )

            def change(item: Object) -> Object:
                return self._admitted(request, _merged(item, body))
        else:
            if resource.is_custom and not body.get("metadata", {}).get("resourceVersion"):
                raise ApiError(
                    422,
                    "Invalid",
                    f'{resource.full_name} "{request.name}" is invalid: metadata.resourceVersion: Invalid value: 0x0: '
                    "must be specified for an update",
                )

            def change(item: Object) -> Object:
                asked = (
                    {**item, "metadata": body["metadata"], "status": body.get("status")} if sub == "status" else body
                )
                return self._admitted(request, asked)

        return self.store.change(resource, request.namespace, request.name, change, sub)

    def _training_webhooks(self, resource: Resource, item: Object) -> str | None:
        def lookup(plural: str, name: str) -> Object | None:
            with contextlib.suppress(ApiError, StopIteration):
                return self.store.get(self.resource(plural), "", name)
            return None

        return refusal(resource.plural, item, lookup)

    def _admitted(self, request: "_Request", item: Object) -> Object:
        resource = request.resource
        given = (item.get("apiVersion"), item.get("kind"))
        if given != (resource.api_version, resource.kind):
            raise ApiError(
                400, "BadRequest", f"the object provided is unrecognized (must be of type {resource.kind}): {given}"
            )
        named = item.get("metadata", {}).get("namespace")
        if resource.namespaced and named and named != request.namespace:
            raise ApiError(
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        if resource.is_custom:
            self._check_schema(request, item)
        for webhook in self.admission:
            if message := webhook(resource, item):
                raise ApiError(403, "Forbidden", f"admission webhook {message}")
        return item

    def _check_schema(self, request: "_Request", item: Object) -> None:
        resource = request.resource
        crd = next(crd for crd in self.store.view(_DEFINITION) if crd["metadata"]["name"] == resource.full_name)
        version = next(version for version in crd["spec"]["versions"] if version["name"] == resource.version)
        schema = version["schema"]["openAPIV3Schema"]
        unknown = unknown_fields(schema, item)
        if unknown and request.query("fieldValidation") == "Strict":
            told = ", ".join(f'unknown field "{path}"' for path, _, _ in unknown)
            raise ApiError(
                400, "BadRequest", f"{resource.kind} in version {resource.version!r} cannot be handled: {told}"
            )
        for _, holder, name in unknown:
            holder.pop(name, None)
        if errors := schema_errors(schema, item):
            name = item.get("metadata", {}).get("name", "")
            raise ApiError(422, "Invalid", f'{resource.kind}.{resource.group} "{name}" is invalid: {"; ".join(errors)}')


def _merged(item: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(item) if isinstance(item, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


@dataclass(frozen=True)
class _Request:
    verb: str
    resource: Resource
    namespace: str
    name: str
    sub: str
    body: Any = None
    content_type: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    def query(self, name: str) -> str:
        return self.parameters.get(name, "")

    @property
    def field_selector(self) -> str:
        return self.query("fieldSelector")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100
    api: KubernetesApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that is gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body go out one after the other
    server: _Server

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        split = urllib.parse.urlsplit(self.path)
        parameters = dict(urllib.parse.parse_qsl(split.query))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else {}
        try:
            verb, found = self._verb(split.path, parameters)
            self.server.api.requests.append((verb, split.path))
            fault = self.server.api.take_fault(verb, split.path)
            if fault and fault.after_events is None and not fault.gone:
                if not fault.status:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                reason = {401: "Unauthorized", 429: "TooManyRequests", 410: "Expired"}.get(fault.status, "Fault")
                raise ApiError(fault.status, reason, f"a fault of the test: {reason}", fault.headers)
            if self.headers.get("Authorization") != f"Bearer {self.server.api.token}":
                raise ApiError(401, "Unauthorized", "Unauthorized")
            answer = self._discovery(split.path)
            if answer is not None:
                self._send(200, answer)
                return
            if split.path.endswith("subjectaccessreviews"):
                self._send(201, self.server.api.access_review(body))
                return
            request = self._request(verb, found, parameters, body)
            self.server.api.check_allowed(request)
            if verb == "watch":
                self._watch(request, fault)
            elif verb == "log":
                self._log(request, fault)
            else:
                answer = self.server.api.answer(request)
                self._send(201 if verb == "create" else 200, answer)
        except ApiError as error:
            self._send(error.code, error.status(), error.headers)

    def _verb(self, path: str, parameters: dict[str, str]) -> tuple[str, re.Match[str] | None]:
        # An empty name is none: NewRequestInfo in Kubernetes' apiserver/pkg/endpoints/request drops the slash.
        found = _PATH.match(path.rstrip("/"))
        named = bool(found and found["name"])
        if self.command == "GET":
            if found and found["sub"] == "log":
                return "log", found
            if parameters.get("watch", "").lower() in ("true", "1"):
                return "watch", found
            return ("get" if named else "list"), found
        if self.command == "DELETE":
            return ("delete" if named else "deletecollection"), found
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}[self.command], found

    def _request(self, verb: str, found: re.Match[str] | None, parameters: dict[str, str], body: Any) -> _Request:
        resource = found and next(
            (
                resource
                for resource in self.server.api.resources()
                if (resource.group, resource.version, resource.plural)
                == (found["group"] or "", found["version"] or found["core"], found["plural"])
            ),
            None,
        )
        if not found or not resource:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return _Request(
            verb,
            resource,
            found["namespace"] or "",
            found["name"] or "",
            found["sub"] or "",
            body,
            self.headers.get("Content-Type", ""),
            parameters,
        )

    def _discovery(self, path: str) -> Object | None:
        resources = self.server.api.resources()
        if path.rstrip("/") == "/version":
            built = dict.fromkeys(["buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform"], "")
            return {"major": "1", "minor": "33", "gitVersion": "v1.33.0", **built}
        if path.rstrip("/") == "/apis":
            groups: dict[str, list[str]] = {}
            for resource in resources:
                if resource.group and resource.version not in groups.setdefault(resource.group, []):
                    groups[resource.group].append(resource.version)
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {
                        "name": group,
                        "versions": [{"groupVersion": f"{group}/{name}", "version": name} for name in names],
                    }
                    for group, names in groups.items()
                ],
            }
        for version in {resource.api_version for resource in resources}:
            if path.rstrip("/") in (f"/apis/{version}", f"/api/{version}"):
                served = [
                    {
                        "name": resource.plural,
                        "singularName": resource.kind.lower(),
                        "kind": resource.kind,
                        "namespaced": resource.namespaced,
                        "verbs": ["get"],
                    }
                    for resource in resources
                    if resource.api_version == version
                ]
                return {
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": version,
                    "resources": served,
                }
        return None

    def _watch(self, request: _Request, fault: Fault | None) -> None:
        api, sent, seen = self.server.api, 0, request.query("resourceVersion")
        deadline = time.monotonic() + float(request.query("timeoutSeconds") or 300)
        bookmarks = request.query("allowWatchBookmarks").lower() in ("true", "1")
        told_at = time.monotonic()
        with self._stream(), api.stream(self.connection):
            try:
                if fault and fault.gone:
                    raise ApiError(410, "Expired", f"too old resource version: {seen} ({api.store.version})")
                changes = api.store.watch(
                    request.resource,
                    request.namespace,
                    seen,
                    request.query("labelSelector"),
                    ",".join(filter(None, [request.field_selector, request.name and f"metadata.name={request.name}"])),
                    is_over=lambda: api.is_stopped or time.monotonic() > deadline,
                )
                for change in changes:
                    if fault and fault.after_events is not None and sent >= fault.after_events:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    if change:
                        sent += 1
                        self._chunk(json.dumps({"type": change.type, "object": change.item}) + "\n")
                    elif bookmarks and time.monotonic() - told_at > BOOKMARK_SECONDS:
                        told_at = time.monotonic()
                        mark = {
                            "kind": request.resource.kind,
                            "apiVersion": request.resource.api_version,
                            "metadata": {"resourceVersion": api.store.version},
                        }
                        self._chunk(json.dumps({"type": "BOOKMARK", "object": mark}) + "\n")
                    elif self._client_is_gone():
                        return
            except ApiError as error:
                self._chunk(json.dumps({"type": "ERROR", "object": error.status()}) + "\n")

    def _log(self, request: _Request, fault: Fault | None) -> None:
        api = self.server.api
        pod = api.store.get(request.resource, request.namespace, request.name)
        if not pod["spec"].get("nodeName"):
            with self._stream("text/plain"):  # LogLocation in pkg/registry/core/pod/strategy.go of Kubernetes
                return
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase == "Pending":
            container = pod["spec"]["containers"][0]["name"]
            raise ApiError(
                400,
                "BadRequest",
                f'container "{container}" in pod "{request.name}" is waiting to start: ContainerCreating',
            )
        log, timestamps = api.log(request.name, request.namespace), request.query("timestamps").lower() == "true"
        start = 0
        if request.query("sinceSeconds"):
            start = log.first_since(float(request.query("sinceSeconds")))
        if request.query("tailLines"):
            start = max(start, len(log.lines) - int(request.query("tailLines")))
        follow, sent = request.query("follow").lower() == "true", 0
        with self._stream("text/plain"), api.stream(self.connection):
            while True:
                over = not follow or api.is_stopped or self._has_ended(request)
                for line in log.read(start, timestamps):
                    if fault and fault.after_events is not None and sent >= fault.after_events:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    self._chunk(line + "\n")
                    start, sent = start + 1, sent + 1
                if over or self._client_is_gone():
                    return
                with log.grown:
                    log.grown.wait(0.05)

    def _has_ended(self, request: _Request) -> bool:
        try:
            pod = self.server.api.store.get(request.resource, request.namespace, request.name)
        except ApiError:
            return True
        return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")

    def _client_is_gone(self) -> bool:
        self.connection.setblocking(False)
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.connection.setblocking(True)

    @contextlib.contextmanager
    def _stream(self, content_type: str = "application/json") -> Iterator[None]:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        yield
        with contextlib.suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, code: int, answer: Object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in {**(headers or {}), "Audit-Id": str(uuid.uuid4())}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
